"""What a person has chosen for every piece of work, read from the settings file without Qt.

The engine's process is started before Qt is loaded, and has to know its number of threads then.
"""

from __future__ import annotations

import configparser
import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from qstudio.core.errors import UserError
from qstudio.core.inspection import check_preview_samples
from qstudio.core.results import Device
from qstudio.session.options import Notice, RunOptions
from qstudio.session.preview import SAMPLES

if TYPE_CHECKING:
    from qstudio.session.session import Session

SECTION = "preferences"
MOST_THREADS = 256


@dataclass(frozen=True)
class Preferences:
    """Defaults that a person may choose; the look is kept beside them, under "theme" and "zoom".

    Raises:
        UserError: A number is out of bounds.
    """

    engine_threads: int = 0
    """Threads of numerical libraries in each engine process; 0 = one less than there are cores."""
    timing_threads: int = 0
    """Threads of onnxruntime when latency is measured; 0 = all cores."""
    device: str = "cpu"
    """Where runs are computed."""
    preview_samples: int = SAMPLES
    """Samples of the accuracy preview."""
    autosave: bool = True
    """Whether work without a project is kept in a file."""

    def __post_init__(self) -> None:
        for name in ("engine_threads", "timing_threads"):
            if not 0 <= getattr(self, name) <= MOST_THREADS:
                raise UserError(
                    f"{getattr(self, name)} threads cannot be used", name, f"Choose 0 (automatic) to {MOST_THREADS}"
                )
        check_preview_samples(self.preview_samples)

    def run_options(self, devices: tuple[Device, ...] = ()) -> RunOptions:
        """Return what new work is asked with, on the chosen device where it is one of those that are there."""
        there = any(device.id == self.device and device.available and device.runs_simulation for device in devices)
        return RunOptions(device=self.device if there else RunOptions.device, threads=self.timing_threads)


def settings_path() -> Path:
    """Return the place of the settings file: where Qt has a person's INI files (see its QSettings)."""
    if sys.platform == "win32":
        root = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        root = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return root / "qstudio" / "qstudio.ini"


def read_preferences(path: Path | None = None) -> Preferences:
    """Read what was chosen; what is missing, damaged or out of bounds is the default.

    Args:
        path: The settings file; None = the person's own.
    """
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read(path or settings_path(), encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return Preferences()
    if not parser.has_section(SECTION):
        return Preferences()
    found: dict[str, int | str | bool] = {}
    for field in fields(Preferences):
        text = parser.get(SECTION, field.name, fallback=None)
        if text is None:
            continue
        try:
            value = _value(text, field.default)
            Preferences(**{field.name: value})  # type: ignore[arg-type]
        except (ValueError, UserError):
            continue
        found[field.name] = value
    return Preferences(**found)  # type: ignore[arg-type]


def begin_with(session: Session, preferences: Preferences) -> None:
    """Let a new session begin as chosen; the device follows once the engine has said which there are."""
    session.options = session.default_options = preferences.run_options()
    session.preview.samples = preferences.preview_samples
    asked = preferences.device != RunOptions.device

    def on_devices(devices: tuple[Device, ...]) -> None:
        nonlocal asked
        if not asked:
            return
        asked = False
        session.default_options = preferences.run_options(devices)
        if session.default_options.device != preferences.device:
            text = f"The default device {preferences.device} is not available; runs are computed on the CPU."
            session.notice_posted.emit(Notice("warning", text, action=("preferences", "Preferences")))
        elif not (session.project.path or session.runs) and session.options.device == RunOptions.device:
            session.set_options(device=preferences.device)

    session.devices_changed.connect(on_devices)


def _value(text: str, default: object) -> int | str | bool:
    """Read a value of the default's type as Qt writes it.

    Raises:
        ValueError: It is not of that type.
    """
    text = text.strip().strip('"')
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if isinstance(default, int):
        return int(text)
    if not text:
        raise ValueError(text)
    return text
