"""Choosing schemes: inherited and set, bulk, drags, undo, files, selection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from session_fakes import FakeEngine, model

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe, Rule, make_values
from qstudio.core.scheme import FLOAT_BITS, Granularity
from qstudio.session.recipe_file import read_recipe, write_recipe
from qstudio.session.session import Session


@pytest.fixture
def session() -> Session:
    engine = FakeEngine()
    session = Session(engine)
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    return session


def source(session: Session, layer: str, field: str) -> str:
    return session.recipe.resolve(layer).source(field)


def test_a_value_is_inherited_until_it_is_set(session: Session) -> None:
    assert source(session, "conv1", "weight_bits") == "default"
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    assert (source(session, "conv1", "weight_bits"), source(session, "conv1", "activation_bits")) == ("set", "default")
    assert session.settings("conv1").weight_bits == 4
    assert session.settings("conv2").weight_bits == 8
    session.reset_layers(("conv1",))
    assert source(session, "conv1", "weight_bits") == "default"
    assert (session.undo_label, session.recipe) == ("Reset layer", Recipe())


def test_a_rule_stands_between_default_and_layer(session: Session) -> None:
    session.edit("Rule", Recipe(rules=(Rule("conv*", make_values(weight_bits=3)),)))
    assert (source(session, "conv1", "weight_bits"), session.settings("fc").weight_bits) == ("rule conv*", 8)
    session.set_layers("5 bits", ("conv1",), weight_bits=5)
    assert (session.settings("conv1").weight_bits, session.settings("conv2").weight_bits) == (5, 3)


def test_a_bulk_edit_is_one_step(session: Session) -> None:
    changes: list[Recipe] = []
    session.recipe_changed.connect(changes.append)
    session.set_layers("All to 4", ("conv1", "conv2", "fc"), weight_bits=4, activation_bits=6)
    assert len(changes) == 1
    session.undo()
    assert session.recipe == Recipe()
    session.redo()
    assert {session.settings(name).weight_bits for name in ("conv1", "conv2", "fc")} == {4}
    session.reset_layers(("conv1", "conv2"), ("weight_bits",))
    assert session.undo_label == "Reset layers"
    assert (session.settings("conv1").weight_bits, session.settings("conv1").activation_bits) == (8, 6)


def test_a_drag_of_a_clip_edge_is_one_step(session: Session) -> None:
    for high in (1.0, 0.9, 0.8):
        session.set_layers("Clip conv1", ("conv1",), "clip conv1", weight_clip=(-1.0, high))
    session.end_drag()
    assert session.settings("conv1").weight_clip == (-1.0, 0.8)
    assert session.settings("conv1").weight_calibration == "manual"
    session.set_layers("Clip conv1", ("conv1",), "clip conv1", weight_clip=(-1.0, 0.5))
    session.undo()
    assert session.settings("conv1").weight_clip == (-1.0, 0.8)
    session.undo()
    assert session.recipe == Recipe()
    assert session.undo_label is None


def test_choosing_a_calibration_takes_the_clip_away(session: Session) -> None:
    session.set_layers("Clip", ("conv1",), activation_clip=(0.0, 2.0))
    session.set_layers("MSE", ("conv1",), activation_calibration="mse")
    settings = session.settings("conv1")
    assert (settings.activation_calibration, settings.activation_clip) == ("mse", None)


def test_nothing_is_told_when_nothing_changes(session: Session) -> None:
    changes: list[Recipe] = []
    session.recipe_changed.connect(changes.append)
    session.set_layers("Nothing", (), weight_bits=4)
    session.undo()
    session.redo()
    session.edit("Same", session.recipe)
    assert changes == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight_bits": 0}, "weight_bits: '0' is not a bit width. Choose 1 to 16, or float."),
        ({"weight_bits": 17}, "weight_bits: '17' is not a bit width. Choose 1 to 16, or float."),
        ({"weight_sparsity": 0.5}, "recipe: there is no field 'weight_sparsity'."),
        ({"activation_clip": (1.0, 2.0)}, "activation_clip: the range 1..2 does not hold zero."),
        ({"activation_clip": (0.0, float("nan"))}, "activation_clip: the range 0..nan does not hold zero."),
        ({"weight_granularity": "group:1"}, "weight_granularity: 'group:1' is not a granularity."),
        ({"activation_calibration": "percentile:101"}, "'101' is not a percent kept."),
    ],
)
def test_a_value_that_does_not_fit_changes_nothing(session: Session, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        session.set_layers("Odd", ("conv1",), **values)
    assert words in caught.value.sentence()
    assert (session.recipe, session.undo_label) == (Recipe(), None)


def test_the_size_follows_the_recipe(session: Session) -> None:
    full = session.quantized_size_bytes()
    session.set_layers("4 bits", ("conv1", "conv2", "fc"), weight_bits=4)
    half = session.quantized_size_bytes()
    session.set_layers("Float", ("conv1", "conv2", "fc"), weight_bits=FLOAT_BITS, activation_bits=FLOAT_BITS)
    assert half == full - 3 * 8 * 36 // 2
    assert session.model is not None
    assert session.quantized_size_bytes() == session.model.float_size_bytes


def test_selection_keeps_known_layers_in_the_order_given(session: Session) -> None:
    events: list[tuple[str, ...]] = []
    session.selection_changed.connect(events.append)
    session.select(["fc", "nothing", "conv1"])
    session.select(("fc", "conv1"))
    assert events == [("fc", "conv1")]
    assert session.current_layer is not None
    assert session.current_layer.name == "fc"
    session.select(())
    assert session.current_layer is None


EVERYTHING = (
    Recipe(
        rules=(
            Rule("conv*", make_values(weight_bits="float")),
            Rule("*.fc", make_values(weight_granularity="group:32")),
        )
    )
    .with_default(activation_calibration="percentile:99.9", weight_symmetric=False)
    .with_layers(("conv1",), weight_clip=(-0.1, 0.30000001192092896), activation_bits=3)
)


def test_a_recipe_survives_its_file(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    session.edit("Everything", EVERYTHING)
    assert session.saved_recipe != session.recipe
    session.save_recipe(path)
    assert session.saved_recipe == session.recipe
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.json"]
    session.undo()
    session.load_recipe(path)
    assert session.recipe == EVERYTHING
    assert session.recipe.sha256() == EVERYTHING.sha256()
    assert (session.undo_label, session.saved_recipe) == ("Load recipe", EVERYTHING)
    assert session.settings("conv1").weight_granularity == Granularity("channel")


def test_the_window_hears_of_a_saved_recipe_after_it_is_saved(session: Session, tmp_path: Path) -> None:
    saved: list[bool] = []
    session.recipe_changed.connect(lambda recipe: saved.append(recipe == session.saved_recipe))
    session.edit("Everything", EVERYTHING)
    session.save_recipe(tmp_path / "recipe.json")
    session.undo()
    session.load_recipe(tmp_path / "recipe.json")
    assert saved == [False, True, False, True]


def test_a_recipe_of_another_model_is_loaded_with_a_word(session: Session, tmp_path: Path) -> None:
    texts: list[str] = []
    session.notice_posted.connect(lambda notice: texts.append(notice.text))
    write_recipe(Recipe().with_layers(("a", "b", "c", "d"), weight_bits=4), tmp_path / "r.json")
    session.load_recipe(tmp_path / "r.json")
    assert texts == ["4 layers of the recipe are not in this model: a, b, c, ..."]
    assert len(session.recipe.overrides) == 4


GOOD = Recipe().to_json()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "this is not a JSON file"),
        ("{", "this is not a JSON file"),
        ("[" * 100_000, "this is not a JSON file"),
        ("\x00\xff", "this is not a JSON file"),
        ("[]", "this is not a QStudio recipe"),
        ("null", "this is not a QStudio recipe"),
        ('{"layers": {}}', "this is not a QStudio recipe"),
        (json.dumps({**GOOD, "qstudio_recipe": 2}), "recipe version 2 is not known. Update QStudio"),
        (json.dumps({**GOOD, "layers": []}), "the recipe is malformed"),
        (json.dumps({**GOOD, "layers": {"conv1": 4}}), "the recipe is malformed"),
        (json.dumps({**GOOD, "rules": [{"weight_bits": 4}]}), "the recipe is malformed"),
        (json.dumps({**GOOD, "default": 3}), "the recipe is malformed"),
        (json.dumps({**GOOD, "default": {"weight_bits": 99}}), "weight_bits: '99' is not a bit width"),
        (json.dumps({**GOOD, "default": {"colour": "red"}}), "there is no field 'colour'"),
        (json.dumps({**GOOD, "refinements": 3}), "the recipe is malformed"),
    ],
)
def test_a_file_that_is_no_recipe_changes_nothing(session: Session, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        session.load_recipe(path)
    assert words in caught.value.sentence()
    assert caught.value.where == str(path)
    assert (session.recipe, session.undo_label) == (Recipe(), None)


def test_a_missing_file_and_an_unwritable_folder_are_named(session: Session, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the file cannot be read"):
        read_recipe(tmp_path / "nothing.json")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="the recipe was not saved"):
        session.save_recipe(blocked / "recipe.json")


def test_a_full_disk_keeps_the_recipe_that_was_there(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recipe.json"
    session.save_recipe(path)
    before = path.read_bytes()
    session.edit("Everything", EVERYTHING)

    def full(self: Path, text: str, **_: Any) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left on device"):
        session.save_recipe(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.json"]
    assert session.saved_recipe == Recipe()
