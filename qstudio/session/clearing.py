"""A session begun anew, or with the runs of a project: what opening a project needs besides its public methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qstudio.core.recipe import Recipe
from qstudio.core.training import Training
from qstudio.session.history import History
from qstudio.session.options import Run

if TYPE_CHECKING:
    from qstudio.session.session import Session


def clear(session: Session) -> None:
    """Put a session back to how it began; `tell_everything` has to follow."""
    session._work.cancel()
    session.model, session.opening, session.selection = None, "", ()
    session.data_spec = session._opening_data = session.dataset = None
    session._measured.forget_model(None)
    session._measured.forget_data()
    session.history = History(Recipe())
    session.saved_recipe = session.recipe
    session.options, session.training = session.default_options, Training()


def tell_everything(session: Session, runs: tuple[Run, ...], selected: int | None) -> None:
    """Take over runs and tell all listeners what a session holds now."""
    session.model_changed.emit(session.model)
    session.dataset_changed.emit(session.dataset)
    session._measured.tell_forgotten()
    session.statistics_changed.emit("weights")
    session.recipe_changed.emit(session.recipe)
    session.selection_changed.emit(session.selection)
    session.options_changed.emit(session.options)
    session.training_changed.emit(session.training)
    session._runs.load(runs)
    session.select_run(selected if any(run.id == selected for run in runs) else None)
