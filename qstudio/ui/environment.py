"""What the program runs on, as lines that a person can read and send: versions, system, processor, screen."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version

from PySide6.QtCore import qVersion
from PySide6.QtGui import QGuiApplication

from qstudio import __version__
from qstudio.core.processor import INT8_MEANING, processor, usable_cores
from qstudio.core.results import Device

Line = tuple[str, str]
"""(what, value)."""


def versions() -> tuple[Line, ...]:
    """Return the versions of the program, Python, Qt and every package it needs; none of them is loaded for it."""
    found = [("QStudio", __version__), ("Python", platform.python_version()), ("Qt", qVersion())]
    for text in _requirements():
        name = re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "not installed"))
    return tuple(found)


def _requirements() -> list[str]:
    try:
        return [text for text in requires("qstudio") or () if "extra ==" not in text]
    except PackageNotFoundError:  # run from a folder that was never installed
        return []


def machine() -> tuple[Line, ...]:
    """Return the system, the processor, and how the window is drawn."""
    name, (family, *sets) = processor()
    app = QGuiApplication.instance()
    found = [
        ("System", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("Processor", name),
        ("Cores to use", str(usable_cores())),
        ("Instruction sets", ", ".join(sets) or f"none of those that speed up int8 ({family})"),
    ]
    if isinstance(app, QGuiApplication):
        screens = ", ".join(
            f"{screen.size().width()} x {screen.size().height()} at {screen.devicePixelRatio():g}"
            for screen in app.screens()
        )
        found += [("Qt platform", app.platformName()), ("Screens", screens)]
    return tuple(found)


def int8_meaning() -> tuple[Line, ...]:
    """Return what each instruction set found here means for int8 models in onnxruntime."""
    return tuple((name, INT8_MEANING[name]) for name in processor()[1] if name in INT8_MEANING)


def device_lines(devices: tuple[Device, ...]) -> tuple[Line, ...]:
    """Return the devices the engine has found, with the reason where one is not available."""
    return tuple(
        (device.title, "available" if device.available else f"not available: {device.reason}") for device in devices
    )


def details_text(devices: tuple[Device, ...] = ()) -> str:
    """Return everything as text to paste into a report of a fault."""
    return "\n".join(f"{what}: {value}" for what, value in (*versions(), *machine(), *device_lines(devices)))
