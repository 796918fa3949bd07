"""Recipes: resolution, origins, edits, JSON, hash."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudio.core.errors import UserError
from qstudio.core.recipe import FIELDS, LayerSettings, Recipe, Rule, make_values
from qstudio.core.scheme import Granularity

VALUES = st.fixed_dictionaries(
    {},
    optional={
        "weight_bits": st.sampled_from([2, 4, 8, 16, "float"]),
        "activation_bits": st.sampled_from([2, 8, "float"]),
        "weight_symmetric": st.booleans(),
        "weight_granularity": st.sampled_from(["tensor", "channel", "group:8"]),
        "weight_calibration": st.sampled_from(["minmax", "mse", "percentile:99.9"]),
        "activation_clip": st.sampled_from([None, (-1.0, 2.0), (0.0, 6.0)]),
    },
)
RECIPES = st.builds(
    lambda default, rules, layers: (
        Recipe(rules=tuple(Rule(glob, make_values(**v)) for glob, v in rules), overrides=())
        .with_default(**default)
        .with_layers(("conv1",), **layers)
    ),
    VALUES,
    st.lists(st.tuples(st.sampled_from(["*", "conv*", "fc", "conv1"]), VALUES), max_size=3),
    VALUES,
)


def test_an_exact_name_wins_over_rules_and_rules_over_the_default():
    recipe = Recipe(
        rules=(Rule("conv*", make_values(weight_bits=4)), Rule("*", make_values(weight_bits=6, activation_bits=6)))
    ).with_layers(("conv1",), weight_bits=2)
    assert recipe.settings("conv1").weight_bits == 2
    assert recipe.settings("conv2").weight_bits == 4
    assert recipe.settings("fc").weight_bits == 6
    resolved = recipe.resolve("conv1")
    assert resolved.source("weight_bits") == "set"
    assert resolved.source("activation_bits") == "rule *"
    assert resolved.source("weight_symmetric") == "default"


def test_globs_keep_case_and_slashes():
    recipe = Recipe(rules=(Rule("/Layer1/*", make_values(weight_bits=4)),))
    assert recipe.settings("/Layer1/0/conv").weight_bits == 4
    assert recipe.settings("/layer1/0/conv").weight_bits == 8


@settings(deadline=None)
@given(RECIPES)
def test_json_keeps_everything(recipe):
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert again.sha256() == recipe.sha256()


@settings(deadline=None)
@given(RECIPES, VALUES)
def test_setting_and_removing_gives_back_what_was_inherited(recipe, values):
    bare = recipe.without(("conv9",))
    edited = bare.with_layers(("conv9",), **values)
    assert edited.without(("conv9",)) == bare
    assert edited.settings("conv1") == bare.settings("conv1")


def test_a_clip_means_manual_and_another_calibration_drops_the_clip():
    recipe = Recipe().with_layers(("a",), activation_clip=(-1, 1))
    assert recipe.settings("a").activation_calibration == "manual"
    dropped = recipe.with_layers(("a",), activation_calibration="mse")
    assert dropped.settings("a").activation_clip is None


def test_different_recipes_have_different_hashes():
    hashes = {Recipe().sha256()}
    hashes |= {Recipe().with_default(weight_bits=b).sha256() for b in (2, 4)}
    hashes.add(Recipe(refinements=()).sha256())
    assert len(hashes) == 4


@pytest.mark.parametrize(
    "values",
    [
        {"weight_bits": 0},
        {"weight_bits": "many"},
        {"weight_symmetric": "perhaps"},
        {"activation_clip": (1, 2)},
        {"activation_clip": (0, 0)},
        {"activation_clip": (float("nan"), 1)},
        {"activation_clip": "1,2,3"},
        {"weight_calibration": "median"},
        {"weight_granularity": "row"},
        {"colour": "red"},
    ],
)
def test_wrong_values_are_refused_by_name(values):
    with pytest.raises(UserError) as caught:
        make_values(**values)
    assert caught.value.what


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"qstudio_recipe": 99}, {"qstudio_recipe": 1, "rules": [{}]}, {"qstudio_recipe": 1, "layers": 3}],
)
def test_files_that_are_no_recipes_are_refused(data):
    with pytest.raises(UserError):
        Recipe.from_json(data)


def test_weights_and_activations_get_their_own_schemes():
    settings_of = LayerSettings(weight_bits=4, activation_bits=6, weight_granularity=Granularity("group", 16))
    assert settings_of.weight_scheme().bits == 4
    assert settings_of.weight_scheme().granularity == Granularity("group", 16)
    assert settings_of.activation_scheme().bits == 6
    assert settings_of.activation_scheme().granularity.kind == "tensor"
    assert len(FIELDS) == len(set(FIELDS))
