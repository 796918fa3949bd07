"""Ranges found from statistics, each search done once and kept as long as its statistics."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from qstudio.core.calibration import all_ranges, calibrations, find_range
from qstudio.core.channel_error import CHANNEL_BINS, ChannelHistograms, Ends, channel_ends, channel_histograms
from qstudio.core.errors import UserError
from qstudio.core.scheme import Granularity, Scheme
from qstudio.core.statistics import SiteStatistics

_tensor_ranges: WeakKeyDictionary[SiteStatistics, dict[Scheme, tuple[float, float]]] = WeakKeyDictionary()
_channel_ends: WeakKeyDictionary[SiteStatistics, dict[Scheme, Ends | None]] = WeakKeyDictionary()
_channels: WeakKeyDictionary[SiteStatistics, ChannelHistograms] = WeakKeyDictionary()


def tensor_range(statistics: SiteStatistics, scheme: Scheme) -> tuple[float, float]:
    """Return the range a scheme gives the whole tensor; a search is done once for a tensor and scheme.

    Raises:
        UserError: A plug-in calibrator failed.
    """
    if scheme.calibration == "manual":
        return find_range(statistics.histogram, scheme)
    known = _tensor_ranges.setdefault(statistics, {})
    key = replace(scheme, clip=None)
    if key not in known:
        known[key] = find_range(statistics.histogram, key)
    return known[key]


def fill_tensor_ranges(statistics: SiteStatistics, scheme: Scheme) -> None:
    """Find the ranges of every calibration at every width of COMPARED_BITS, so that switching between them is free.

    Nothing is done where they are known already, and for other widths. A plug-in that fails is left out: it says so
    when its own range is asked for.
    """
    known = _tensor_ranges.setdefault(statistics, {})
    trial = replace(scheme, clip=None)
    if scheme.bits not in COMPARED_BITS:
        return
    for calibration in calibrations():
        if replace(trial, calibration=calibration) in known:
            continue
        with suppress(UserError):
            for (_, bits), ends in all_ranges(statistics.histogram, trial, COMPARED_BITS, [calibration]).items():
                known[replace(trial, calibration=calibration, bits=bits)] = ends


COMPARED_BITS = range(2, 9)
"""Widths whose ranges are found together: all methods at all of them take under 5 ms."""


def channel_range_ends(statistics: SiteStatistics, scheme: Scheme) -> Ends | None:
    """Return the range a scheme gives each channel, None where the channels' histograms are too coarse to tell."""
    if scheme.calibration == "manual":
        return channel_ends(channels_of(statistics), scheme)
    known = _channel_ends.setdefault(statistics, {})
    key = replace(scheme, clip=None, granularity=Granularity("channel"))
    if key not in known:
        known[key] = channel_ends(channels_of(statistics), key)
    return known[key]


def channels_of(statistics: SiteStatistics) -> ChannelHistograms:
    """Return each channel's histogram; without one, values are taken as evenly spread between the channel's ends."""
    known = _channels.get(statistics)
    if known is not None:
        return known
    counts = statistics.channel_counts
    channels = len(statistics.channel_min)
    if counts is None:
        histogram = statistics.histogram
        share = (histogram.count - histogram.zeros) / (channels * CHANNEL_BINS)
        flat = np.full((channels, CHANNEL_BINS), share)
        low = statistics.channel_min.astype(np.float64)
        found = ChannelHistograms(flat, low, (statistics.channel_max - low) / CHANNEL_BINS)
    else:
        found = channel_histograms(
            counts, statistics.channel_min, statistics.channel_max, statistics.histogram.count / channels
        )
    _channels[statistics] = found
    return found
