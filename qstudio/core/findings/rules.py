"""The rules: named, with what they need, their condition and its source; built-ins and plug-ins through one door."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

from qstudio.core.errors import UserError
from qstudio.core.findings.evidence import NEEDS, Evidence
from qstudio.core.findings.finding import Finding, rank
from qstudio.core.model_info import LayerInfo
from qstudio.core.registry import Registry, resolve

Check = Callable[[Evidence, LayerInfo], tuple[Finding, ...]]


@dataclass(frozen=True)
class FindingRule:
    """A rule and what a person is told about it."""

    id: str
    title: str
    """What is found."""
    condition: str
    """When it speaks, with its threshold."""
    source: str
    target: str
    """Import string of the function (evidence, layer) -> findings; numpy only, under 16 ms for a layer."""
    needs: tuple[str, ...]
    """Kinds of evidence (of `evidence.NEEDS`); "a|b": one of both is enough."""
    once: bool = False
    """Whether one edit answers all layers, so that a list of all findings shows the rule once."""

    def missing(self, evidence: Evidence) -> tuple[str, ...]:
        """Return the kinds of evidence that are not there."""
        return tuple(need for need in self.needs if not any(evidence.has(kind) for kind in need.split("|")))

    def check(self, evidence: Evidence, layer: LayerInfo) -> tuple[Finding, ...]:
        """Return what the rule finds in a layer; nothing where its evidence is missing.

        Raises:
            UserError: A plug-in failed.
        """
        if self.missing(evidence):
            return ()
        try:
            return _function(self.target)(evidence, layer)
        except Exception as error:
            if self.target.startswith("qstudio."):
                raise  # a fault of ours is reported as one; a plug-in may fail in any way
            raise UserError(
                f"it failed ({error})", f"rule {self.id}", "Remove its package or ask its author"
            ) from error


@cache
def _function(target: str) -> Check:
    return cast("Check", resolve(target))


_W = "qstudio.core.findings.weight_rules:"
_A = "qstudio.core.findings.activation_rules:"
_N = "qstudio.core.findings.network_rules:"
R = FindingRule

RULES: Registry[FindingRule] = Registry(
    "qstudio.findings",
    FindingRule,
    R(
        "near_chance",
        "Float accuracy near chance",
        "top-1 below twice chance (at most chance + 10 points), or chance within its 95 % interval; 30 samples or more",
        "95 % Wilson interval",
        _N + "near_chance",
        ("float",),
        once=True,
    ),
    R(
        "data_mismatch",
        "Calibration data unlike evaluation data",
        "histograms overlap by less than 80 %, and a range found on the evaluation data brings 1 dB or more there",
        "sum min(p, q), see the inspector's overlap",
        _A + "data_mismatch",
        ("activations", "evaluation"),
        once=True,
    ),
    R(
        "few_samples",
        "Too few calibration samples",
        "a min-max range grew by 5 % or more in the second half of the samples",
        "law of extremes (Frechet)",
        _A + "few_samples",
        ("activations",),
        once=True,
    ),
    R(
        "channel_spread",
        "One scale for unlike channels",
        "one scale for the tensor, and scales per channel bring 3 dB or more",
        "Krishnamoorthi, 2018, section 3.1",
        _W + "channel_spread",
        ("weights",),
    ),
    R(
        "depthwise_tensor",
        "Depthwise layer with one scale",
        "a depthwise layer with one scale, and scales per channel bring 1 dB or more",
        "Nagel et al., Data-Free Quantization, 2019, figure 2",
        _W + "depthwise_tensor",
        ("weights",),
    ),
    R(
        "equalize",
        "Neighbours can even out channels",
        "one scale for the tensor, and cross-layer equalization brings 2 dB or more",
        "Nagel et al., Data-Free Quantization, 2019, equation 11",
        _N + "equalize",
        ("weights",),
        once=True,
    ),
    R(
        "depthwise_bits",
        "Depthwise layer of few bits",
        "a depthwise layer at 4 bits or less",
        "Park and Yoo, PROFIT, 2020",
        _W + "depthwise_bits",
        ("weights",),
    ),
    R(
        "first_last_bits",
        "First or last layer below 8 bits",
        "the first or the last of three or more layers with weights has less than 8 bits",
        "Choi et al., PACT, 2018; Esser et al., LSQ, 2020",
        _W + "first_last_bits",
        ("weights",),
    ),
    R(
        "weight_range",
        "Min-max range at few bits",
        "a weight of 2 to 4 bits whose range is not MSE's, and MSE's brings 1 dB or more",
        "Banner et al., 2019",
        _W + "weight_range",
        ("weights",),
    ),
    R(
        "one_sided_weight",
        "Symmetric range for one-sided weights",
        "an asymmetric range brings 3 dB or more",
        "Nagel et al., A White Paper on Neural Network Quantization, 2021, section 2.2.1",
        _W + "one_sided_weight",
        ("weights",),
    ),
    R(
        "group_size",
        "Long rows of few bits",
        "4 bits or less, one min-max scale for 256 weights or more, and groups of 64 bring 1.5 dB or more",
        "Frantar et al., GPTQ, 2023; Lin et al., AWQ, 2024",
        _W + "group_size",
        ("weights",),
    ),
    R(
        "manual_clip",
        "Range set by hand",
        "a range set by hand, and MSE's brings 1 dB or more",
        "Banner et al., 2019",
        _A + "manual_clip",
        ("weights|activations",),
    ),
    R(
        "unused_sign",
        "Signed codes for values of one sign",
        "a symmetric activation, and an asymmetric range brings 3 dB or more",
        "Nagel et al., A White Paper on Neural Network Quantization, 2021, section 2.2.1",
        _A + "unused_sign",
        ("activations",),
    ),
    R(
        "outliers_set_scale",
        "Outliers set the scale",
        "an activation's MSE range brings 3 dB or more",
        "Wu et al., 2020; Banner et al., 2019",
        _A + "outliers_set_scale",
        ("activations",),
    ),
    R(
        "outlier_channels",
        "Outlier channels in front of a product",
        "a LayerNormalization's channel reaches 4 times the mean of all channels or more, in front of a product",
        "Xiao et al., SmoothQuant, 2023",
        _A + "outlier_channels",
        ("activations",),
        once=True,
    ),
    R(
        "bias_shift",
        "Rounded weights shift the mean",
        "the constant part of the error that a weight's rounding makes is worth 1 dB or more",
        "Nagel et al., Data-Free Quantization, 2019, section 4.2",
        _A + "bias_shift",
        ("weights", "activations"),
        once=True,
    ),
    R(
        "worst_downstream",
        "One layer makes most of the noise",
        "a layer below 8 bits makes 25 % or more of the noise at the output",
        "error over depth: powers of independent errors add",
        _N + "worst_downstream",
        ("weights", "depth"),
    ),
    R(
        "bits_to_spare",
        "More bits than needed",
        "with 4 (or 6) bits the layer makes 10 % or less of the noise at the output, or alone at those bits it leaves"
        " 99.9 % of 500 predictions or more unchanged; 0.5 KB or more is saved",
        "error over depth or sensitivity, 6.02 dB a bit",
        _N + "bits_to_spare",
        ("weights", "depth|sensitivity"),
    ),
    R(
        "saturation",
        "Sums that saturate without VNNI",
        "0.01 % or more of an 8-bit layer's sums saturate on x86 processors without VNNI",
        "VPMADDUBSW adds pairs of products in 16 bits",
        _N + "saturation",
        ("weights", "run"),
    ),
)
"""Rules by id: built-ins, and the plug-ins of the entry-point group "qstudio.findings"."""


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings in order, those of a rule that one edit answers once, with the number of other layers."""
    kept: list[Finding] = []
    counted: dict[str, int] = {}
    for finding in sorted(findings, key=rank):
        rule = RULES.get(finding.rule)
        if rule is not None and rule.once:
            counted[finding.rule] = counted.get(finding.rule, 0) + 1
            if counted[finding.rule] > 1:
                continue
        kept.append(finding)
    return tuple(
        replace(each, others=counted[each.rule] - 1) if counted.get(each.rule, 0) > 1 else each for each in kept
    )


def checked_words(evidence: Evidence) -> str:
    """Return a sentence that says which rules were checked, and which could not be and what they need."""
    missing: dict[str, int] = {}
    done = 0
    for rule in RULES.values():
        lacking = rule.missing(evidence)
        done += not lacking
        for need in lacking[:1]:
            missing[need] = missing.get(need, 0) + 1
    words = f"{done} of {len(RULES)} rules were checked."
    needs = [
        f"{count} {'needs' if count == 1 else 'need'} {' or '.join(NEEDS[kind] for kind in need.split('|'))}"
        for need, count in missing.items()
    ]
    return f"{words} {'; '.join(needs)}." if needs else words
