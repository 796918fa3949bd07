"""Opening project files: who may write, what is left after a crash, and the autosave of work without a file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path

from qstudio.core.errors import UserError
from qstudio.engine.messages import JobState
from qstudio.session.store.lock import SUFFIX as LOCK_SUFFIX
from qstudio.session.store.lock import Holder, ProjectLock, holder_of
from qstudio.session.store.project_file import EMPTY, ProjectFile, remove_files, remove_log, words_of
from qstudio.session.store.schema import check_header
from qstudio.session.store.state import ProjectState

LAST = "last.qsproj"
"""In the folder of autosaves: what was done without a project before the program was last closed in order."""

KEPT_AUTOSAVES = 5
"""Autosaves of crashed programs that are kept; the oldest go."""

KILLED_WORDS = "The program ended while it ran; what it had measured is kept"


ELSEWHERE_WORDS = "It goes on in the window that has the project; this is what it had measured"


@dataclass(frozen=True)
class Opened:
    """A project file that is open."""

    file: ProjectFile
    lock: ProjectLock | None
    state: ProjectState
    path: str = ""
    """Of the project as the person knows it; empty where it has no file yet."""
    read_only: str = ""
    """Why the project itself is not written, in words: `file` is then a copy; empty when it is written."""
    crashed: bool = False
    """Whether its program ended without closing it."""


def default_autosave_root() -> str:
    """Return the folder of the system for the state of programs, and in it ours for work without a file."""
    from platformdirs import user_state_dir

    return str(Path(user_state_dir("qstudio", appauthor=False)) / "autosave")


def default_embedded_root() -> str:
    """Return the folder of the system for what programs can make again, and in it ours for embedded files."""
    from platformdirs import user_cache_dir

    return str(Path(user_cache_dir("qstudio", appauthor=False)) / "embedded")


def open_project(path: str | os.PathLike[str], autosave_root: str) -> Opened:
    """Open a project to go on with it; where it cannot be written, a copy of it, with the reason.

    Args:
        path: The project file.
        autosave_root: Folder of the copy; empty = a temporary one.

    Raises:
        UserError: It is no project, is damaged, or a newer version wrote it.
    """
    name = os.path.abspath(path)
    check_header(name)
    crashed = os.path.exists(name + LOCK_SUFFIX)
    lock: ProjectLock | Holder | None = None
    try:
        lock = ProjectLock.take(name)
    except OSError as error:
        reason = f"its folder cannot be written ({error.strerror})"
    if isinstance(lock, Holder):
        reason = f"{lock.words} has it open"
    elif lock is not None:
        _sweep(name)
        try:
            file, state = ProjectFile.open(name)
        except sqlite3.Error as error:
            lock.release()
            reason = f"the file cannot be written ({words_of(error)})"
        except BaseException:
            lock.release()
            raise
        else:
            return Opened(file, lock, _stopped(state), name, "", crashed)
    try:
        return _copy(name, autosave_root, isinstance(lock, Holder), reason)
    except (sqlite3.Error, OSError) as error:
        what = f"the project cannot be opened ({words_of(error)})"
        raise UserError(what, name, "Copy it to another folder") from None


def _sweep(path: str) -> None:
    """Remove what a program that was killed while it saved under this name has left; the lock is held."""
    for left in Path(path).parent.glob(f"{escape(Path(path).name)}.*.part"):
        remove_files(left)


def _stopped(state: ProjectState, words: str = KILLED_WORDS) -> ProjectState:
    """Return the state with runs that were in progress shown as what they are: ended with their program."""
    runs = tuple(run if run.state.is_final else replace(run, state=JobState.KILLED, error=words) for run in state.runs)
    return replace(state, runs=runs)


def _copy(name: str, root: str, in_use: bool, reason: str) -> Opened:
    """Open a copy of a project that another window writes, or that nobody may write."""
    target = _new_autosave(root or tempfile.mkdtemp(prefix="qstudio-"))
    lock = ProjectLock.take(target)
    try:
        if in_use:
            original = ProjectFile.look(name)
            try:
                original.copy_to(target)
            finally:
                original.close()
        else:
            for suffix in ("", "-wal"):
                if os.path.exists(name + suffix):
                    shutil.copyfile(name + suffix, target + suffix)
        file, state = ProjectFile.open(target)
    except BaseException:
        remove_files(target)
        if isinstance(lock, ProjectLock):
            lock.release()
        raise
    known = (len(state.edits), len(state.runs))
    words = ELSEWHERE_WORDS if in_use else KILLED_WORDS
    state = replace(_stopped(state, words), facts=replace(state.facts, origin=name, known=known))
    return Opened(file, lock if isinstance(lock, ProjectLock) else None, state, name, reason)


def _new_autosave(root: str) -> str:
    os.makedirs(root, mode=0o700, exist_ok=True)
    return os.path.join(root, f"unnamed-{os.getpid()}-{time.time_ns() // 1000}.qsproj")


def begin_autosave(root: str) -> Opened:
    """Begin a file for work that has no project yet.

    Raises:
        sqlite3.Error, OSError: It cannot be written.
    """
    path = _new_autosave(root)
    lock = ProjectLock.take(path)
    try:
        file = ProjectFile.create(path)
    except BaseException:
        if isinstance(lock, ProjectLock):
            lock.release()
        raise
    return Opened(file, lock if isinstance(lock, ProjectLock) else None, EMPTY)


def recoverable(root: str) -> tuple[str, ...]:
    """Return the autosaves of programs that ended without closing them, the newest first; very old ones go."""
    found: list[tuple[float, str]] = []
    for file in Path(root).glob("unnamed-*.qsproj") if root else ():
        try:
            if holder_of(file) is None:
                if not file.stat().st_size:  # of a program that ended while it made it
                    remove_files(file)
                check_header(file)
                found.append((file.stat().st_mtime, str(file)))
        except (OSError, UserError):
            continue
    paths = tuple(path for _, path in sorted(found, reverse=True))
    for path in paths[KEPT_AUTOSAVES:]:
        remove_files(path)
    return paths[:KEPT_AUTOSAVES]


def recover(path: str) -> Opened | None:
    """Open an autosave to go on with it as work without a file; None where it is a copy that nothing was done in.

    Raises:
        UserError: It is damaged, or another window has it.
    """
    lock = ProjectLock.take(path)
    if isinstance(lock, Holder):
        raise UserError(f"{lock.words} has it open", path)
    try:
        file, state = ProjectFile.open(path)
    except BaseException:
        lock.release()
        raise
    if state.facts.known == (len(state.edits), len(state.runs)):
        file.close()
        remove_files(path)
        lock.release()
        return None
    return Opened(file, lock, _stopped(state), crashed=True)


def put_away(opened: Opened, root: str, keep: bool) -> None:
    """Close a project.

    Args:
        opened: The project; its autosave, where it has no file of its own, is kept as the last one or removed.
        root: Folder of autosaves; empty where the copy of a project lies in a temporary folder of its own.
        keep: Whether something was done that is nowhere else.
    """
    opened.file.close()
    path = opened.file.path
    if path != opened.path:
        _put_away_autosave(path, root, keep)
    if opened.lock is not None:
        opened.lock.release()


def _put_away_autosave(path: str, root: str, keep: bool) -> None:
    if keep and root:
        last = os.path.join(root, LAST)
        try:
            remove_files(last)
            os.replace(path, last)
        except OSError:
            return  # it stays under its own name, and is found as one that was not closed
    remove_files(path)
    if not root:
        shutil.rmtree(os.path.dirname(path), ignore_errors=True)


def begin_again(root: str) -> str:
    """Return the path of the work without a project that was closed last, under the name of an autosave of its own.

    Empty when there is none.
    """
    last = os.path.join(root, LAST) if root else ""
    if not last or not os.path.exists(last):
        return ""
    path = _new_autosave(root)
    try:
        os.replace(last, path)
    except OSError as error:
        raise UserError(f"it cannot be restored ({error.strerror})", last) from None
    return path


def has_last(root: str) -> bool:
    """Return whether there is work without a project that was closed last."""
    return bool(root) and os.path.exists(os.path.join(root, LAST))


def save_copy(file: ProjectFile | None, path: str) -> Opened:
    """Write a project with all that is in it to a path, in place of what is there, and open it.

    Raises:
        UserError: It cannot be written, or another window has it open.
    """
    fix = "Choose another name or folder"
    try:
        lock = ProjectLock.take(path)
    except OSError as error:
        raise UserError(f"the project was not saved ({error.strerror})", path, fix) from None
    if isinstance(lock, Holder):
        raise UserError(f"{lock.words} has it open", path, fix)
    part = f"{path}.{os.getpid()}.part"
    _sweep(path)
    try:
        if file is None:
            ProjectFile.create(part).close()
        else:
            file.copy_to(part)
        if os.path.isdir(path):
            raise IsADirectoryError(21, "it is a folder")
        # A log of the file that goes would be taken for one of the file that comes.
        remove_log(path)
        os.replace(part, path)
        opened, state = ProjectFile.open(path)
    except (sqlite3.Error, OSError) as error:
        remove_files(part)
        lock.release()
        raise UserError(f"the project was not saved ({words_of(error)})", path, fix) from None
    except BaseException:
        lock.release()
        raise
    return Opened(opened, lock, state, path)
