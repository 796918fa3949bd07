"""Collect activation statistics over calibration samples, once for a model and data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.statistics import SiteStatistics
from qstudio.data.dataset import Split
from qstudio.quant.evaluate import Report, feeds, run_in_words
from qstudio.quant.keep import Kept
from qstudio.quant.network import Network
from qstudio.quant.statistics import StatisticsCollector

Statistics = dict[str, SiteStatistics]


def _size_bytes(statistics: Statistics) -> int:
    extremes = (s.histogram.extremes for s in statistics.values())
    held = sum(s.histogram.counts.nbytes + 2 * s.channel_min.nbytes for s in statistics.values())
    return held + sum(pairs.nbytes for pairs in extremes if pairs is not None)


_known: Kept[Statistics] = Kept(8, 2**27, _size_bytes)


def activation_statistics(
    network: Network, split: Split, indices: NDArray[np.int64], key: str = "", report: Report | None = None
) -> Statistics:
    """Return the statistics of every activation site by id, from one pass in eval mode.

    Args:
        network: The float model.
        split: Where the samples are.
        indices: Which samples; the last batch may be smaller and counts like the others.
        key: From `qstudio.quant.keep.samples_key`; with it a second call costs nothing. Empty = not kept.
        report: Told the progress between batches; raises to stop.

    Raises:
        UserError: There are no samples, or they do not fit the model.
    """
    full_key = (network.sha256, network.device, key)
    known = _known.get(full_key) if key else None
    if known is not None:
        return known
    if not len(indices):
        raise UserError("there are no samples to calibrate with", "data", "Choose more calibration samples")
    collector = StatisticsCollector(network.activation_sites)
    done = 0
    with network.executor.evaluating():
        for batch, inputs, rows in feeds(network, split, indices):
            if report is not None:
                report(done, len(indices))
            collector.start_batch(batch.indices.tolist(), rows)
            run_in_words(lambda values: network.executor.run(values, observe=collector.observe), inputs)
            done += len(batch.indices)
    if report is not None:
        report(done, len(indices))
    statistics = collector.finish()
    return _known.put(full_key, statistics) if key else statistics
