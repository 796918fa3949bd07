"""Values of a project as JSON and back: every field of runs, results, trainings, statistics; newer and damaged ones."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import random
import types
import typing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_fakes import statistics

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.results import RunResult
from qstudio.core.scheme import Granularity
from qstudio.core.statistics import Outlier, SiteStatistics
from qstudio.core.training import Training, TrainResult
from qstudio.session.options import Run, RunOptions
from qstudio.session.store.arrays import pack, unpack
from qstudio.session.store.codec import dumps, loads
from qstudio.session.store.records import recipe_from, recipe_text
from qstudio.session.training import TrainingRecord

RECIPES = st.builds(
    lambda bits, layers, clip: Recipe().with_layers(layers, weight_bits=bits, activation_clip=clip),
    st.sampled_from([2, 4, 8, 32]),
    st.lists(st.sampled_from(["a", "b", "Größe/层"]), min_size=1, max_size=3).map(tuple),
    st.one_of(st.none(), st.tuples(st.floats(-9, -0.5), st.floats(0.5, 9))),
)


def value_of(kind: Any, draw: random.Random) -> Any:
    """Return some value of a type, from its type hints: whatever fields there will be are covered.

    A strategy for a whole run would take hypothesis a minute for ten examples; it draws the seed only.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Recipe:
        layers = tuple(draw.sample(["a", "b", "Größe/层"], draw.randint(1, 3)))
        return Recipe().with_layers(layers, weight_bits=draw.choice([2, 4, 32]), activation_clip=(-draw.random(), 1.0))
    if kind is Training:
        return Training(epochs=draw.randint(3, 50), progressive_bits=draw.choice([(), (8, 4)]), distill=draw.random())
    if kind is RunOptions:
        return RunOptions(seed=draw.randint(0, 9), eval_samples=draw.choice([None, 7]), storage="packed")
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: value_of(hints[f.name], draw) for f in dataclasses.fields(kind) if f.init})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return draw.choice(list(kind))
    if origin in (typing.Union, types.UnionType):
        chosen = draw.choice(inner)
        return None if chosen is type(None) else value_of(chosen, draw)
    if origin is typing.Literal:
        return draw.choice(inner)
    if origin is tuple and inner[1:] == (Ellipsis,):
        return tuple(value_of(inner[0], draw) for _ in range(draw.randint(0, 3)))
    if origin is tuple:
        return tuple(value_of(part, draw) for part in inner)
    if origin is dict:
        return {f"split {n}": value_of(inner[1], draw) for n in range(draw.randint(0, 2))}
    if origin is np.ndarray:
        return np.array([draw.randint(0, 300) for _ in range(draw.randint(0, 4))], typing.get_args(inner[1])[0])
    if kind is float:
        return draw.choice([draw.gauss(0, 1e6), 0.0, -0.0, 5e-324, 1e308, math.inf])
    return {
        int: draw.randint(-(2**60), 2**60),
        str: draw.choice(["", "ä\n层\0\"'", "x" * 50]),
        bool: draw.random() < 0.5,
    }[kind]


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Compare deeply and return the places that differ: values that hold arrays are equal only to themselves."""
    if type(a) is not type(b):
        return [f"{where}: {type(a)} {type(b)}"]
    if isinstance(a, np.ndarray):
        return [] if a.dtype == b.dtype and np.array_equal(a, b) else [where]
    if dataclasses.is_dataclass(a) and not isinstance(a, Recipe):
        pairs = [(getattr(a, f.name), getattr(b, f.name), f"{where}.{f.name}") for f in dataclasses.fields(a)]
        return [place for pair in pairs for place in differences(*pair)]
    if isinstance(a, dict) and a.keys() == b.keys():
        return [place for key in a for place in differences(a[key], b[key], f"{where}[{key!r}]")]
    if isinstance(a, tuple) and len(a) == len(b):
        return [p for n, (x, y) in enumerate(zip(a, b, strict=True)) for p in differences(x, y, f"{where}[{n}]")]
    return [] if a == b else [f"{where}: {a!r} {b!r}"]


@pytest.mark.parametrize("kind", [Run, RunResult, TrainingRecord, TrainResult, RunOptions])
def test_every_field_comes_back(kind: Any) -> None:
    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        value = value_of(kind, random.Random(seed))
        recipes: dict[str, Recipe] = {}
        text = dumps(kind, value, recipes)
        assert differences(loads(kind, text, recipes, "x.qsproj"), value) == []

    check()


def test_what_is_not_finite_comes_back() -> None:
    kind = tuple[float, ...]
    found = loads(kind, dumps(kind, (float("inf"), float("-inf"), float("nan")), {}), {}, "x")
    assert found[:2] == (float("inf"), float("-inf"))
    assert found[2] != found[2]


def test_a_field_of_a_newer_version_is_refused_in_one_sentence() -> None:
    data = json.loads(dumps(RunOptions, RunOptions(), {})) | {"warp": 9}
    with pytest.raises(UserError) as told:
        loads(RunOptions, json.dumps(data), {}, "x.qsproj")
    assert told.value.sentence() == (
        "x.qsproj: a newer version of QStudio wrote it ('RunOptions.warp' is not known here). Update QStudio."
    )


def test_a_field_that_is_missing_takes_its_default() -> None:
    data = json.loads(dumps(RunOptions, RunOptions(seed=7), {}))
    del data["storage"]
    assert loads(RunOptions, json.dumps(data), {}, "x") == RunOptions(seed=7)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "null", '{"settings": 3}', "{", "[" * 100_000, '{"settings": {"epochs": "5"}}', "1" * 10_000, b"{}"],
)
def test_what_is_no_value_is_refused_in_one_sentence(text: Any) -> None:
    with pytest.raises(UserError) as told:
        loads(TrainingRecord, text, {}, "x.qsproj")
    assert "\n" not in told.value.sentence()


def test_an_array_names_no_type_that_could_hold_objects() -> None:
    data = {"type": "object", "shape": [1], "base64": "AAAAAAAAAAA="}
    with pytest.raises(UserError):
        loads(np.ndarray[Any, np.dtype[np.int64]], json.dumps(data), {}, "x")  # type: ignore[arg-type]


# ---- recipes as differences


@settings(max_examples=50, deadline=None, derandomize=True)
@given(RECIPES, RECIPES)
def test_a_recipe_comes_back_from_its_difference(base: Recipe, recipe: Recipe) -> None:
    assert recipe_from(recipe_text(recipe, base), base, "x") == recipe
    assert recipe_from(recipe_text(recipe, None), None, "x").sha256() == recipe.sha256()


def test_an_edit_of_one_layer_of_many_is_short() -> None:
    base = Recipe().with_layers(tuple(f"layer{n}" for n in range(2000)), weight_bits=4)
    recipe = base.with_layers(("layer7",), weight_granularity=Granularity("group", 32))
    text = recipe_text(recipe, base)
    assert len(text) < 200
    assert recipe_from(text, base, "x") == recipe


# ---- statistics


def test_statistics_come_back_in_every_field() -> None:
    rng = np.random.default_rng(0)
    plain = statistics("conv1.weight")
    histogram = dataclasses.replace(
        plain.histogram, nonfinite=3, extremes=rng.normal(size=(5, 2)).astype(np.float32), zeros=2**40
    )
    channels = rng.normal(size=7).astype(np.float32)
    full = dataclasses.replace(
        plain,
        histogram=histogram,
        channel_min=-abs(channels),
        channel_max=abs(channels),
        outliers=(Outlier(9.5, 3, (0, 1, 2)), Outlier(-8.0, -1, ())),
        samples=512,
        channel_counts=rng.integers(0, 70_000, (7, 128)).astype(np.int32),
        l1_norm=1e300,
    )
    for value in (plain, full):
        assert differences(unpack(pack(value), "x"), value) == []


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_statistics_are_refused_or_are_statistics(data: st.DataObject) -> None:
    raw = bytearray(pack(statistics("a")))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(UserError):
        assert isinstance(unpack(damaged, "x"), SiteStatistics)
