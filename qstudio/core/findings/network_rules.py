"""Rules that look at several layers, at error over depth, at a run, or at the float model."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, log10

import numpy as np

from qstudio.core.channel_error import ChannelHistograms, channel_histograms, channel_squared_errors
from qstudio.core.findings.evidence import Evidence, Site, is_depthwise, of_weight
from qstudio.core.findings.finding import Edit, Finding, Gain, change, severity_of
from qstudio.core.model_info import LayerInfo
from qstudio.core.scheme import TENSOR
from qstudio.core.sensitivity import Candidate
from qstudio.core.size import weight_bytes

EQUAL_DB = 2.0
SHARE = 0.25
"""Share of the output's noise beyond which one layer counts as the one that hurts, of three or more."""
SPARE_SHARE = 0.1
"""Share of the output's noise that a layer may make after it lost bits: 10 log10(1.1) = 0.4 dB at the output."""
SPARE_AGREEMENT = 99.9
SPARE_SAMPLES = 500
SPARE_BYTES = 512
SATURATING_PERCENT = 0.01


# ---- cross-layer equalization


def _reach(site: Site) -> np.ndarray:
    return np.maximum(-site.statistics.channel_min.astype(np.float64), site.statistics.channel_max.astype(np.float64))


def _next(evidence: Evidence, layer: LayerInfo) -> LayerInfo | None:
    """Return the layer with a weight that alone reads a layer's output, past what shares or pools it."""
    for _ in range(len(evidence.model.layers)):
        readers = evidence.readers.get(layer.name, ())
        if len(readers) != 1 or (layer.activation is not None and layer.activation.is_output):
            return None
        layer = evidence.model.layer(readers[0])
        if layer.weight is not None:
            return layer if layer.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") else None
        if layer.op_type not in ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Relu", "Dropout"):
            return None
    return None


def _previous(evidence: Evidence, layer: LayerInfo) -> LayerInfo | None:
    """Return the layer with a weight that feeds only this one."""
    found = [other for other in evidence.weighted if other is not layer and _next(evidence, other) is layer]
    return found[0] if len(found) == 1 else None


def equalized(evidence: Evidence, layer: LayerInfo) -> tuple[Site, np.ndarray] | None:
    """Return (weight, [C] ranges after equalization over ranges before); None where there is no pair.

    Channels pass unmixed from a layer through the depthwise layers behind it to the next that mixes them: m layers
    whose ranges, multiplied, stay the same. Equalization makes them equal: (r_1 ... r_m)^(1/m) for each channel
    (Nagel et al., 2019, equation 11, at its fixed point). The ranges of the last layer's inputs are not kept and are
    taken as alike. For the same reason nothing is said of a layer that mixes channels which are themselves evened out
    with those in front of it.
    """
    if not is_depthwise(layer) and _previous(evidence, layer) is not None:
        return None
    chain = [layer]
    while is_depthwise(chain[0]) and (before := _previous(evidence, chain[0])) is not None:
        chain.insert(0, before)
    while (after := _next(evidence, chain[-1])) is not None and is_depthwise(after):
        chain.append(after)
    mixes = _next(evidence, chain[-1]) is not None
    sites = [evidence.weight(member) for member in chain]
    site = evidence.weight(layer)
    if site is None or len(chain) + mixes < 2 or any(each is None for each in sites):
        return None
    reaches = [_reach(each) for each in sites if each is not None]
    if any(len(reach) != len(reaches[0]) for reach in reaches) or not all((reach > 0).all() for reach in reaches):
        return None
    target = np.exp(sum(np.log(reach) for reach in reaches) / (len(chain) + mixes))
    return site, np.asarray(target / _reach(site))


def equalize(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a weight with one scale whose channels can be evened out with its neighbours' (Nagel et al., 2019)."""
    if layer.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or evidence.refines("cle"):
        return ()
    own = evidence.weight(layer)
    if own is None or own.scheme.granularity.kind != "tensor" or not own.scheme.is_affine:
        return ()
    if own.statistics.channel_counts is None or own.info.channel_axis is None:
        return ()
    found = equalized(evidence, layer)
    before = own.error()
    if found is None or before is None or not isfinite(before.sqnr_db):
        return ()
    site, factors = found
    gain = equalized_sqnr_db(site, factors) - equalized_sqnr_db(site, np.ones_like(factors))
    if gain < EQUAL_DB:
        return ()
    reach = _reach(site)
    ratio = float(reach.max() / np.median(reach))
    return (
        Finding(
            "equalize",
            layer.name,
            "weight",
            severity_of(gain),
            f"The channels' ranges differ by up to {ratio:,.1f}x from their median, and the next layer can take it.",
            "Switch cross-layer equalization on.",
            "A channel can be made smaller here and larger in the next layer without changing the network; one scale"
            " then fits all channels.",
            Gain(gain, "dB", of_weight(layer.name)),
            (("largest over median range", f"{ratio:.1f}"),),
            Edit("Cross-layer equalization on", refinement="cle"),
        ),
    )


def equalized_sqnr_db(site: Site, factors: np.ndarray) -> float:
    """Return the SQNR of a weight with one scale and min-max range whose channels are first multiplied by factors.

    The error is divided by the factors again, as what follows undoes them.
    """
    statistics = site.statistics
    if statistics.channel_counts is None:
        return float("inf")
    row = statistics.histogram.count / len(statistics.channel_min)
    plain = channel_histograms(statistics.channel_counts, statistics.channel_min, statistics.channel_max, row)
    scaled = ChannelHistograms(plain.counts, plain.low * factors, plain.width * factors, row)
    low, high = min(float(scaled.minimum.min()), 0.0), max(float(scaled.maximum.max()), 0.0)
    shape = scaled.low.shape
    scheme = replace(site.scheme, granularity=TENSOR, calibration="minmax", clip=None)
    rounding, clipping = channel_squared_errors(scaled, scheme, np.full(shape, low), np.full(shape, high))
    noise = float(((rounding + clipping) / factors**2).sum())
    return 10 * log10(statistics.histogram.total_square / noise) if noise > 0 else float("inf")


# ---- error over depth


def worst_downstream(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find the layer whose error makes most of the output's (error over depth)."""
    noise = evidence.depth.layer(layer.name) if evidence.depth is not None else None
    total = evidence.total_downstream
    if noise is None or noise.downstream is None or not total or evidence.depth is None:
        return ()
    share = noise.downstream / total
    others = [each for each in evidence.depth.layers if each.downstream]
    settings = evidence.settings(layer.name)
    weight, activation = evidence.weight(layer), evidence.activation(layer)
    values: dict[str, object] = {}
    gains = []
    for name, site, bits in (
        ("weight_bits", weight, settings.weight_bits),
        ("activation_bits", activation, settings.activation_bits),
    ):
        rise = site.gain_db(bits=8) if site is not None and bits < 8 and site.scheme.is_affine else None
        if rise is not None:
            values[name] = 8
            gains.append(rise)
    if share < SHARE or len(others) < 3 or not gains:
        return ()
    gain = -10 * log10(1.0 - share * (1.0 - 10 ** (-min(gains) / 10)))
    return (
        Finding(
            "worst_downstream",
            layer.name,
            "",
            severity_of(gain),
            f"This layer alone makes {100 * share:.0f} % of the noise at the output.",
            "Give it 8 bits.",
            "Noise powers of layers add up: taking the largest away helps more than anything done to the rest.",
            Gain(gain, "dB", "SQNR of the model's output"),
            (("share of the output's noise", f"{100 * share:.0f} %"), ("samples", str(evidence.depth.samples))),
            change(f"8 bits: {layer.name}", (layer.name,), **values),
        ),
    )


def bits_to_spare(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a weight that can lose bits without the output noticing (error over depth, or a sensitivity sweep)."""
    site = evidence.weight(layer)
    if site is None or not site.scheme.is_affine or not site.scheme.format.startswith("int") or site.scheme.bits > 8:
        return ()
    for bits in (4, 6):
        loss = site.gain_db(bits=bits) if bits < site.scheme.bits else None
        proof = _spare_proof(evidence, layer, bits, -loss) if loss is not None else None
        if proof is None or loss is None:
            continue
        shape, axis = site.info.shape, site.info.channel_axis
        saved = weight_bytes(shape, axis, site.scheme) - weight_bytes(shape, axis, replace(site.scheme, bits=bits))
        if saved < SPARE_BYTES:
            continue
        return (
            Finding(
                "bits_to_spare",
                layer.name,
                "weight",
                "low",
                f"{site.scheme.bits} bits are more than this layer needs: {proof}.",
                f"Choose {bits} bits; the model shrinks by {saved / 1024:,.1f} KB.",
                f"Its weight loses {-loss:.0f} dB, and what it adds to the output's noise stays small.",
                Gain(saved / 1024, "KB", "packed size of the model", estimated=False),
                (("SQNR of the weight", f"{loss:.1f} dB"), ("saved", f"{saved:,} bytes")),
                change(f"{bits} bits: {layer.name}", (layer.name,), weight_bits=bits),
            ),
        )
    return ()


def _spare_proof(evidence: Evidence, layer: LayerInfo, bits: int, loss_db: float) -> str | None:
    """Return why a layer can go down to some bits, in words; None where nothing says so."""
    swept = evidence.sensitivity
    if swept is not None and swept.mode == "enable":
        cell = swept.cell(layer.name, Candidate(weight_bits=bits))
        figures = cell.figures if cell is not None else None
        if figures is not None and figures.samples >= SPARE_SAMPLES and figures.agreement >= SPARE_AGREEMENT:
            return f"alone at {bits} bits it changes {100 - figures.agreement:.1f} % of {figures.samples:,} predictions"
    noise = evidence.depth.layer(layer.name) if evidence.depth is not None else None
    total = evidence.total_downstream
    if noise is None or noise.downstream is None or not total:
        return None
    share = noise.downstream * 10 ** (loss_db / 10) / total
    return (
        f"at {bits} bits it would make ~{100 * share:.1f} % of the noise at the output"
        if share <= SPARE_SHARE
        else None
    )


# ---- a run


def saturation(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find sums that saturate at 16 bits on x86 processors without VNNI (`qstudio.backends.saturation`)."""
    share = dict(evidence.saturating).get(layer.name, 0.0)
    site = evidence.weight(layer)
    if share < SATURATING_PERCENT or site is None or site.scheme.bits != 8:
        return ()
    loss = site.gain_db(bits=7) or 0.0
    here = (
        "" if evidence.vnni is None else " This processor has VNNI." if evidence.vnni else " This processor has none."
    )
    return (
        Finding(
            "saturation",
            layer.name,
            "weight",
            "high" if evidence.vnni is False else "low",
            f"On x86 processors without VNNI {share:.2g} % of its sums saturate.{here}",
            f"Choose 7 bits for this weight; its SQNR falls by {-loss:.1f} dB.",
            "Pairs of 8-bit products are added in 16 bits there: 2 x 255 x 127 is beyond 32,767, 2 x 255 x 63 is not.",
            Gain(share, "%", f"sums of {layer.name} that no longer saturate", estimated=False),
            (("saturating sums", f"{share:.2g} %"), ("SQNR of the weight", f"{loss:.1f} dB")),
            change(f"7 bits: {layer.name}", (layer.name,), weight_bits=7),
        ),
    )


# ---- the float model


def near_chance(evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
    """Find a float model that is no better than guessing: the data is read differently than in training."""
    metrics = evidence.float_metrics
    if layer is not evidence.model.layers[0] or metrics is None or metrics.top1 is None or not evidence.classes:
        return ()
    chance = 100.0 / evidence.classes
    if evidence.classes < 2 or metrics.samples < 30 or not is_near_chance(metrics.top1, metrics.top1_interval, chance):
        return ()
    return (
        Finding(
            "near_chance",
            "",
            "",
            "high",
            f"The float model is right on {metrics.top1:.1f} % of {metrics.samples:,} samples; chance {chance:.3g} %.",
            "Check scale, mean, std, layout and the order of the labels (panel Data) before quantizing anything.",
            "Values that are scaled differently than in training, or labels in another order, look like a bad model.",
            None,
            (("top-1", f"{metrics.top1:.1f} %"), ("chance", f"{chance:.3g} %"), ("samples", f"{metrics.samples:,}")),
            place="data_panel",
        ),
    )


def is_near_chance(top1: float, interval: tuple[float, float] | None, chance: float) -> bool:
    """Return whether guessing may reach an accuracy: its 95 % interval holds chance, or it is below twice chance.

    With two classes anything below 60 % counts: twice chance would be everything.
    """
    limit = min(2.0 * chance, chance + 10.0)
    return top1 < limit or (interval is not None and interval[0] <= chance)
