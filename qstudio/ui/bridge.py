"""From the session's events to Qt signals, and from the engine's wake to the GUI thread."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from PySide6.QtCore import QObject, Qt, Signal

from qstudio.engine.client import EngineClient
from qstudio.session.session import Session

EVENTS: dict[str, str] = {
    "model_changed": "model_changed",
    "dataset_changed": "dataset_changed",
    "recipe_changed": "recipe_changed",
    "selection_changed": "selection_changed",
    "statistics_changed": "statistics_changed",
    "preview_changed": "preview_changed",
    "float_metrics_changed": "float_metrics_changed",
    "samples_changed": "samples_changed",
    "devices_changed": "devices_changed",
    "options_changed": "options_changed",
    "training_changed": "training_changed",
    "runs_changed": "runs_changed",
    "run_selected": "run_selected",
    "sensitivity_changed": "sensitivity.changed",
    "search_changed": "search.changed",
    "sample_traced": "pictures.changed",
    "sample_asked": "pictures.sample_asked",
    "weight_pictured": "pictures.weights_changed",
    "work_changed": "work_changed",
    "notice_posted": "notice_posted",
    "log_added": "log_added",
    "preview_accuracy_changed": "preview.changed",
    "depth_changed": "preview.depth_changed",
    "findings_changed": "findings.changed",
    "diagnosis_changed": "diagnosis.changed",
    "timeline_changed": "timeline.changed",
    "project_changed": "project.changed",
    "project_notes_changed": "project.notes.changed",
    "model_missing": "project.files.model_missing",
    "model_checked": "project.files.model_checked",
    "compare_changed": "compare.changed",
    "compare_samples_changed": "compare.samples_changed",
}
"""Signal of the bridge -> where the session has the event, as a dotted path."""


class SessionBridge(QObject):
    """One signal for each event of the session, with its value.

    What arrives from the engine is handled in the thread this object lives in, one queued call for any number of
    wakes: a chatty job cannot fill the event queue.
    """

    model_changed = Signal(object)
    dataset_changed = Signal(object)
    recipe_changed = Signal(object)
    selection_changed = Signal(object)
    statistics_changed = Signal(object)
    preview_changed = Signal(object)
    float_metrics_changed = Signal(object)
    samples_changed = Signal(object)
    devices_changed = Signal(object)
    options_changed = Signal(object)
    training_changed = Signal(object)
    runs_changed = Signal(object)
    run_selected = Signal(object)
    sensitivity_changed = Signal(object)
    search_changed = Signal(object)
    sample_traced = Signal(object)
    sample_asked = Signal(object)
    weight_pictured = Signal(object)
    work_changed = Signal(object)
    notice_posted = Signal(object)
    project_changed = Signal(object)
    project_notes_changed = Signal(object)
    model_missing = Signal(object)
    model_checked = Signal(object)
    log_added = Signal(object)
    preview_accuracy_changed = Signal(object)
    depth_changed = Signal(object)
    findings_changed = Signal(object)
    diagnosis_changed = Signal(object)
    timeline_changed = Signal(object)
    compare_changed = Signal(object)
    compare_samples_changed = Signal(object)
    _woken = Signal()

    def __init__(self, session: Session, engine: EngineClient, parent: QObject | None = None) -> None:
        """Listen to the session and take over the engine's wake."""
        super().__init__(parent)
        self._engine = engine
        self._pending = False
        self._disconnects: list[Callable[[], None]] = [
            attrgetter(path)(session).connect(getattr(self, name).emit) for name, path in EVENTS.items()
        ]
        self._woken.connect(self._dispatch, Qt.ConnectionType.QueuedConnection)
        engine.set_wake(self._wake)

    def _wake(self) -> None:
        """Ask the GUI thread to dispatch; called from any thread. A second ask before it has done so is dropped."""
        if not self._pending:
            self._pending = True
            self._woken.emit()

    def _dispatch(self) -> None:
        self._pending = False
        self._engine.dispatch()

    def close(self) -> None:
        """Stop listening."""
        self._engine.set_wake(None)
        for disconnect in self._disconnects:
            disconnect()
        self._disconnects.clear()
