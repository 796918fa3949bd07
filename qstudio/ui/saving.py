"""Writing a file that a person asked for, and saying what became of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from qstudio.session.options import Notice
from qstudio.ui.text import tr


def saved(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Notice:
    """Write a file and return the notice that says so, or why it was not written.

    Args:
        path: The file.
        write: Writes it; an OSError is told.
    """
    target = Path(path)
    try:
        write(target)
    except OSError as error:
        reason = error.strerror or str(error)
        return Notice("error", f"{target}: {tr('not saved')} ({reason}). {tr('Choose another folder')}.")
    return Notice("info", f"{tr('Saved')} {target.name}.")


def saved_text(path: str | os.PathLike[str], text: str) -> Notice:
    """Write a text and return the notice that says so, or why it was not written."""
    return saved(path, lambda target: target.write_text(text, encoding="utf-8"))
