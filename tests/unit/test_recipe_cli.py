"""From options to recipe, run options and data, without a model file and without an engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from session_fakes import layer, model

from qstudio.cli.choices import recipe_choices, run_options
from qstudio.cli.parser import build_parser
from qstudio.core.errors import UserError
from qstudio.core.first_last import with_first_last_bits
from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import LayerSettings, Recipe, Rule, make_values
from qstudio.core.scheme import FLOAT_BITS, Granularity
from qstudio.engine.messages import DataSpec
from qstudio.session.data_words import data_spec, data_words
from qstudio.session.options import RunOptions

NAMES = ("body.0.conv", "body.1.conv", "body[2]/conv", "fc")


def recipe_of(*words: str, names: tuple[str, ...] = NAMES) -> Recipe:
    arguments = build_parser().parse_args(["quantize", "m.onnx", "--data", "digits", *words])
    return recipe_choices(arguments).apply(model(names=names))


def test_without_options_the_recipe_is_the_windows() -> None:
    assert recipe_of() == Recipe()


def test_options_for_the_whole_model_change_the_default() -> None:
    words = (
        "--weight-bits 4 --activation-bits float --granularity group:32 --no-weight-symmetric --activation-symmetric"
    )
    settings = recipe_of(*words.split(), "--calibration", "percentile:99.9").default
    assert settings == LayerSettings(
        weight_bits=4,
        weight_symmetric=False,
        weight_granularity=Granularity("group", 32),
        weight_calibration="percentile:99.9",
        activation_bits=FLOAT_BITS,
        activation_symmetric=True,
        activation_calibration="percentile:99.9",
    )


def test_calibration_of_one_side_wins_over_that_of_both() -> None:
    settings = recipe_of("--calibration", "entropy", "--weight-calibration", "minmax").default
    assert (settings.weight_calibration, settings.activation_calibration) == ("minmax", "entropy")


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("fc.weight_bits=3", "fc", {"weight_bits": 3}),
        ("fc.bits=3", "fc", {"weight_bits": 3, "activation_bits": 3}),
        ("fc.Weight-Bits=float", "fc", {"weight_bits": FLOAT_BITS}),
        ("*.conv.granularity=tensor", "body.1.conv", {"weight_granularity": Granularity("tensor")}),
        ("body.?.conv.symmetric=false", "body.0.conv", {"weight_symmetric": False, "activation_symmetric": False}),
        ("fc.activation_calibration=percentile:99.5", "fc", {"activation_calibration": "percentile:99.5"}),
        ("fc.weight_clip=-0.5,0.25", "fc", {"weight_clip": (-0.5, 0.25), "weight_calibration": "manual"}),
        ("body[2]/conv.weight_bits=5", "body[2]/conv", {"weight_bits": 5}),
        ("body[[]2]/conv.weight_bits=5", "body[2]/conv", {"weight_bits": 5}),
    ],
)
def test_set_changes_the_layers_that_match(text: str, name: str, expected: dict[str, object]) -> None:
    recipe = recipe_of("--set", text)
    assert recipe.settings(name) == replace(LayerSettings(), **expected)  # type: ignore[arg-type]
    untouched = [other for other in NAMES if other != name and "*" not in text and "?" not in text]
    assert all(recipe.settings(other) == LayerSettings() for other in untouched)


def test_the_field_is_what_follows_the_last_dot() -> None:
    assert recipe_of("--set", "a=b.c.weight_bits=3", names=("a=b.c",)).settings("a=b.c").weight_bits == 3


def test_the_later_set_wins_and_each_field_on_its_own() -> None:
    recipe = recipe_of("--set", "*.weight_bits=4", "--set", "body*.weight_bits=3", "--set", "*.activation_bits=6")
    assert [recipe.settings(name).weight_bits for name in NAMES] == [3, 3, 3, 4]
    assert {recipe.settings(name).activation_bits for name in NAMES} == {6}
    recipe = recipe_of("--set", "fc.weight_bits=3", "--set", "*.weight_bits=4")
    assert recipe.settings("fc").weight_bits == 4


def test_a_later_calibration_takes_an_earlier_clip_away() -> None:
    recipe = recipe_of("--set", "fc.weight_clip=-1,1", "--set", "*.weight_calibration=mse")
    assert (recipe.settings("fc").weight_calibration, recipe.settings("fc").weight_clip) == ("mse", None)


def test_set_wins_over_a_recipe_file(tmp_path: Path) -> None:
    saved = Recipe(rules=(Rule("*", make_values(weight_bits=6)),)).with_layers(("fc",), weight_bits=5)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(saved.to_json()))
    recipe = recipe_of("--recipe", str(path))
    assert recipe == saved
    recipe = recipe_of("--recipe", str(path), "--weight-bits", "2", "--set", "f*.weight_bits=4")
    assert recipe.default.weight_bits == 2
    assert [recipe.settings(name).weight_bits for name in NAMES] == [6, 6, 6, 4]


def test_refinements() -> None:
    assert recipe_of("--refine", "none").refinements == ()
    assert recipe_of("--refine", "fold").refinements == ("fold",)
    assert recipe_of("--refine", "bias_correction,gptq:damping=0.1").refinements == (
        "fold",
        "gptq:damping=0.1",
        "bias_correction",
    )
    with pytest.raises(UserError, match="no refinement 'magic' in this version"):
        recipe_of("--refine", "fold,magic")
    with pytest.raises(UserError, match="both choose how weights are rounded"):
        recipe_of("--refine", "gptq,adaround")
    with pytest.raises(UserError, match="named twice"):
        recipe_of("--refine", "fold,fold")


def chain() -> list[LayerInfo]:
    x = LayerInfo("x", "Input", "", None, None, replace(layer("x").activation, layer="x"))  # type: ignore[arg-type]
    conv1 = replace(layer("conv1"), inputs=("x",))
    conv2 = replace(layer("conv2"), inputs=("conv1",))
    pool = LayerInfo("pool", "MaxPool", "", shares_with="conv2", inputs=("conv2",))
    conv3 = replace(layer("conv3"), inputs=("pool",))
    return [x, conv1, conv2, pool, conv3, replace(layer("fc", "Gemm"), inputs=("conv3",))]


def test_first_and_last_layer_keep_their_bits() -> None:
    info = replace(model(), layers=tuple(chain()))
    recipe = with_first_last_bits(Recipe().with_default(weight_bits=4, activation_bits=4), info, 8)
    weights = {name: recipe.settings(name).weight_bits for name in ("conv1", "conv2", "conv3", "fc")}
    tensors = {name: recipe.settings(name).activation_bits for name in ("x", "conv1", "conv2", "conv3", "fc")}
    assert weights == {"conv1": 8, "conv2": 4, "conv3": 4, "fc": 8}
    assert tensors == {"x": 8, "conv1": 4, "conv2": 4, "conv3": 8, "fc": 8}


def test_a_shared_encoding_is_widened_where_it_lives() -> None:
    layers = [item for item in chain() if item.name != "fc"]
    info = replace(model(), layers=tuple(layers))
    recipe = with_first_last_bits(Recipe().with_default(activation_bits=4), info, 8)
    assert recipe.settings("conv2").activation_bits == 8, "conv3 reads conv2 through the pool"
    assert recipe.settings("conv1").activation_bits == 4


def test_a_model_without_weights_has_no_first_layer() -> None:
    assert with_first_last_bits(Recipe(), replace(model(), layers=()), 8) == Recipe()


def test_set_wins_over_first_last_bits() -> None:
    recipe = recipe_of("--weight-bits", "4", "--first-last-bits", "8", "--set", "fc.weight_bits=6")
    assert [recipe.settings(name).weight_bits for name in NAMES] == [8, 4, 4, 6]


def test_options_of_a_run() -> None:
    words = "--calibration-samples 8 --eval-samples 9 --seed 3 --threads 2 --batch 4 --no-latency --calibration-data c"
    arguments = build_parser().parse_args(["quantize", "m.onnx", "--data", "d", "--split", "train", *words.split()])
    assert run_options(arguments, "mps") == RunOptions("mps", 8, 9, 3, DataSpec("c"), False, 4, 2)


def test_data_options_and_their_words() -> None:
    words = [
        "--data",
        "d",
        "--mean",
        "0.5,0.4",
        "0.3",
        "--std",
        "0.1",
        "--scale",
        "128",
        "--size",
        "32x48",
        "--layout",
        "nchw",
        "--split",
        "train",
    ]
    spec = data_spec(build_parser().parse_args(["inspect", "m", *words]))
    assert spec == DataSpec("d", (0.5, 0.4, 0.3), (0.1,), 128.0, (32, 48), "nchw", "train")
    assert data_spec(build_parser().parse_args(["inspect", "m", *data_words(spec)])) == spec
    assert data_spec(build_parser().parse_args(["inspect", "m", "--data", "d", "--size", "32"])) == DataSpec(
        "d", size=(32, 32)
    )
    negative = data_spec(build_parser().parse_args(["inspect", "m", "--data", "d", "--mean", "-1.5", "2"]))
    assert negative == DataSpec("d", mean=(-1.5, 2.0))
    assert data_spec(build_parser().parse_args(["inspect", "m"])) is None
