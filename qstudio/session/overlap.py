"""Calibration against evaluation at the sites of an open model. No Qt."""

from __future__ import annotations

from qstudio.core.errors import UserError
from qstudio.core.overlap import Overlap, overlap
from qstudio.core.statistics import SiteStatistics
from qstudio.session.readout import inspect, site_of, statistics_of
from qstudio.session.session import Session


def evaluation_of(session: Session, layer: str) -> SiteStatistics | None:
    """Return the evaluation data's statistics of a layer's activation, None while there are none."""
    site = site_of(session, layer, "activation")
    return session.evaluation_statistics.get(site.id) if site is not None else None


def overlap_of(session: Session, layer: str) -> Overlap | None:
    """Return how far calibration and evaluation data agree at a layer's activation, under its calibrated range.

    A float activation has the range of its calibration data. None while statistics are missing; ask for the
    evaluation's with `Session.collect_evaluation`.
    """
    calibration, evaluation = statistics_of(session, layer, "activation"), evaluation_of(session, layer)
    if calibration is None or evaluation is None:
        return None
    clip = (min(calibration.histogram.minimum, 0.0), max(calibration.histogram.maximum, 0.0))
    try:
        readout = inspect(session, layer, "activation")
    except UserError:
        readout = None  # the range cannot be found; the inspector says why
    return overlap(calibration.histogram, evaluation.histogram, clip if readout is None else readout.clip)
