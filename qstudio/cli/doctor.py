"""`qstudio doctor`: what this machine offers, what is missing, and what that means."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
from argparse import Namespace
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from qstudio import __version__
from qstudio.cli.asking import Asker
from qstudio.cli.tables import size
from qstudio.core.processor import INT8_MEANING, processor
from qstudio.core.results import Device
from qstudio.engine.messages import ListDevices

WINDOW_S = 30.0
"""Longest wait for Qt to start; over ssh without a display it fails at once, behind a dead X server it hangs."""

LINE = 110


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report."""

    group: str
    name: str
    value: str
    status: str = "ok"
    """"ok"; "note": works, but knowing it helps; "problem": something of the program will not work."""
    meaning: str = ""
    """What it means and what to do, where that is not plain."""


def run(arguments: Namespace, asker: Asker) -> tuple[dict[str, Any], str]:
    """Look at the installation; return the report for --json and for people."""
    devices: tuple[Device, ...] = asker.ask(ListDevices())
    checks = [*_programs(), *_machine(), *_int8(), _window(), *_devices(devices), *_folders()]
    problems = sum(check.status == "problem" for check in checks)
    said = {0: "Everything the program needs is here.", 1: "One line, marked !, needs attention."}
    last = said.get(problems, f"{problems} lines, marked !, need attention.")
    report = {"checks": [asdict(check) for check in checks], "problems": problems}
    return report, f"{_text(checks)}\n\n{last}"


def _text(checks: list[Check]) -> str:
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            lines += ([""] if lines else []) + [group]
        mark = {"ok": " ", "note": "-", "problem": "!"}[check.status]
        lines.append(f"{mark} {check.name.ljust(width)}  {check.value}")
        indent = " " * (width + 4)
        lines += textwrap.wrap(check.meaning, LINE, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def _programs() -> list[Check]:
    from packaging.requirements import Requirement

    found = [
        Check("Versions", "qstudio", __version__),
        Check("Versions", "Python", platform.python_version()),
        Check("Versions", "system", platform.platform()),
    ]
    for text in requires("qstudio") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = requirement.name
        try:
            installed = version(name)
        except PackageNotFoundError:
            found.append(Check("Versions", name, "missing", "problem", f"Install it: pip install '{requirement}'"))
            continue
        fits = requirement.specifier.contains(installed, prereleases=True)
        fix = "" if fits else f"Not tested with it: pip install '{requirement}'"
        found.append(Check("Versions", name, installed, "ok" if fits else "problem", fix))
    return found


def _machine() -> list[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = [Check("Machine", "processor", processor()[0]), Check("Machine", "cores to use", str(cores))]
    memory = _memory_bytes()
    if memory is not None:
        tight = memory < 4 * 10**9
        meaning = "Under 4 GB: take fewer samples, and close other programs for large models" if tight else ""
        found.append(Check("Machine", "memory", size(memory), "note" if tight else "ok", meaning))
    return found


def _memory_bytes() -> int | None:
    """Return the machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _int8() -> list[Check]:
    family, *sets = processor()[1]
    found = [Check("Speed of int8", name, "present", "ok", INT8_MEANING[name]) for name in sets if name in INT8_MEANING]
    exact = {"avx512_vnni", "avx_vnni", "amx_int8", "neon_dotprod", "neon_i8mm"}
    if not exact & set(sets):
        name = "VNNI" if family == "x86" else "dot products"
        meaning = "int8 models can be slower than float here, and on x86 their sums can saturate: measure, and look at "
        found.append(Check("Speed of int8", name, "not found", "note", meaning + "the notes of each run"))
    return found


def _window() -> Check:
    """Start Qt in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "qstudio.ui.platform_probe"],
            capture_output=True,
            text=True,
            timeout=WINDOW_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        fix = "Is there a display? QT_QPA_PLATFORM=offscreen runs without one"
        return Check("Window", "Qt", f"does not start within {WINDOW_S:.0f} s", "problem", fix)
    except OSError as error:
        return Check("Window", "Qt", f"cannot be tried ({error.strerror})", "problem", "Start Python by its full path")
    if done.returncode == 0:
        name, screens = done.stdout.split()[-2:]
        one = screens == "1"
        return Check("Window", "Qt", f"platform {name}, {screens} screen{'' if one else 's'}")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    fix = "Without a screen the commands work; on Linux the packages of the README's test line bring what Qt needs"
    return Check("Window", "Qt", lines[0] if lines else f"ended with {done.returncode}", "problem", fix)


def _devices(devices: tuple[Device, ...]) -> list[Check]:
    return [
        Check("Devices", device.title, "available" if device.available else f"not available: {device.reason}")
        for device in devices
    ]


def _folders() -> list[Check]:
    import platformdirs

    found = []
    for name, folder in (
        ("settings", platformdirs.user_config_dir("qstudio", appauthor=False)),
        ("state", platformdirs.user_state_dir("qstudio", appauthor=False)),
        ("log", platformdirs.user_log_dir("qstudio", appauthor=False)),
        ("temporary files", tempfile.gettempdir()),
    ):
        there = _first_that_exists(folder)
        free = shutil.disk_usage(there).free
        if not os.access(there, os.W_OK):
            found.append(Check("Folders", name, folder, "problem", "It cannot be written: give yourself the right to"))
        elif free < 10**9:
            meaning = f"Only {size(free)} are free: exports and checkpoints may not fit"
            found.append(Check("Folders", name, folder, "note", meaning))
        else:
            found.append(Check("Folders", name, f"{folder} ({size(free)} free)"))
    return found


def _first_that_exists(folder: str) -> str:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or os.sep
    return folder
