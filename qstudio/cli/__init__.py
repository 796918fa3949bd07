"""The command line: the same engine without a window."""

from __future__ import annotations

from qstudio.cli.program import main

__all__ = ["main"]
