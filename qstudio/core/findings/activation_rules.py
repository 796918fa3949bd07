"""Rules about activations: sign, outliers, ranges set by hand, and the data they were calibrated on."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, log10

import numpy as np

from qstudio.core.errors import UserError
from qstudio.core.findings.evidence import Evidence, Site, of_activation, of_weight
from qstudio.core.findings.finding import Edit, Finding, Gain, change, severity_of
from qstudio.core.histogram import Histogram
from qstudio.core.model_info import LayerInfo
from qstudio.core.overlap import overlap

SIGN_DB = 3.0
"""A sign bit that is never used costs 20 log10(2) = 6.02 dB at the same bits; half of it is worth an edit."""
OUTLIER_DB = 3.0
MANUAL_DB = 1.0
OVERLAP_PERCENT = 80.0
"""Two samples of one distribution overlap by 90 % and more on the cells of `qstudio.core.overlap`."""
MISMATCH_DB = 1.0
GROWTH = 0.05
"""Growth of a range while the second half of the samples was seen, beyond which it has not settled."""
FEW_SAMPLES = 16
SHIFT_DB = 1.0
CHANNEL_RATIO_DB = 6.0
"""Outlier channels of transformers are 20 to 100 times larger than the rest (Xiao et al., 2023); 4 times counts."""
CLIPPED_DB = 1.0
"""What has to be left of the gain after what the present range gains by clipping."""
FEWEST_CHANNELS = 4


def _affine(site: Site | None) -> Site | None:
    """Return an activation in integers with a calibrated range; None for formats, dynamic and fixed ranges."""
    if site is None or not site.scheme.is_affine or not site.scheme.format.startswith("int"):
        return None
    return None if site.info.fixed_range is not None else site


def unused_sign(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find signed codes for values of one sign (Nagel et al., 2021, section 2.2.1)."""
    site = _affine(evidence.activation(layer))
    if site is None or not site.scheme.symmetric or site.scheme.bits < 2:
        return ()
    gain, before = site.gain_db(symmetric=False), site.error()
    if gain is None or before is None or gain < SIGN_DB:
        return ()
    low, high = site.statistics.histogram.minimum, site.statistics.histogram.maximum
    seen = (
        "No value is negative"
        if low >= 0
        else "No value is positive"
        if high <= 0
        else f"Values: {low:.3g} to {high:.3g}"
    )
    return (
        Finding(
            "unused_sign",
            layer.name,
            "activation",
            severity_of(gain),
            f"{seen}: {100 - before.codes_used_percent:.0f} % of the signed codes are never used.",
            "Choose an asymmetric range (unsigned codes).",
            "The codes then cover only the side on which there are values, and the step is up to half as wide.",
            Gain(gain, "dB", of_activation(layer.name)),
            (
                ("smallest", f"{low:.4g}"),
                ("largest", f"{high:.4g}"),
                ("codes used", f"{before.codes_used_percent:.0f} %"),
            ),
            change(f"Asymmetric: {layer.name}", (layer.name,), activation_symmetric=False),
        ),
    )


def outliers_set_scale(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a range that a few values stretch (Wu et al., 2020; Banner et al., 2019)."""
    site = _affine(evidence.activation(layer))
    if site is None or site.info.is_output or site.scheme.calibration in ("mse", "manual"):
        return ()
    gain, after = site.gain_db(calibration="mse"), site.error(calibration="mse")
    if gain is None or after is None or gain < OUTLIER_DB:
        return ()
    return (
        Finding(
            "outliers_set_scale",
            layer.name,
            "activation",
            severity_of(gain),
            f"{after.clipped_percent:.2g} % of the values set the scale for all others.",
            "Choose the range of least squared error (MSE), or a percentile.",
            "Clipping the few that lie far out costs less than the coarse step they force on the rest.",
            Gain(gain, "dB", of_activation(layer.name)),
            (
                ("beyond the MSE range", f"{after.clipped_percent:.2g} %"),
                ("largest value", f"{site.statistics.histogram.maximum:.4g}"),
                ("end of the MSE range", f"{after.high:.4g}"),
            ),
            change(f"Calibrate by MSE: {layer.name}", (layer.name,), activation_calibration="mse"),
        ),
    )


def manual_clip(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a range set by hand that costs more than MSE's."""
    found = []
    for side, site in (("weight", evidence.weight(layer)), ("activation", evidence.activation(layer))):
        if site is None or site.scheme.calibration != "manual" or not site.scheme.is_affine or site.info.is_output:
            continue
        gain, before, after = site.gain_db(calibration="mse"), site.error(), site.error(calibration="mse")
        if gain is None or before is None or after is None or gain < MANUAL_DB:
            continue
        of = of_weight if side == "weight" else of_activation
        found.append(
            Finding(
                "manual_clip",
                layer.name,
                "weight" if side == "weight" else "activation",
                severity_of(gain),
                f"The range set by hand, {before.low:.3g} to {before.high:.3g}, costs more than MSE's,"
                f" {after.low:.3g} to {after.high:.3g}.",
                "Take the range of least squared error (MSE).",
                f"It clips {before.clipped_percent:.2g} % of the values, MSE's {after.clipped_percent:.2g} %.",
                Gain(gain, "dB", of(layer.name)),
                (
                    ("clipped now", f"{before.clipped_percent:.2g} %"),
                    ("clipped by MSE", f"{after.clipped_percent:.2g} %"),
                ),
                change(f"Calibrate by MSE: {layer.name}", (layer.name,), **{f"{side}_calibration": "mse"}),
            )
        )
    return tuple(found)


def data_mismatch(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find evaluation values that are distributed differently from the calibration values (`qstudio.core.overlap`)."""
    site = _affine(evidence.activation(layer))
    seen = evidence.evaluation.get(site.info.id) if site is not None else None
    before = site.error() if site is not None else None
    if site is None or seen is None or before is None:
        return ()
    shared = overlap(site.statistics.histogram, seen.histogram, (before.low, before.high))
    if shared is None or shared.intersection_percent >= OVERLAP_PERCENT:
        return ()
    try:
        now = site.estimate(seen, site.info, replace(site.scheme, calibration="manual", clip=(before.low, before.high)))
        then = site.estimate(seen, site.info, site.scheme)
    except UserError:
        return ()
    if now is None or then is None or not isfinite(now.sqnr_db) or not isfinite(then.sqnr_db):
        return ()
    gain = then.sqnr_db - now.sqnr_db
    if gain < MISMATCH_DB:
        return ()
    return (
        Finding(
            "data_mismatch",
            layer.name,
            "activation",
            severity_of(gain),
            f"Calibration data does not look like evaluation data: {shared.intersection_percent:.0f} % overlap,"
            f" {shared.outside_percent:.2g} % of the evaluation values lie outside the range.",
            "Calibrate on samples like those that are evaluated, read the same way (panel Data).",
            "A range that was found on other values clips, or leaves codes unused.",
            Gain(gain, "dB", of_activation(layer.name)),
            (
                ("overlap", f"{shared.intersection_percent:.0f} %"),
                ("outside the range", f"{shared.outside_percent:.2g} %"),
            ),
            place="data_panel",
        ),
    )


def few_samples(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a range that still grew in the second half of the calibration samples.

    For independent samples with a heavy tail the extremes grow by the same factor with every doubling (Frechet's
    law, extremes of n values go as n^(1/a)), so the last doubling predicts the next.
    """
    site = _affine(evidence.activation(layer))
    if site is None or not (site.scheme.calibration == "minmax" or site.info.is_output):
        return ()
    extremes = site.statistics.histogram.extremes
    if extremes is None or len(extremes) < 2 or site.statistics.samples > len(extremes):
        return ()
    half = len(extremes) // 2
    whole = float(max(extremes[:, 1].max(), 0) - min(extremes[:, 0].min(), 0))
    first = float(max(extremes[:half, 1].max(), 0) - min(extremes[:half, 0].min(), 0))
    growth = whole / first - 1.0 if first > 0 else 0.0
    few = len(extremes) < FEW_SAMPLES and growth > 0
    if growth < GROWTH and not few:
        return ()
    return (
        Finding(
            "few_samples",
            layer.name,
            "activation",
            "medium" if growth >= 0.2 else "low",
            f"The range grew by {100 * growth:.0f} % over the second half of {len(extremes)} calibration samples.",
            f"Calibrate on more samples: {4 * len(extremes)} (panel Data).",
            "As long as new samples stretch the range, values that are met later are clipped.",
            Gain(100 * growth, "%", f"range of {layer.name} with twice as many samples"),
            (("samples", str(len(extremes))), ("growth", f"{100 * growth:.1f} %")),
            place="data_panel",
        ),
    )


def bias_shift(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a layer whose rounded weights shift the mean of its output (Nagel et al., 2019, section 4.2).

    Rounding errors of weights are as good as independent: through inputs x the error of an output has the power
    n e^2 E[x^2], of which n e^2 E[x]^2 is the same for every sample. That constant part is what bias correction takes
    away: E[x]^2 / E[x^2] of what the weights contribute. What the rounding of x contributes stays.
    """
    weight, source = evidence.weight(layer), evidence.source(layer)
    if weight is None or source is None or source.activation is None or evidence.refines("bias_correction"):
        return ()
    seen = evidence.activations.get(source.activation.id)
    error = weight.error()
    if layer.bias is None or seen is None or error is None or not isfinite(error.sqnr_db):
        return ()
    histogram = seen.histogram
    power = histogram.total_square / max(histogram.count, 1)
    if power <= 0:
        return ()
    noise = 10 ** (-error.sqnr_db / 10)
    read = evidence.activation(source)
    rounded = read.error() if read is not None else None
    beside = 10 ** (-rounded.sqnr_db / 10) if rounded is not None and isfinite(rounded.sqnr_db) else 0.0
    constant = histogram.mean**2 / power
    left = 1.0 - constant * noise / (noise + beside)
    gain = -10 * log10(max(left, 1e-6))
    if gain < SHIFT_DB or noise < 1e-3:
        return ()
    return (
        Finding(
            "bias_shift",
            layer.name,
            "weight",
            severity_of(gain),
            f"{100 * constant:.0f} % of the error that its rounded weights make is the same for every sample.",
            "Switch bias correction on.",
            "The inputs are not centred on zero, so rounding moves the mean of each output; the bias can take it back.",
            Gain(gain, "dB", f"SQNR of the output of {layer.name}"),
            (("mean^2 over mean square of the input", f"{constant:.2f}"), ("weight SQNR", f"{error.sqnr_db:.1f} dB")),
            Edit("Bias correction on", refinement="bias_correction"),
        ),
    )


def outlier_channels(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a product that reads a few outlier channels (Xiao et al., SmoothQuant, 2023).

    With alpha = 0.5 the largest magnitudes X_j become sqrt(X_j) and the weights' rows take sqrt(X_j); for weights
    whose rows are alike, the noise at the output falls by max X / mean X.
    """
    source = evidence.source(layer)
    if layer.op_type not in ("MatMul", "Gemm") or layer.weight is None or source is None:
        return ()
    site = _affine(evidence.activation(source))
    if site is None or evidence.refines("smoothquant") or source.op_type != "LayerNormalization":
        return ()
    found = _channel_reach(site)
    if found is None:
        return ()
    worst, ratio = found
    # A range that clips the outliers already has paid a part of their price in another coin.
    now, whole = site.error(), site.error(calibration="minmax")
    if now is None or whole is None or 10 * log10(ratio) < CHANNEL_RATIO_DB:
        return ()
    gain = 10 * log10(ratio) - max(now.sqnr_db - whole.sqnr_db, 0.0)
    if gain < CLIPPED_DB:
        return ()
    return (
        Finding(
            "outlier_channels",
            layer.name,
            "activation",
            severity_of(gain),
            f"Channel {worst} of what it reads reaches {ratio:.0f}x the mean of all channels.",
            "Switch SmoothQuant on.",
            "One scale serves all channels of an activation; dividing the outlier channels and multiplying the weight's"
            " rows moves the range to where each channel has codes.",
            Gain(gain, "dB", f"SQNR of the output of {layer.name}, activations rounded"),
            (("largest over mean reach", f"{ratio:.1f}"), ("channel", str(worst))),
            Edit("SmoothQuant on", refinement="smoothquant"),
        ),
    )


def _channel_reach(site: Site) -> tuple[int, float] | None:
    """Return (channel that reaches furthest, its reach over the mean reach); None where that cannot be told.

    Channels are the last axis. [N, C] has its extremes by channel; of [N, T, C] the largest values and where they lie
    are known: k channels among C hold them, and the others reach about the quantile 1 - k / C of |x|.
    """
    shape, statistics = site.info.shape, site.statistics
    if len(shape) == 2 and len(statistics.channel_min) >= FEWEST_CHANNELS:
        reach = np.maximum(-statistics.channel_min, statistics.channel_max).astype(np.float64)
        return int(reach.argmax()), float(reach.max() / reach.mean()) if reach.mean() > 0 else 1.0
    channels = shape[-1] if len(shape) > 2 else None
    if channels is None or channels < FEWEST_CHANNELS or not statistics.outliers:
        return None
    where = [outlier.position[-1] for outlier in statistics.outliers if outlier.position]
    few = len(set(where))
    if not where or few > max(1, channels // FEWEST_CHANNELS):
        return None
    largest = abs(statistics.outliers[0].value)
    rest = _magnitude_quantile(statistics.histogram, 1.0 - few / channels)
    mean = (rest * (channels - few) + largest * few) / channels
    return where[0], largest / mean if mean > 0 else 1.0


def _magnitude_quantile(histogram: Histogram, share: float) -> float:
    """Return the value below which a share of all |x| lies, to a bin."""
    order = np.argsort(np.abs(histogram.centres))
    below = histogram.zeros + np.cumsum(histogram.counts[order])
    at = int(np.searchsorted(below, share * histogram.count))
    return float(abs(histogram.centres[order[min(at, len(order) - 1)]]))
