"""Model and data of a project: found again where they are now, known by their content, or inside the project's file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.engine.client import Job
from qstudio.engine.messages import DataSpec, JobState, OpenModel
from qstudio.session.events import Event
from qstudio.session.options import Notice
from qstudio.session.project_places import find, find_data, moved, place_of_data, place_of_model
from qstudio.session.project_recorder import Recorder
from qstudio.session.project_statistics import activations_key, fits_activations, fits_weights, weights_key
from qstudio.session.store.embedding import Embedded, Piece, data_pieces, embed, model_pieces, remove, take_out
from qstudio.session.store.state import ModelPlace
from qstudio.session.store.writer import Outcome

if TYPE_CHECKING:
    from qstudio.session.session import Session


@dataclass(frozen=True)
class ModelCheck:
    """What a file is that was shown as the place of a project's model."""

    path: str
    same: bool
    """Whether its content is that of the project's model."""
    error: str = ""
    """Why it cannot be read, one sentence; empty when it can."""


class ProjectFiles:
    """Opens what a project was made with, and notes what is open for the next time."""

    def __init__(self, session: Session, recorder: Recorder, tell_changed: Callable[[], None]) -> None:
        self._session = session
        self._recorder = recorder
        self._tell_changed = tell_changed
        self.embedded_root = ""
        """Folder that embedded files are taken out to; empty = they stay inside."""
        self.model_missing: Event[ModelPlace] = Event()
        """The project's model is neither where it was, nor beside the project, nor inside; see `locate_model`."""
        self.model_checked: Event[ModelCheck] = Event()
        """What `locate_model` found."""
        session.model_changed.connect(self._on_model)
        session.dataset_changed.connect(self._on_dataset)

    @property
    def _path(self) -> str:
        return self._recorder.opened.path if self._recorder.opened else ""

    @property
    def missing_model(self) -> ModelPlace | None:
        """The model that the project was made with, while no model is open."""
        return self._recorder.model if self._session.model is None else None

    def _tell(self, level: str, text: str) -> None:
        self._session.notice_posted.emit(Notice(level, text))

    # ---- opening

    def find(self) -> None:
        """Open model and data where they are now; what is nowhere but inside is taken out first."""
        recorder, place, data = self._recorder, self._recorder.model, self._recorder.data
        if place is None:
            return
        path = find(place.path, place.relative, self._path)
        spec = find_data(data, self._path) if data is not None else None
        needs_data = spec is not None and os.path.isabs(spec.source) and not os.path.exists(spec.source)
        inside = {item.role for item in self.embedded} if self.embedded_root else set()
        wanted = [role for role, needed in (("model", not path), ("data", needs_data)) if needed and role in inside]
        if not wanted:
            self._open(path, spec)
            return
        root, where = self.embedded_root, self._path

        def take_all(connection: sqlite3.Connection) -> dict[str, str]:
            return {role: take_out(connection, role, root, where) for role in wanted}

        def done(outcome: Outcome) -> None:
            if outcome.error is not None:
                self._tell("error", f"What is inside the project could not be taken out. {outcome.error}")
            taken = outcome.value or {}
            source = taken.get("data", "")
            self._open(taken.get("model", path), replace(spec, source=source) if spec and source else spec)

        recorder.put(take_all, done)

    def _open(self, path: str, spec: DataSpec | None) -> None:
        self._session.data_spec = spec
        if path:
            self._session.open_model(path)
        elif self._recorder.model is not None:
            self.model_missing.emit(self._recorder.model)

    def locate_model(self, path: str | os.PathLike[str]) -> Job:
        """Read a file and tell with `model_checked` whether it is the project's model; open it with `open_model`."""
        name = os.path.abspath(path)

        def done(job: Job) -> None:
            place = self._recorder.model
            if isinstance(job.value, ModelInfo):
                same = place is not None and place.sha256 == job.value.sha256
                self.model_checked.emit(ModelCheck(name, same))
            elif job.state is not JobState.CANCELLED:
                error = job.error.sentence() if job.error else "Its process was ended."
                self.model_checked.emit(ModelCheck(name, False, error))

        return self._session._work.submit("locate", OpenModel(name), done)

    def _on_model(self, model: ModelInfo | None) -> None:
        recorder, session = self._recorder, self._session
        if model is None or recorder.paused:
            return
        state, recorder.awaited = recorder.awaited, None
        if state is not None and recorder.model is not None and recorder.model.sha256 == model.sha256:
            session.history.load(state.edits.values(), state.line, state.facts.at)
            session.timeline.load(state.run_edits)
            session.saved_recipe = session.recipe
            known = {layer.name for layer in model.layers}
            session.selection = tuple(name for name in state.facts.selection if name in known) or session.selection
        elif state is not None:
            text = f"{model.name} is not the model that the project was made with: its history begins anew."
            self._tell("warning", f"{text} The runs so far are kept.")
        recorder.model = place_of_model(model.path, model.sha256, model.name, self._path)
        weights = recorder.kept_statistics(weights_key(model))
        if fits_weights(weights, model):
            session._measured.recall("weights", weights)
        self._name_places_in_runs()
        recorder.save()

    def _on_dataset(self, dataset: DatasetInfo | None) -> None:
        recorder, session = self._recorder, self._session
        model, spec = session.model, session.data_spec
        if dataset is None or model is None or spec is None or recorder.paused:
            return
        before = recorder.data
        recorder.data = place_of_data(spec, dataset.path, dataset.sha256, self._path)
        if before is not None and before.spec == recorder.data.spec and before.sha256 != dataset.sha256:
            self._tell(
                "warning", f"{dataset.name} has changed since the project was made: earlier runs are not current."
            )
        activations = recorder.kept_statistics(activations_key(model, dataset, session.options))
        if fits_activations(activations, model):
            session._measured.recall("activations", activations)
        self._name_places_in_runs()
        recorder.save()

    def _name_places_in_runs(self) -> None:
        """Name model and data in the runs made with them as they are named now, so that they can be repeated."""
        session = self._session
        model, dataset, spec = session.model, session.dataset, session.data_spec
        if model is not None:
            found = (dataset.sha256, spec.source) if dataset is not None and spec is not None else ("", "")
            session._runs.load(tuple(moved(run, model.sha256, model.path, *found) for run in session.runs))

    # ---- inside the project

    @property
    def embedded(self) -> tuple[Embedded, ...]:
        """What is inside the file; nothing where that cannot be read."""
        try:
            return self._recorder.opened.file.embedded() if self._recorder.opened else ()
        except (UserError, sqlite3.Error):
            return ()

    def pieces(self) -> dict[str, tuple[Piece, ...]]:
        """Return the files of the open model and data, which `embed` puts into the project.

        Raises:
            UserError: There is none, they cannot be read, or they are too large.
        """
        recorder = self._recorder
        if self._session.model is None or recorder.model is None:
            raise UserError("no model is open", "project", "Open a model first")
        found = {"model": model_pieces(recorder.model.path)}
        if recorder.data is not None and os.path.isabs(recorder.data.spec.source):
            found["data"] = data_pieces(recorder.data.spec.source)
        return found

    def embed(self) -> None:
        """Put the open model and data into the project; a notice tells when they are in.

        Raises:
            UserError: The project has no file, or see `pieces`.
        """
        recorder = self._recorder
        if not self._path or (recorder.opened is not None and recorder.opened.read_only):
            raise UserError("the project has no file of its own", "project", "Save it first")
        for role, pieces in self.pieces().items():
            recorder.put(embed(role, pieces, lambda: recorder.stopping), partial(self._on_embedded, role))

    def _on_embedded(self, role: str, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._tell("error", f"The {role} was not put into the project. {outcome.error}")
        elif outcome.value is not None:
            self._tell("info", f"The {role} is inside the project now: {outcome.value / 1024:,.0f} KB.")
        self._tell_changed()

    def remove_embedded(self) -> None:
        """Take model and data out of the project; it then needs them where they are."""
        for role in ("model", "data"):
            self._recorder.put(partial(remove, role), partial(self._on_embedded, role))
