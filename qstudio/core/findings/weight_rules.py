"""Rules about weights: granularity, range, bits."""

from __future__ import annotations

import math

import numpy as np

from qstudio.core.channel_error import channel_histograms
from qstudio.core.findings.evidence import Evidence, Site, is_depthwise, of_weight
from qstudio.core.findings.finding import Finding, Gain, change, severity_of
from qstudio.core.model_info import LayerInfo
from qstudio.core.scheme import CHANNEL, Granularity
from qstudio.core.size import weight_bytes
from qstudio.core.statistics import SiteStatistics

HALF_BIT_DB = 3.0
"""Half a bit: 20 log10(2) / 2. What is less is not worth another granularity or another range by itself."""
CHANNEL_DB = 1.0
"""In a depthwise layer each channel is a filter of its own, and one scale per channel costs nothing at run time."""
RANGE_DB = 1.0
"""At 4 bits and less MSE ranges of bell-shaped weights bring 1 dB and more over min-max (Banner et al., 2019)."""
LOW_BITS = 4
GROUP = 64
"""Values of a group that is proposed: AWQ and GPTQ use 128, 64 brings more in the short rows of small networks."""
GROUP_DB = 1.5
LONG_ROW = 4 * GROUP


def _channels(site: Site) -> int:
    return len(site.statistics.channel_min) if site.info.channel_axis is not None else 1


def _affine(site: Site | None) -> Site | None:
    """Return a weight in integers with static scales; None for every other format."""
    if site is None or not site.scheme.is_affine or not site.scheme.format.startswith("int"):
        return None
    return site


def _reaches(statistics: SiteStatistics) -> np.ndarray:
    return np.maximum(-statistics.channel_min.astype(np.float64), statistics.channel_max.astype(np.float64))


def _spread(site: Site) -> tuple[int, float]:
    """Return (channel that reaches furthest, its reach over the median channel's)."""
    reach = _reaches(site.statistics)
    worst, median = int(np.argmax(reach)), float(np.median(reach))
    return worst, float(reach[worst]) / median if median > 0 else math.inf


def _per_channel(evidence: Evidence, layer: LayerInfo, rule: str, least_db: float, why: str) -> tuple[Finding, ...]:
    site = _affine(evidence.weight(layer))
    if site is None or site.scheme.granularity.kind != "tensor" or _channels(site) < 2 or len(site.info.shape) < 2:
        return ()
    gain = site.gain_db(granularity=CHANNEL)
    if gain is None or gain < least_db:
        return ()
    worst, ratio = _spread(site)
    times = f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.1f}x"
    return (
        Finding(
            rule,
            layer.name,
            "weight",
            severity_of(gain),
            f"Channel {worst} spans {times} the median of the {_channels(site)} channels, and one scale serves all.",
            "Give each output channel a scale of its own (per channel).",
            why,
            Gain(gain, "dB", of_weight(layer.name)),
            (("largest over median range", f"{ratio:.1f}"), ("channels", str(_channels(site)))),
            change(f"Per channel: {layer.name}", (layer.name,), weight_granularity="channel"),
        ),
    )


def channel_spread(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a weight with one scale whose channels differ in range (Krishnamoorthi, 2018, section 3.1)."""
    if is_depthwise(layer):
        return ()
    why = "The step follows the widest channel: in the others most codes are never used."
    return _per_channel(evidence, layer, "channel_spread", HALF_BIT_DB, why)


def depthwise_tensor(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a depthwise layer with one scale per tensor (Nagel et al., 2019, figure 2)."""
    if not is_depthwise(layer):
        return ()
    why = (
        "Depthwise filters differ in size more than those of any other layer, and no sum over input channels"
        " averages the error out."
    )
    return _per_channel(evidence, layer, "depthwise_tensor", CHANNEL_DB, why)


def weight_range(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a weight of few bits whose range keeps every value (Banner et al., 2019)."""
    site = _affine(evidence.weight(layer))
    if site is None or not 2 <= site.scheme.bits <= LOW_BITS or site.scheme.calibration in ("mse", "manual"):
        return ()
    gain, after = site.gain_db(calibration="mse"), site.error(calibration="mse")
    if gain is None or after is None or gain < RANGE_DB:
        return ()
    training = " Before training at 2 bits, LSQ start is the other choice." if site.scheme.bits == 2 else ""
    return (
        Finding(
            "weight_range",
            layer.name,
            "weight",
            severity_of(gain),
            f"At {site.scheme.bits} bits the range {site.scheme.calibration} leaves few codes where the weights are.",
            f"Choose the range of least squared error (MSE).{training}",
            f"Clipping {after.clipped_percent:.2g} % of the values makes the step smaller for all others.",
            Gain(gain, "dB", of_weight(layer.name)),
            (("bits", str(site.scheme.bits)), ("clipped by MSE", f"{after.clipped_percent:.2g} %")),
            change(f"Calibrate by MSE: {layer.name}", (layer.name,), weight_calibration="mse"),
        ),
    )


def one_sided_weight(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a symmetric scheme on a weight whose values lie mostly on one side of zero (Nagel et al., 2021, 2.2.1)."""
    site = _affine(evidence.weight(layer))
    if site is None or not site.scheme.symmetric or site.scheme.bits < 2:
        return ()
    gain, before = site.gain_db(symmetric=False), site.error()
    if gain is None or before is None or gain < HALF_BIT_DB:
        return ()
    histogram = site.statistics.histogram
    return (
        Finding(
            "one_sided_weight",
            layer.name,
            "weight",
            severity_of(gain),
            f"The weights reach from {histogram.minimum:.3g} to {histogram.maximum:.3g}: a symmetric range uses"
            f" {before.codes_used_percent:.0f} % of its codes.",
            "Choose an asymmetric range.",
            "A zero point moves the codes to where the values are. Integer kernels then subtract it from each weight.",
            Gain(gain, "dB", of_weight(layer.name)),
            (("codes used", f"{before.codes_used_percent:.0f} %"),),
            change(f"Asymmetric: {layer.name}", (layer.name,), weight_symmetric=False),
        ),
    )


def _points(evidence: Evidence, layer: LayerInfo, bits: int) -> Gain | None:
    """Return the accuracy that sparing the layer brought in a sweep at its present bits; None where none was made."""
    swept = evidence.sensitivity
    if swept is None or swept.mode != "disable":
        return None
    for candidate, base in swept.bases:
        cell = swept.cell(layer.name, candidate)
        if candidate.weight_bits == bits and cell is not None and cell.figures is not None:
            spared, all_in = cell.figures.top1, base.top1
            if spared is not None and all_in is not None:
                return Gain(spared - all_in, "points", f"top-1 with {layer.name} in float", estimated=False)
    return None


def _more_bits(evidence: Evidence, layer: LayerInfo, rule: str, summary: str, why: str) -> tuple[Finding, ...]:
    site = _affine(evidence.weight(layer))
    if site is None or site.scheme.bits >= 8:
        return ()
    gain = site.gain_db(bits=8)
    if gain is None:
        return ()
    shape, axis = site.info.shape, site.info.channel_axis
    now = weight_bytes(shape, axis, site.scheme)
    then = weight_bytes(
        shape, axis, evidence.recipe.with_layers((layer.name,), weight_bits=8).settings(layer.name).weight_scheme()
    )
    return (
        Finding(
            rule,
            layer.name,
            "weight",
            severity_of(gain),
            summary.format(bits=site.scheme.bits),
            f"Keep 8 bits here; the model grows by {(then - now) / 1024:,.1f} KB.",
            why,
            _points(evidence, layer, site.scheme.bits) or Gain(gain, "dB", of_weight(layer.name)),
            (("bits", str(site.scheme.bits)), ("cost", f"{(then - now) / 1024:,.1f} KB"), ("SQNR", f"+{gain:.1f} dB")),
            change(f"8 bits: {layer.name}", (layer.name,), weight_bits=8),
        ),
    )


def depthwise_bits(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a depthwise layer of 4 bits or less (Park and Yoo, PROFIT, 2020)."""
    site = evidence.weight(layer)
    if not is_depthwise(layer) or site is None or site.scheme.bits > LOW_BITS:
        return ()
    why = "It holds few of the weights, and each output is a sum of only a few products: little averages out."
    return _more_bits(
        evidence, layer, "depthwise_bits", "A depthwise layer at {bits} bits costs most for its size.", why
    )


def first_last_bits(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a first or last layer below 8 bits (Choi et al., PACT, 2018; Esser et al., LSQ, 2020)."""
    weighted = evidence.weighted
    if is_depthwise(layer) or len(weighted) < 3 or layer not in (weighted[0], weighted[-1]):
        return ()
    place = "first" if layer is weighted[0] else "last"
    why = {
        "first": "Everything behind it is computed from what it lets through, and it is small.",
        "last": "Its error goes straight into the scores, and it is small.",
    }[place]
    summary = f"The {place} layer has {{bits}} bits; published results keep 8 there."
    return _more_bits(evidence, layer, "first_last_bits", summary, why)


def group_size(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find long rows of few bits with one scale per channel (Frantar et al., GPTQ, 2023; Lin et al., AWQ, 2024).

    A channel's step follows its largest value; a group's follows the largest of g values, whose mean square is
    sum t^2 (F(t_k)^g - F(t_(k-1))^g) where F is the distribution of |w| in the channel. The ratio of both, summed over
    channels, is the gain; it takes the values of a row as unordered.
    """
    site = _affine(evidence.weight(layer))
    if site is None or site.scheme.granularity.kind != "channel" or site.scheme.calibration != "minmax":
        return ()
    counts = site.statistics.channel_counts
    row = site.statistics.histogram.count // max(_channels(site), 1)
    if (
        not 2 <= site.scheme.bits <= LOW_BITS
        or row < LONG_ROW
        or counts is None
        or layer.op_type not in ("Gemm", "MatMul", "Conv")
    ):
        return ()
    gain = 10 * math.log10(group_ratio(site.statistics, row, GROUP))
    if gain < GROUP_DB:
        return ()
    group = str(Granularity("group", GROUP))
    return (
        Finding(
            "group_size",
            layer.name,
            "weight",
            severity_of(gain),
            f"Each scale serves {row:,} weights at {site.scheme.bits} bits.",
            f"Give each {GROUP} weights of a row a scale of their own (groups of {GROUP}).",
            "The largest of a few values is smaller than the largest of many, and so is the step.",
            Gain(gain, "dB", of_weight(layer.name)),
            (("weights per scale", f"{row:,}"), ("scales added", f"{_channels(site) * (-(-row // GROUP) - 1):,}")),
            change(f"Groups of {GROUP}: {layer.name}", (layer.name,), weight_granularity=group),
        ),
    )


def group_ratio(statistics: SiteStatistics, row: int, group: int) -> float:
    """Return sum over channels of max|w|^2 over that of E max_g|w|^2, at least 1.

    Args:
        statistics: Of a weight, with counts per channel.
        row: Values of each channel.
        group: Values of each group.
    """
    if statistics.channel_counts is None:
        return 1.0
    channels = channel_histograms(statistics.channel_counts, statistics.channel_min, statistics.channel_max, row)
    reach = _reaches(statistics)
    bins = channels.counts.shape[1]
    below = np.concatenate([np.zeros((len(reach), 1)), np.cumsum(channels.counts, axis=1)], axis=1)
    zeros = np.maximum(row - below[:, -1], 0.0)
    width = np.where(channels.width > 0, channels.width, 1.0)
    expected, before = np.zeros(len(reach)), np.zeros(len(reach))
    for step in range(1, bins + 1):
        edge = reach * step / bins
        inside = _held(below, (edge - channels.low) / width) - _held(below, (-edge - channels.low) / width)
        share = np.clip((inside + zeros) / row, 0.0, 1.0) ** group
        expected += (reach * (step - 0.5) / bins) ** 2 * np.maximum(share - before, 0.0)
        before = share
    total = float(expected.sum())
    return max(float((reach**2).sum()) / total, 1.0) if total > 0 else 1.0


def _held(below: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return how many values of each row lie below a (fractional) bin."""
    bins = below.shape[1] - 1
    at = np.clip(place, 0.0, bins)
    first = np.minimum(at.astype(np.int64), bins - 1)
    rows = np.arange(len(below))
    return np.asarray(below[rows, first] + (at - first) * (below[rows, first + 1] - below[rows, first]))
