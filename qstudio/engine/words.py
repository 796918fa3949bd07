"""What went wrong, in words: exceptions of jobs and deaths of processes."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from collections.abc import Sequence

from qstudio.core.errors import UserError
from qstudio.engine.messages import Failure

_SIGNALS = {
    "SIGSEGV": "it touched memory that is not its own",
    "SIGBUS": "it touched memory that is not there",
    "SIGABRT": "a library gave up",
    "SIGILL": "a library uses instructions this processor does not have",
    "SIGFPE": "an arithmetic fault in a library",
    "SIGKILL": "it was ended from outside, or the system ran out of memory",
    "SIGTERM": "it was ended from outside",
}
_WINDOWS_CODES = {
    0xC0000005: "it touched memory that is not its own",
    0xC000001D: "a library uses instructions this processor does not have",
    0xC00000FD: "the stack was used up",
    0xC0000409: "a library gave up",
    0xC0000017: "the system ran out of memory",
}
_MEMORY_WORDS = ("can't allocate memory", "bad_alloc", "failed to allocate memory", "out of memory")


def failure_of(error: BaseException, title: str, log: Sequence[str] = ()) -> Failure:
    """Return a job's exception in words, with the traceback and the last log lines as details.

    Args:
        error: What the job raised.
        title: What the job was doing ("opening the model").
        log: Last captured lines, oldest first.
    """
    details = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if log:
        details += "\nLast lines of the log:\n" + "\n".join(log)
    if isinstance(error, UserError):
        return Failure(error.what, error.where, error.fix, details, user_fault=True)
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _MEMORY_WORDS):
        return Failure(
            f"there is not enough memory for {title}",
            fix="Use fewer samples or a smaller model, or close other programs",
            details=details,
        )
    if isinstance(error, OSError) and error.errno is not None:
        return _failure_of_os_error(error, title, details)
    if isinstance(error, ImportError):
        return Failure(
            f"{title} needs a part of the program that could not be loaded ({text})",
            fix="Install QStudio again with all its dependencies",
            details=details,
        )
    kind = type(error).__name__
    reason = f"{kind}: {_first_line(text)}" if text else kind
    return Failure(
        f"{title} failed by a fault of the program ({reason})",
        fix="The details hold what a report needs",
        details=details,
    )


def _failure_of_os_error(error: OSError, title: str, details: str) -> Failure:
    where = str(error.filename or "")
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return Failure("the disk is full", where, "Make room or choose another folder", details, user_fault=True)
    reason = error.strerror or type(error).__name__
    return Failure(
        f"{title} failed: {reason[0].lower()}{reason[1:]}" if reason else f"{title} failed",
        where,
        "Check the path and its permissions",
        details,
        user_fault=bool(where),
    )


def _first_line(text: str, longest: int = 200) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= longest else line[: longest - 1] + "…"


def how_it_ended(exit_code: int | None) -> str:
    """Return how a process ended, as the end of a sentence: "by signal SIGSEGV (it touched ...)"."""
    if exit_code is None:
        return "without a word"
    if exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = str(-exit_code)
        return f"by signal {name} ({_SIGNALS[name]})" if name in _SIGNALS else f"by signal {name}"
    if sys.platform == "win32" and exit_code in _WINDOWS_CODES:
        return f"with code {exit_code:#010x} ({_WINDOWS_CODES[exit_code]})"
    return f"with exit code {exit_code}"


def death_sentence(process: str, exit_code: int | None, title: str, restarted: bool) -> str:
    """Return one sentence about a process that is gone; `title` is what it was doing, empty when idle."""
    during = f" while {title}" if title else ""
    after = "It has been started again" if restarted else "It could not be started again"
    return f"The {process} process ended {how_it_ended(exit_code)}{during}. {after}."
