"""Findings and the diagnosis of a session on a real model: what they say, apply and measure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qstudio.core.errors import UserError
from qstudio.core.findings.rules import RULES
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import Scheme
from qstudio.engine.inline import InlineEngine
from qstudio.engine.messages import DataSpec, LayerPreview
from qstudio.session.diagnosis import run_diagnosis
from qstudio.session.session import Session

MODEL = Path(__file__).parents[2] / "sample_models" / "digits_mobilenet.onnx"
BAD = Recipe().with_default(weight_bits=4, weight_granularity="tensor")
FRESH = tuple(Recipe().with_default(weight_bits=bits, weight_granularity="tensor") for bits in (3, 2))
"""For what is stopped half-way: a recipe that was diagnosed before is answered at once."""


@pytest.fixture(scope="module")
def opened() -> Iterator[Session]:
    session = Session(InlineEngine())
    session.open_model(str(MODEL))
    session.wait()
    session.open_data("digits")
    session.wait()
    yield session
    session.close()


@pytest.fixture
def session(opened: Session) -> Session:
    opened.edit("start", Recipe())
    return opened


def test_a_healthy_recipe_has_nothing_high_and_words_say_what_was_checked(session: Session) -> None:
    assert not [each for each in session.findings.all() if each.severity == "high"]
    assert session.findings.complete
    assert f"of {len(RULES)} rules were checked" in session.findings.words()


def test_applying_is_one_named_step_that_is_measured_and_undone(session: Session) -> None:
    findings = session.findings
    session.edit("bad", BAD)
    assert not findings.complete
    (found,) = [f for f in findings.for_layer("blocks.0.depthwise.conv") if f.rule == "depthwise_tensor"]
    findings.apply(found)
    session.wait()
    assert session.undo_label == "Per channel: blocks.0.depthwise.conv"
    assert session.settings("blocks.0.depthwise.conv").weight_granularity.kind == "channel"
    (applied,) = findings.applied
    assert applied.measured is not None
    assert found.gain is not None
    assert not applied.measured.estimated
    assert applied.measured.value == pytest.approx(found.gain.value, abs=0.5)
    assert applied.accuracy is not None
    assert applied.accuracy.unit == "points"
    assert "depthwise_tensor" not in {f.rule for f in findings.for_layer("blocks.0.depthwise.conv")}
    session.undo()
    assert session.recipe == BAD
    assert not findings.applied
    assert found.key in {f.key for f in findings.for_layer("blocks.0.depthwise.conv")}


def test_several_are_one_step_and_dismissed_ones_are_left_out(session: Session) -> None:
    findings = session.findings
    session.edit("bad", BAD)
    chosen = [f for f in findings.all() if f.rule == "depthwise_tensor"]
    assert len(chosen) == 4
    findings.dismiss(chosen[0])
    assert chosen[0].key not in {f.key for f in findings.all()}
    assert findings.dismissed[0].key == chosen[0].key
    findings.restore(chosen[0])
    assert chosen[0].key in {f.key for f in findings.all()}
    findings.apply_all(chosen)
    assert session.undo_label == "Apply 4 findings"
    assert len(findings.applied) == 4
    session.undo()
    assert session.recipe == BAD
    session.wait()
    with pytest.raises(UserError):
        findings.apply_all([])


def test_what_previews_leave_out_is_left_to_a_run(session: Session) -> None:
    findings = session.findings
    session.edit("bad", Recipe().with_default(weight_bits=4))
    (shift,) = [each for each in findings.all() if each.rule == "bias_shift"]
    assert shift.others > 0
    findings.apply(shift)
    assert session.recipe.refinements == ("fold", "bias_correction")
    session.wait()
    (applied,) = findings.applied
    assert applied.needs_run
    assert (applied.measured, applied.accuracy) == (None, None)
    assert "bias_shift" not in {each.rule for each in findings.all()}
    session.undo()


def test_slices_find_what_one_go_finds_and_the_preferred_layer_comes_first(session: Session) -> None:
    findings = session.findings
    session.edit("bad", BAD)
    told: list[str] = []
    stop = findings.changed.connect(told.append)
    findings.prefer("fc")
    steps = 0
    while findings.step(0.0):  # one rule a slice
        steps += 1
    stop()
    assert session.model is not None
    assert steps == len(RULES) * len(session.model.layers) - 1
    assert told[0] == "fc"
    assert told[-1] == ""
    sliced = findings.known()
    session.edit("other", Recipe())
    session.edit("bad", BAD)
    assert findings.all() == sliced


def test_depthwise_weights_are_diagnosed_and_repaired(session: Session) -> None:
    session.edit("bad", BAD)
    diagnosis = run_diagnosis(session.diagnosis, session.wait)
    assert diagnosis.verdict == "weights"
    assert [step.state for step in diagnosis.steps] == ["done"] * 5
    assert "depthwise layers" in diagnosis.steps[2].conclusion
    assert all("depthwise" in name for name in diagnosis.worst)
    tried = {each.title: each for each in diagnosis.steps[3].figures}
    assert tried["one weight scale per channel"].difference > 50
    assert tried["cross-layer equalization"].difference > 50
    assert diagnosis.repair is not None
    outcome = {each.title: each for each in diagnosis.steps[4].figures}
    assert outcome["after"].interval is not None
    assert outcome["after"].score > outcome["before"].score + 50
    diagnosis.apply()
    assert session.undo_label is not None
    assert session.undo_label.startswith("Diagnosis: ")
    assert session.recipe == diagnosis.repair.recipe
    session.undo()
    assert session.recipe == BAD
    assert "Which repair?" in diagnosis.text()


def test_a_stopped_diagnosis_goes_on_where_it_was(session: Session) -> None:
    session.edit("bad", FRESH[0])
    diagnosis = session.diagnosis
    diagnosis.start()
    stop = diagnosis.changed.connect(lambda steps: diagnosis.cancel() if steps[0].state == "done" else None)
    session.wait()
    stop()
    assert not diagnosis.running
    assert diagnosis.resumable
    known = diagnosis.steps[0]
    diagnosis.resume()
    session.wait()
    assert diagnosis.steps[0] == known
    assert diagnosis.verdict == "weights"
    assert diagnosis.steps[3].state == "done"
    with pytest.raises(UserError):
        diagnosis.resume()


def test_an_edit_in_between_ends_it_with_a_reason(session: Session) -> None:
    session.edit("bad", FRESH[1])
    session.diagnosis.start()
    session.edit("other", Recipe())
    session.wait()
    assert session.diagnosis.problem == "The recipe has changed: start again."
    assert not session.diagnosis.running
    with pytest.raises(UserError):
        session.diagnosis.apply()


def test_eight_bits_are_healthy(session: Session) -> None:
    diagnosis = run_diagnosis(session.diagnosis, session.wait)
    assert diagnosis.verdict == "healthy"
    assert diagnosis.repair is None
    assert [step.state for step in diagnosis.steps] == ["done"] + ["skipped"] * 4
    assert "nothing is wrong" in diagnosis.steps[0].conclusion


def test_data_read_wrongly_is_found_before_anything_is_quantized(session: Session) -> None:
    session.open_data(DataSpec("digits", scale=0.5))
    session.wait()
    (found,) = [each for each in session.findings.all() if each.rule == "near_chance"]
    assert found is session.findings.all()[0]
    diagnosis = run_diagnosis(session.diagnosis, session.wait)
    assert diagnosis.verdict == "float"
    assert "guessing" in diagnosis.steps[0].conclusion
    session.open_data("digits")
    session.wait()


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["digits_mobilenet", "digits_cnn", "resnet20_cifar10"])
def test_gains_of_weights_are_met_on_whole_models(name: str, request: pytest.FixtureRequest) -> None:
    place = MODEL.with_name(f"{name}.onnx")
    if not place.exists():
        place = request.getfixturevalue("cases") / "models" / f"{name}.onnx"
    session = Session(InlineEngine())
    session.open_model(str(place))
    session.wait()
    off: dict[str, list[float]] = {}
    for recipe in (BAD, Recipe().with_default(weight_bits=2), Recipe().with_default(weight_granularity="tensor")):
        session.edit("trial", recipe)
        for found in session.findings.all():
            if found.side != "weight" or found.edit is None or found.edit.refinement or found.gain is None:
                continue
            after = found.edit.apply(recipe).settings(found.layer).weight_scheme()
            if after.granularity.kind == "group":
                continue  # exact figures of groups are compared on a network of their own
            before = exact_db(session, found.layer, recipe.settings(found.layer).weight_scheme())
            gained = exact_db(session, found.layer, after) - before
            assert gained > 0, found.text()
            off.setdefault(found.rule, []).append(found.gain.value - gained)
    session.close()
    for rule, errors in off.items():
        print(f"{name} {rule}: {len(errors)} findings, off by {max(map(abs, errors)):.2f} dB at most")
    assert off
    assert max(abs(error) for errors in off.values() for error in errors) < 2.0


def exact_db(session: Session, layer: str, scheme: Scheme) -> float:
    """Return the SQNR of a weight that the engine really quantizes."""
    found: list[float] = []
    assert session.model is not None
    job = session._engine.submit(
        LayerPreview(session.model.path, layer, scheme), on_finished=lambda done: found.append(done.value.sqnr_db)
    )
    session._engine.wait(job)
    return found[0]
