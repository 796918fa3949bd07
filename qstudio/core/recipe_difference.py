"""In what two recipes differ, layer by layer and field by field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import FIELDS, Recipe
from qstudio.core.scheme import format_bits


@dataclass(frozen=True)
class FieldDifference:
    """One field of one layer that two recipes set to different values."""

    layer: str
    field: str
    """Of `qstudio.core.recipe.FIELDS`."""
    first: Any
    second: Any


def recipe_difference(first: Recipe, second: Recipe, layers: Iterable[LayerInfo]) -> tuple[FieldDifference, ...]:
    """Return every field that differs, in the order of layers and fields; only fields of sites that a layer has.

    A field that plays no part is left out: the rest of a side that both leave in float, a clip without "manual".
    """
    found: list[FieldDifference] = []
    for layer in layers:
        one, two = first.settings(layer.name), second.settings(layer.name)
        if one == two:
            continue
        for name in FIELDS:
            side = name.partition("_")[0]
            if side == "activation" and layer.activation is None:
                continue
            if side != "activation" and layer.weight is None:
                continue
            a, b = getattr(one, name), getattr(two, name)
            if a != b:
                found.append(FieldDifference(layer.name, name, a, b))
    return tuple(found)


def value_text(name: str, value: Any) -> str:
    """Return the value of a field for people."""
    if name.endswith("_bits"):
        return format_bits(value)
    if name.endswith("_symmetric"):
        return "symmetric" if value else "asymmetric"
    if name.endswith("_dynamic"):
        return "dynamic" if value else "static"
    if name.endswith("_clip"):
        return "none" if value is None else f"{value[0]:.4g}..{value[1]:.4g}"
    if name == "weight_outliers":
        return f"{value:g} %"
    return str(value)


def taken_from(recipe: Recipe, source: Recipe, layers: tuple[str, ...]) -> Recipe:
    """Return `recipe` with all fields of some layers as `source` has them; what is equal stays as it was set."""
    for layer in layers:
        now, wanted = recipe.settings(layer), source.settings(layer)
        values = {name: getattr(wanted, name) for name in FIELDS if getattr(wanted, name) != getattr(now, name)}
        for side in ("weight", "activation"):
            # Setting one of the two changes the other: both are said.
            if values.keys() & {f"{side}_clip", f"{side}_calibration"}:
                values |= {name: getattr(wanted, name) for name in (f"{side}_clip", f"{side}_calibration")}
        recipe = recipe.with_layers((layer,), **values)
    return recipe
