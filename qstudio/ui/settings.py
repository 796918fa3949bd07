"""What the window remembers between starts."""

from __future__ import annotations

import os

from PySide6.QtCore import QSettings

RECENT_LIMIT = 8


def settings() -> QSettings:
    """Return the person's settings file (INI, in the system's place for it)."""
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "qstudio", "qstudio")


def recent_files() -> tuple[str, ...]:
    """Return the models opened last, newest first; files that are gone are still named."""
    value = settings().value("recent", [])
    values = [value] if isinstance(value, str) else list(value or [])  # type: ignore[call-overload]
    return tuple(str(path) for path in values if path)


def add_recent_file(path: str) -> None:
    """Put a model at the top of the recent files."""
    absolute = os.path.abspath(path)
    kept = [absolute, *(other for other in recent_files() if other != absolute)][:RECENT_LIMIT]
    settings().setValue("recent", kept)
