"""Findings as values: ranking, text, edits, and rules that need no network to be true or false."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qstudio.core.errors import UserError
from qstudio.core.findings.evidence import Evidence
from qstudio.core.findings.finding import Edit, Finding, Gain, change, rank, severity_of
from qstudio.core.findings.network_rules import is_near_chance
from qstudio.core.findings.rules import RULES, FindingRule, checked_words, ranked
from qstudio.core.findings.significance import flip_probability, is_worse
from qstudio.core.graph_types import GraphDescription
from qstudio.core.inspection import DepthErrors
from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.core.results import Metrics
from qstudio.core.scheme import Granularity
from qstudio.session.findings import estimate

LAYER = LayerInfo("conv", "Conv", "3x3")
MODEL = ModelInfo(
    "m", "", "onnx", "", 17, (LAYER,), GraphDescription("g", 17, (), {}, (), (), ()), (), (), (None, 3), 0, 0
)  # fmt: skip


def evidence(**more: object) -> Evidence:
    return Evidence(MODEL, Recipe(), estimate, **more)  # type: ignore[arg-type]


def finding(rule: str = "channel_spread", layer: str = "conv", gain: Gain | None = None, **more: object) -> Finding:
    return Finding(rule, layer, "weight", "high", "It is so.", "Do this.", "Because.", gain, **more)  # type: ignore[arg-type]


def db(value: float) -> Gain:
    return Gain(value, "dB", "SQNR of the weight")


def metrics(top1: float, samples: int = 600, **more: object) -> Metrics:
    return Metrics(samples, top1, **more)  # type: ignore[arg-type]


def test_findings_are_ranked_by_gain_and_what_is_wrong_before_everything_else_comes_first() -> None:
    wrong = finding("near_chance", "", None)
    points = finding("depthwise_bits", "a", Gain(0.2, "points", "top-1", estimated=False))
    some = [finding(layer="b", gain=db(3)), finding(layer="c", gain=db(11)), points, wrong]
    assert [each.layer for each in sorted(some, key=rank)] == ["", "a", "c", "b"]
    assert [severity_of(gain) for gain in (6.1, 3.0, 1.0)] == ["high", "medium", "low"]


def test_a_rule_that_one_edit_answers_is_listed_once_with_the_others_counted() -> None:
    some = [finding("equalize", name, db(gain)) for name, gain in (("a", 4), ("b", 9), ("c", 2))]
    (only,) = ranked(some)
    assert (only.layer, only.others) == ("b", 2)
    assert "The same holds for 2 other layers." in only.text()


def test_the_text_has_what_to_do_and_why_and_marks_estimates() -> None:
    words = finding(gain=db(11.04), evidence=(("channels", "24"),)).text()
    assert words.splitlines() == [
        "conv: It is so.",
        "What to do: Do this.",
        "Why: Because.",
        "Predicted: ~+11.0 dB (SQNR of the weight)",
        "channels: 24",
    ]
    assert Gain(-0.5, "points", "top-1", estimated=False).text() == "-0.50 points"


def test_an_edit_sets_fields_or_switches_a_refinement_on_once() -> None:
    edit = change("Per channel: conv", ("conv",), weight_granularity="group:64", weight_bits=4)
    settings = edit.apply(Recipe()).settings("conv")
    assert (settings.weight_granularity, settings.weight_bits) == (Granularity("group", 64), 4)
    cle = Edit("on", refinement="cle").apply(Recipe())
    assert cle.refinements == ("fold", "cle")
    assert Edit("on", refinement="cle").apply(cle) == cle
    rounding = replace(Recipe(), refinements=("fold", "gptq"))
    assert Edit("on", refinement="adaround").apply(rounding).refinements == ("fold", "adaround")
    with pytest.raises(UserError):
        change("x", ("conv",), weight_bit=4)


def test_rules_are_registered_with_words_and_say_what_they_lack() -> None:
    assert len(RULES) >= 12
    for rule in RULES.values():
        assert all((rule.title, rule.condition, rule.source, rule.needs))
        assert rule.missing(evidence())
        assert rule.check(evidence(), LAYER) == ()
    words = checked_words(evidence())
    assert words.startswith(f"0 of {len(RULES)} rules were checked.")
    assert "the weights" in words


@pytest.mark.parametrize(
    ("top1", "interval", "classes", "near"),
    [
        (11.1, (8.9, 13.9), 10, True),
        (99.0, (98.0, 99.5), 10, False),
        (52.0, (48.0, 56.0), 2, True),
        (65.0, (61.0, 69.0), 2, False),
        (1.9, (1.2, 3.0), 100, True),
        (60.0, (57.0, 63.0), 1000, False),
    ],
)
def test_a_float_model_near_chance_is_told_apart(
    top1: float, interval: tuple[float, float], classes: int, near: bool
) -> None:
    assert is_near_chance(top1, interval, 100 / classes) is near
    found = RULES["near_chance"].check(
        evidence(float_metrics=metrics(top1, top1_interval=interval), classes=classes), LAYER
    )
    assert bool(found) is near
    if near:
        assert found[0].place == "data_panel"
        assert found[0].edit is None


def test_a_fall_counts_only_beyond_half_a_point_and_beyond_chance() -> None:
    assert flip_probability(0, 0) == 1.0
    assert flip_probability(5, 0) == pytest.approx(1 / 32)
    assert flip_probability(10, 10) == pytest.approx(0.588, abs=1e-3)
    whole = metrics(99.0)
    assert not is_worse(metrics(98.7, flips_to_wrong=30, flips_to_right=0), whole)
    assert not is_worse(metrics(98.0, flips_to_wrong=8, flips_to_right=4), whole)
    assert is_worse(metrics(98.0, flips_to_wrong=12, flips_to_right=1), whole)
    assert is_worse(Metrics(600, None, agreement=98.0), Metrics(600, None, agreement=100.0))
    assert not is_worse(Metrics(600, None, agreement=99.5), Metrics(600, None, agreement=100.0))


def fail(_evidence: Evidence, _layer: LayerInfo) -> tuple[Finding, ...]:
    raise ZeroDivisionError("no values")


def test_a_plug_in_that_fails_is_the_users_to_know_and_a_fault_of_ours_is_not_hidden() -> None:
    known = evidence(depth=DepthErrors("", 8, ()))
    broken = FindingRule("odd", "Odd", "always", "a test", "test_findings:fail", ("depth",))
    with pytest.raises(UserError, match="no values"):
        broken.check(known, LAYER)
    assert FindingRule("odd", "Odd", "always", "a test", "test_findings:fail", ("run",)).check(known, LAYER) == ()
