"""How a run's network was made, in words: after training, or by training."""

from __future__ import annotations

from qstudio.session.options import Run
from qstudio.session.runs import SEARCHED
from qstudio.ui.text import tr

METHOD_TITLES = {"ste": "STE", "lsq": "LSQ", "lsq+": "LSQ+", "pact": "PACT", "dorefa": "DoReFa"}
"""Methods of training for people."""


def method_title(method: str) -> str:
    """Return a method of training for people."""
    return METHOD_TITLES.get(method, method)


def method_text(run: Run) -> str:
    """Return how a run's network was made: "PTQ", or the method and the epochs of its training."""
    if run.training is None:
        return tr("PTQ, searched") if run.phase == SEARCHED else tr("PTQ")
    settings = run.training.settings
    if run.state.is_final and not run.training.is_whole:
        words = tr("{e} of {n} epochs").format(e=f"{run.training.epochs_done:,}", n=f"{settings.epochs:,}")
        return f"{method_title(settings.method)}, {words}"
    epochs = tr("1 epoch") if settings.epochs == 1 else tr("{n} epochs").format(n=f"{settings.epochs:,}")
    return f"{method_title(settings.method)}, {epochs}"


def training_words(run: Run) -> str:
    """Return in words what a run's training came to; empty after PTQ."""
    record = run.training
    if record is None:
        return ""
    result = record.result
    if result is None:
        done = record.curve[-1].epoch if record.curve else 0
        return tr("Training with {m}: {e} of {n} epochs done.").format(
            m=method_title(record.settings.method), e=done, n=record.settings.epochs
        )
    resumed = "" if result.resumed_after is None else tr(", resumed after epoch {e}").format(e=result.resumed_after)
    return tr(
        "Trained with {m} on {n} samples in {s} s{r}; epoch {e} is the best on {h} held-out training samples."
    ).format(
        m=method_title(record.settings.method),
        n=f"{result.training_samples:,}",
        s=f"{result.training_seconds:.1f}",
        r=resumed,
        e=result.best_epoch,
        h=f"{result.held_out_samples:,}",
    )
