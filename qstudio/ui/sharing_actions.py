"""The actions that hand results to others: the report, encodings for other tools."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qstudio.core.errors import UserError
from qstudio.session.options import Notice, Run
from qstudio.session.recipe_file import write_encodings
from qstudio.session.report.page import write_report
from qstudio.ui.actions import ActionSpec
from qstudio.ui.commands import Commands
from qstudio.ui.text import tr

S = ActionSpec


def _selected(c: Commands) -> Run | None:
    return next((run for run in c.session.runs if run.id == c.session.selected_run), None)


def _stem(c: Commands) -> str:
    return Path(c.session.model.path).stem if c.session.model is not None else "model"


def _report_blocked(c: Commands) -> str:
    return "" if c.session.model is not None else tr("Open a model first")


def _save_report(c: Commands, path: str) -> None:
    try:
        write_report(c.session, path)
    except UserError as error:
        c.tell(error)
        return
    c.session.notice_posted.emit(Notice("info", f"{tr('The report was saved to')} {path}."))


def _ask_report(c: Commands) -> None:
    name = f"{_stem(c)}-report.html"
    c.ask_save(tr("Save report"), "HTML (*.html)", name, "html", partial(_save_report, c))


def _encodings_blocked(c: Commands) -> str:
    run = _selected(c)
    if run is None or run.result is None or run.result.encodings is None:
        return tr("Select a run that was exported first")
    return ""


def _save_encodings(c: Commands, kind: str, path: str) -> None:
    run = _selected(c)
    try:
        write_encodings(run.result.encodings if run is not None and run.result is not None else None, kind, path)
    except UserError as error:
        c.tell(error)
        return
    c.session.notice_posted.emit(Notice("info", f"{tr('The encodings were saved to')} {path}."))


def _ask_encodings(kind: str, c: Commands) -> None:
    name = f"{_stem(c)}-{kind}.json"
    c.ask_save(tr("Save encodings"), "JSON (*.json)", name, "json", partial(_save_encodings, c, kind))


SHARING_ACTIONS: tuple[ActionSpec, ...] = (
    S(
        "save_report",
        "Save report…",
        "File",
        _ask_report,
        ("Ctrl+Shift+E",),
        blocked=_report_blocked,
        help="Write model, recipe, runs, charts and how to repeat them as one HTML file that opens anywhere",
    ),
    S(
        "encodings_aimet",
        "AIMET…",
        "File/Save encodings",
        partial(_ask_encodings, "aimet"),
        (),
        blocked=_encodings_blocked,
        help="Scale and offset of every tensor of the selected run, as AIMET's encodings 1.0.0; Load recipe reads them",
    ),
    S(
        "encodings_onnxruntime",
        "onnxruntime…",
        "File/Save encodings",
        partial(_ask_encodings, "onnxruntime"),
        (),
        blocked=_encodings_blocked,
        help="Scale and zero point of every tensor of the selected run, as onnxruntime's TensorQuantOverrides",
    ),
)
"""Entered in `qstudio.ui.action_table` before Quit."""
