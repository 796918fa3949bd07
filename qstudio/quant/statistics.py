"""One streaming pass over data: what `SiteStatistics` holds, for every site, in memory that does not grow with data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qstudio.core.channel_error import count_channels
from qstudio.core.histogram import BINS, EMPTY, EXTREMES, Histogram, cover, histogram_of
from qstudio.core.model_info import LayerInfo, SiteInfo
from qstudio.core.statistics import Outlier, SiteStatistics

OUTLIERS = 8
"""Largest values kept with the sample they came from."""

_BOUNDED_BINCOUNT = 2**24
"""Values counted at a time: bounds the temporary index array at 64 MiB."""


class SiteAccumulator:
    """Statistics of one site, batch by batch.

    Holds a histogram, two arrays of channels, the extremes of the last samples, at most eight outliers, and no tensor.
    """

    def __init__(self, site: str, channel_axis: int | None = 1) -> None:
        self.site = site
        self._axis = channel_axis
        self._histogram: Histogram = EMPTY
        self._channel_min: np.ndarray | None = None
        self._channel_max: np.ndarray | None = None
        self._outliers: list[Outlier] = []
        self._samples: dict[str, int] = {}
        self._extremes = _SampleExtremes()

    def add(self, values: Tensor, indices: Sequence[int], tensor: str = "") -> None:
        """Count a batch in.

        Args:
            values: The tensor, batch first (a tensor whose first dimension is not the batch counts as one sample).
            indices: Index of each sample in its split.
            tensor: Which of the site's tensors this is; each counts its own samples.
        """
        if not values.is_floating_point() or not values.numel():
            return
        x = values.detach().to(torch.float32)
        batched = x.ndim > 0 and x.shape[0] == len(indices)
        if not batched:
            x, indices = x.reshape(1, *x.shape), indices[:1]
        seen = self._samples.get(tensor, 0)
        self._samples[tensor] = seen + len(indices)
        shape = tuple(x.shape[1:])
        axis = self._axis if batched and self._axis is not None and 0 < self._axis < x.ndim else None
        rows = _rows(x, axis)
        low, high = rows.amin(-1), rows.amax(-1)
        if bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
            nonfinite = 0
        else:
            finite = torch.isfinite(rows)
            nonfinite = int(finite.numel() - finite.sum())
            if not bool(finite.any()):
                self._extremes.add(seen, low.amin(-1) + torch.inf, high.amax(-1) - torch.inf)
                self._histogram = replace(self._histogram, nonfinite=self._histogram.nonfinite + nonfinite)
                return
            # What is not finite takes the place of a value that is there anyway, so that no extreme moves.
            low = torch.where(finite, rows, torch.inf).amin(-1)
            high = torch.where(finite, rows, -torch.inf).amax(-1)
        self._extremes.add(seen, low.amin(-1), high.amax(-1))
        self._add_outliers(rows, low, high, indices, shape, axis)
        self._add_channels(low, high)
        self._add_histogram(rows, float(low.amin()), float(high.amax()), nonfinite)

    def finish(self) -> SiteStatistics:
        """Return the statistics so far."""
        nothing = np.zeros(1, np.float32)
        return SiteStatistics(
            self.site,
            replace(self._histogram, extremes=self._extremes.finish()),
            nothing if self._channel_min is None else _finite(self._channel_min),
            nothing if self._channel_max is None else _finite(self._channel_max),
            tuple(self._outliers),
            max(self._samples.values(), default=0),
        )

    def _add_channels(self, low: Tensor, high: Tensor) -> None:
        low_of, high_of = low.amin(0).cpu().numpy(), high.amax(0).cpu().numpy()
        if self._channel_min is None or self._channel_max is None:
            self._channel_min, self._channel_max = low_of, high_of
        elif len(low_of) == len(self._channel_min):  # tied tensors may have other channels: the first one's are kept
            self._channel_min = np.minimum(self._channel_min, low_of)
            self._channel_max = np.maximum(self._channel_max, high_of)

    def _add_outliers(
        self,
        rows: Tensor,
        low: Tensor,
        high: Tensor,
        indices: Sequence[int],
        shape: tuple[int, ...],
        axis: int | None,
    ) -> None:
        """Keep the eight largest magnitudes; only rows that reach beyond the present eighth are looked into."""
        reach = torch.maximum(-low, high).reshape(-1)
        full = len(self._outliers) == OUTLIERS
        least = abs(self._outliers[-1].value) if full else 0.0
        best = torch.topk(reach, min(OUTLIERS, reach.numel()))
        chosen = best.indices[best.values > least].cpu()
        flat = rows.reshape(reach.numel(), -1)
        found = list(self._outliers)
        for row in chosen.tolist():
            line = torch.nan_to_num(flat[row], nan=0.0, posinf=0.0, neginf=0.0)
            top = torch.topk(line.abs(), min(OUTLIERS, line.numel())).indices
            sample, channel = divmod(row, rows.shape[1])
            for place, value in zip(top.tolist(), line[top].tolist(), strict=True):
                if abs(value) > least:
                    found.append(Outlier(value, int(indices[sample]), _position(channel, place, shape, axis)))
        found.sort(key=lambda o: (-abs(o.value), o.sample, o.position))
        self._outliers = found[:OUTLIERS]

    def _add_histogram(self, rows: Tensor, low: float, high: float, nonfinite: int) -> None:
        before = self._histogram
        if nonfinite:
            rows = rows[torch.isfinite(rows)].reshape(1, 1, -1)
        sums = rows.sum(-1).double()
        squares = torch.linalg.vector_norm(rows, dim=-1).double().square()
        total, square = float(sums.sum()), float(squares.sum())
        if not np.isfinite(total) or not np.isfinite(square):  # float32 sums of huge values overflow
            wide = rows.double()
            total, square = float(wide.sum()), float(wide.square().sum())
        grown = cover(before, low, high)
        counts, zeros = grown.counts, grown.zeros
        if low == 0.0 == high:
            zeros += rows.numel()
        else:
            added, added_zeros = count_bins(rows.reshape(-1), grown.low, grown.width)
            counts, zeros = counts + added, zeros + added_zeros
        first = before.count == 0
        self._histogram = Histogram(
            counts,
            grown.low,
            grown.width,
            zeros,
            low if first else min(before.minimum, low),
            high if first else max(before.maximum, high),
            before.total + total,
            before.total_square + square,
            before.nonfinite + nonfinite,
        )


class _SampleExtremes:
    """Smallest and largest value of each of the last EXTREMES samples.

    Samples are told apart by their number, not by batch: a site that is made of several tensors has one pair for each
    sample, and the batch size changes nothing.
    """

    def __init__(self) -> None:
        self._first = 0
        """Number of the first sample that is kept."""
        self._pairs = np.zeros((0, 2), np.float32)

    def add(self, start: int, low: Tensor, high: Tensor) -> None:
        """Count samples `start` and following in; extremes that are not finite stand for a sample without values."""
        past = max(self._first - start, 0)  # dropped already
        pairs = torch.stack([low, high], 1)[past:].cpu().numpy()
        start += past
        held = len(self._pairs) - (start - self._first)  # samples another tensor of the site has counted already
        shared = min(max(held, 0), len(pairs))
        place = slice(start - self._first, start - self._first + shared)
        self._pairs[place, 0] = np.fmin(self._pairs[place, 0], pairs[:shared, 0])
        self._pairs[place, 1] = np.fmax(self._pairs[place, 1], pairs[:shared, 1])
        self._pairs = np.concatenate([self._pairs, pairs[shared:]])
        spare = len(self._pairs) - 2 * EXTREMES  # twice: tensors of a site lag behind each other by a batch
        if spare > 0:
            self._pairs, self._first = self._pairs[spare:], self._first + spare

    def finish(self) -> np.ndarray | None:
        """Return the [S, 2] pairs of samples that had finite values, None without any."""
        pairs = self._pairs[-EXTREMES:]
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        return pairs.copy() if len(pairs) else None


class StatisticsCollector:
    """Fills the statistics of many sites from an executor's `observe` hook."""

    def __init__(self, sites: Sequence[SiteInfo]) -> None:
        self._accumulators = {site.id: SiteAccumulator(site.id, site.channel_axis) for site in sites}
        self._of_tensor = {
            tensor: self._accumulators[site.id] for site in sites for tensor in site.quantized_at or (site.id,)
        }
        self._indices: Sequence[int] = ()
        self._batch = 0
        self.tensors: frozenset[str] = frozenset(self._of_tensor)
        """ONNX names that are looked at."""

    def start_batch(self, indices: Sequence[int], batch: int) -> None:
        """Say which samples the next tensors belong to.

        Args:
            indices: Index of each sample in its split.
            batch: Rows the tensors have; those beyond the samples are padding and are dropped.
        """
        self._indices, self._batch = indices, batch

    def observe(self, tensor: str, values: Tensor) -> None:
        """Count one tensor in, if a site is there."""
        accumulator = self._of_tensor.get(tensor)
        if accumulator is not None:
            if values.ndim and values.shape[0] == self._batch:
                values = values[: len(self._indices)]
            accumulator.add(values, self._indices, tensor)

    def finish(self) -> dict[str, SiteStatistics]:
        """Return the statistics by site id."""
        return {site: accumulator.finish() for site, accumulator in self._accumulators.items()}


def count_bins(flat: Tensor, low: float, width: float) -> tuple[np.ndarray, int]:
    """Return ([BINS] counts without zeros, number of zeros) of values inside [low, low + BINS * width].

    The same float32 arithmetic as `qstudio.core.histogram.count_bins`, so the counts are equal; torch.bincount on
    int32 takes a fifth of the time of torch.histc.
    """
    counts = torch.zeros(BINS, dtype=torch.int64, device=flat.device)
    zeros = 0
    step = float(np.float32(1.0 / width))
    start = float(np.float32(low))
    for part in flat.split(_BOUNDED_BINCOUNT):
        index = (part - start).mul_(step).clamp_(0, BINS - 1).to(torch.int32)
        counts += torch.bincount(index, minlength=BINS)
        zeros += int((part == 0).sum())
    result = counts.cpu().numpy()
    if zeros:
        home = np.float32(np.float32(0.0) - np.float32(start)) * np.float32(step)
        result[int(np.clip(home, 0, BINS - 1))] -= zeros
    return result, zeros


def weight_statistics(site: SiteInfo, values: np.ndarray) -> SiteStatistics:
    """Return the exact statistics of a weight: every value counted once, ranges per output channel.

    Args:
        site: The weight's site; its channel axis decides the rows.
        values: The weight, in float32.
    """
    array = np.asarray(values, np.float32)
    histogram = histogram_of(array)
    finite = np.where(np.isfinite(array), array, np.float32(0.0))
    axis = site.channel_axis
    if axis is None or array.ndim == 0 or not array.size:
        rows = finite.reshape(1, -1)
    else:
        rows = np.moveaxis(finite, axis, 0).reshape(array.shape[axis], -1)
    magnitude = np.abs(finite).reshape(-1)
    count = min(OUTLIERS, magnitude.size)
    top = np.argpartition(-magnitude, count - 1)[:count] if count else np.zeros(0, int)
    top = top[np.lexsort((top, -magnitude[top]))]
    outliers = tuple(
        Outlier(float(finite.reshape(-1)[i]), -1, tuple(int(p) for p in np.unravel_index(i, array.shape))) for i in top
    )
    if not rows.shape[1]:
        rows = np.zeros((max(len(rows), 1), 1), np.float32)
    total = float(magnitude.sum(dtype=np.float64))
    return SiteStatistics(site.id, histogram, rows.min(1), rows.max(1), outliers, 0, count_channels(rows), total)


def activation_sites(layers: Sequence[LayerInfo]) -> tuple[SiteInfo, ...]:
    """Return the activation sites of a model, each once, in topological order."""
    return tuple({layer.activation.id: layer.activation for layer in layers if layer.activation}.values())


def nonfinite_notes(statistics: Sequence[SiteStatistics]) -> tuple[str, ...]:
    """Return a sentence for each site in which NaN or infinities were seen."""
    return tuple(
        f"{s.site}: {s.histogram.nonfinite} values are NaN or infinite; they are left out of its range."
        for s in statistics
        if s.histogram.nonfinite
    )


def _rows(x: Tensor, axis: int | None) -> Tensor:
    """Return [samples, channels, rest]: one row for each sample and channel."""
    if axis is None:
        return x.reshape(x.shape[0], 1, -1)
    moved = x if axis == 1 else x.movedim(axis, 1)
    return moved.reshape(x.shape[0], x.shape[axis], -1)


def _position(channel: int, place: int, shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    """Return the index inside one sample of element `place` of a channel's row."""
    if axis is None:
        return tuple(int(i) for i in np.unravel_index(place, shape)) if shape else ()
    others = [n for i, n in enumerate(shape) if i != axis - 1]
    rest = [int(i) for i in np.unravel_index(place, others)] if others else []
    return (*rest[: axis - 1], channel, *rest[axis - 1 :])


def _finite(values: np.ndarray) -> np.ndarray:
    """Return channel extremes with 0 for channels that never had a finite value."""
    return np.where(np.isfinite(values), values, 0.0).astype(np.float32)
