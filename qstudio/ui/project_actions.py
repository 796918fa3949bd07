"""The actions of projects, part of the table of actions."""

from __future__ import annotations

from qstudio.ui.actions import ActionSpec
from qstudio.ui.commands import Commands
from qstudio.ui.text import tr

S = ActionSpec


def _blocked(c: Commands) -> str:
    return tr(c.session.project.blocked) if c.session.project.blocked else ""


def _save_blocked(c: Commands) -> str:
    return "" if c.session.model is not None or c.session.runs else tr("Open a model first")


def _embed_blocked(c: Commands) -> str:
    project = c.session.project
    if not project.path or project.read_only:
        return tr("Save the project first")
    return "" if c.session.model is not None else tr("Open a model first")


def _last_blocked(c: Commands) -> str:
    return _blocked(c) or ("" if c.project.has_last else tr("There is none"))


def _crash_blocked(c: Commands) -> str:
    return _blocked(c) or ("" if c.project.has_crashed else tr("There is none"))


def _recover(c: Commands) -> None:
    c.project.recover()


def _pin_blocked(c: Commands) -> str:
    return "" if c.session.selected_run is not None else tr("Select a run first")


def _pin_title(c: Commands) -> str:
    run = c.session.selected_run
    return tr("Unpin the selected run") if run in c.session.project.notes.pinned else tr("Pin the selected run")


PROJECT_ACTIONS: tuple[ActionSpec, ...] = (
    S(
        "new_project",
        "New project",
        "File",
        lambda c: c.project.new(),
        ("Ctrl+N",),
        blocked=_blocked,
        separator=True,
        help="Begin with nothing; what is open has been saved",
    ),
    S(
        "open_project",
        "Open project…",
        "File",
        lambda c: c.project.ask_open(),
        ("Ctrl+Shift+O",),
        blocked=_blocked,
        help="Go on with a .qsproj file: its model, data, runs, and every edit with undo",
    ),
    S(
        "save_project_as",
        "Save project as…",
        "File",
        lambda c: c.project.ask_save_as(),
        ("Ctrl+Shift+S",),
        blocked=_save_blocked,
        help="Keep history, runs, statistics and notes in one .qsproj file; from then on it is written with every edit",
    ),
    S(
        "embed",
        "Put model and data into the project…",
        "File",
        lambda c: c.project.ask_embed(),
        blocked=_embed_blocked,
        help="Make the project one file to hand out; the size is shown before",
    ),
    S(
        "project_note",
        "Note about the project…",
        "File",
        lambda c: c.project.ask_note(),
        blocked=_save_blocked,
        help="A text that is kept in the project",
    ),
    S(
        "restore_last",
        "Restore work without a project",
        "File",
        lambda c: c.project.restore_last(),
        blocked=_last_blocked,
        help="What was open without a project when QStudio was last closed",
    ),
    S(
        "restore_crashed",
        "Restore work after a crash",
        "File",
        _recover,
        blocked=_crash_blocked,
        help="What was open without a project when QStudio ended without being closed",
    ),
    S(
        "pin_run",
        "Pin the selected run",
        "Run",
        lambda c: c.project.toggle_pin(),
        blocked=_pin_blocked,
        title=_pin_title,
        help="A pinned run is a baseline that the others are compared with; it is kept with the project",
    ),
    S(
        "run_note",
        "Note about the selected run…",
        "Run",
        lambda c: c.project.ask_run_note(),
        blocked=_pin_blocked,
        help="A text that is kept with the run",
    ),
)
"""In the order in which they stand in the menus."""
