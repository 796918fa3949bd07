"""All layers at a glance: where each one's values lie, and what its scheme can represent. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding
from qstudio.core.errors import UserError
from qstudio.core.histogram import Histogram
from qstudio.core.model_info import ModelInfo, SiteInfo
from qstudio.core.scheme import Scheme
from qstudio.core.statistics import SiteStatistics
from qstudio.session.readout import Readout, Side, read
from qstudio.session.session import Session

QUANTILES = (0.01, 0.5, 0.99)
"""Ends and middle of a box."""

Reach = tuple[float, float]
"""Smallest and largest value that a scheme represents, in units of the tensor."""

_quantiles: WeakKeyDictionary[SiteStatistics, tuple[float, ...]] = WeakKeyDictionary()
_reaches: WeakKeyDictionary[SiteStatistics, dict[tuple[SiteInfo, Scheme], Reach | None]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Boxes:
    """One side of all layers, as arrays over the layers that have it; places count the model's rows."""

    side: Side
    names: tuple[str, ...]
    places: NDArray[np.int64]
    """[L] position of each layer among all layers that have a site, so that both sides and depth share an axis."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """[L] extremes."""
    quantiles: NDArray[np.float64]
    """[3, L] 1 %, 50 % and 99 % of the values lie below."""
    reach_low: NDArray[np.float64]
    reach_high: NDArray[np.float64]
    """[L] representable range; NaN where it is not known yet, or the site stays float."""
    is_float: NDArray[np.bool_]
    """[L] whether the site stays float."""
    unknown: tuple[str, ...] = ()
    """Layers whose representable range has not been found yet."""


def places_of(model: ModelInfo) -> dict[str, int]:
    """Return layer -> position among the layers that have a site of their own."""
    there = [layer.name for layer in model.layers if layer.weight is not None or layer.activation is not None]
    return {name: place for place, name in enumerate(there)}


def boxes(session: Session, side: Side) -> Boxes | None:
    """Return the boxes of one side, with the representable ranges that are known; None without statistics.

    `Boxes.unknown` says whose are not; `find` finds one.
    """
    if session.model is None:
        return None
    places = places_of(session.model)
    rows = []
    for name, site, statistics in _sites(session, side):
        reach = _known(session, side, name, site, statistics)
        low, high = reach if isinstance(reach, tuple) else (np.nan, np.nan)
        histogram = statistics.histogram
        ends = (histogram.minimum, histogram.maximum, *_quantiles_of(statistics), low, high)
        rows.append((name, places[name], ends, reach is None, reach == ""))
    if not rows:
        return None
    figures = np.array([row[2] for row in rows], np.float64).T
    return Boxes(
        side,
        tuple(row[0] for row in rows),
        np.array([row[1] for row in rows], np.int64),
        figures[0],
        figures[1],
        figures[2:5],
        figures[5],
        figures[6],
        np.array([row[3] for row in rows], bool),
        tuple(row[0] for row in rows if row[4]),
    )


def find(session: Session, side: Side, layer: str) -> None:
    """Find a layer's representable range: about 1 ms, up to 15 ms for a calibrator that searches."""
    if session.model is None:
        return
    info = session.model.layer(layer)
    site = info.weight if side == "weight" else info.activation
    statistics = _statistics(session, side).get(site.id) if site is not None else None
    if site is None or statistics is None:
        return
    scheme = _scheme(session, side, layer)
    try:
        found = None if scheme.is_float else reach_of(read(statistics, site, scheme))
    except UserError:
        found = (np.nan, np.nan)  # the inspector says why
    _reaches.setdefault(statistics, {})[(site, scheme)] = found


def reach_of(readout: Readout) -> Reach:
    """Return the representable range of a read-out; with several scales, that of the widest."""
    encoding = readout.encoding
    if isinstance(encoding, Encoding):
        return float(np.min(encoding.low)), float(np.max(encoding.high))
    levels = readout.levels
    if levels is not None and len(levels):
        return float(levels[0]), float(levels[-1])
    return readout.clip


def _sites(session: Session, side: Side) -> list[tuple[str, SiteInfo, SiteStatistics]]:
    known = _statistics(session, side)
    found = []
    for layer in session.model.layers if session.model is not None else ():
        site = layer.weight if side == "weight" else layer.activation
        statistics = known.get(site.id) if site is not None else None
        if site is not None and statistics is not None and statistics.histogram.count:
            found.append((layer.name, site, statistics))
    return found


def _statistics(session: Session, side: Side) -> dict[str, SiteStatistics]:
    return session.weight_statistics if side == "weight" else session.activation_statistics


def _scheme(session: Session, side: Side, layer: str) -> Scheme:
    settings = session.settings(layer)
    return settings.weight_scheme() if side == "weight" else settings.activation_scheme()


def _known(session: Session, side: Side, layer: str, site: SiteInfo, statistics: SiteStatistics) -> Reach | str | None:
    """Return a range; None where the site stays float, "" where it has not been found."""
    scheme = _scheme(session, side, layer)
    return None if scheme.is_float else _reaches.get(statistics, {}).get((site, scheme), "")


def _quantiles_of(statistics: SiteStatistics) -> tuple[float, ...]:
    known = _quantiles.get(statistics)
    if known is None:
        known = _quantiles[statistics] = quantiles(statistics.histogram)
    return known


def quantiles(histogram: Histogram, shares: tuple[float, ...] = QUANTILES) -> tuple[float, ...]:
    """Return the values below which given shares of a histogram lie, to within a bin's width; zeros are exact."""
    centres, counts = histogram.centres, histogram.counts
    before = int(np.searchsorted(centres, 0.0))
    values = np.insert(centres, before, 0.0)
    summed = np.cumsum(np.insert(counts, before, histogram.zeros))
    found = np.searchsorted(summed, np.asarray(shares) * summed[-1], side="left")
    return tuple(np.clip(values[np.minimum(found, len(values) - 1)], histogram.minimum, histogram.maximum).tolist())
