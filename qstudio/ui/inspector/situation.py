"""Why there is nothing to show for a layer's side, in words; empty when there is."""

from __future__ import annotations

from qstudio.core.model_info import LayerInfo
from qstudio.engine.client import Job
from qstudio.engine.messages import ActivationStatistics, WeightStatistics
from qstudio.session.readout import Side, statistics_of
from qstudio.session.session import Session
from qstudio.ui.text import tr


def why_empty(session: Session, layer: LayerInfo | None, side: Side) -> str:
    """Return what to tell instead of a histogram: what is missing, or how far it is."""
    if session.model is None:
        return tr("Open a model to see its layers")
    if layer is None:
        return tr("Select a layer to see its numbers")
    site = layer.weight if side == "weight" else layer.activation
    if site is None:
        return why_no_site(layer, side)
    if statistics_of(session, layer.name, side) is not None:
        return ""
    if side == "weight":
        return _progress(session, WeightStatistics, tr("Reading the weights")) or tr("The weights were not read")
    if not session.model.runnable:
        node, operator, _ = session.model.unsupported[0]
        return f"{tr('The model cannot run here, so there are no activations')}: {operator} ({node})"
    if session.dataset is None:
        return tr("Choose a dataset to see activations")
    working = _progress(session, ActivationStatistics, tr("Collecting statistics"))
    return working or tr("No statistics of this tensor were collected")


def why_no_site(layer: LayerInfo, side: Side) -> str:
    """Return why a layer has nothing to quantize on a side."""
    if side == "weight":
        return tr("This layer has no weights")
    if layer.shares_with:
        return f"{tr('The output keeps the values of')} {layer.shares_with} {tr('and shares its encoding')}"
    return tr("The output of this layer is not quantized")


def _progress(session: Session, kind: type, words: str) -> str:
    job: Job | None = next((job for job in session.work if isinstance(job.request, kind)), None)
    if job is None:
        return ""
    progress = job.progress
    if progress is None or not progress.total:
        return f"{words}…"
    return f"{words}… {100 * progress.done / progress.total:.0f} %"
