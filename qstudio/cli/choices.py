"""From what was written on the command line to recipe, options and data: the values the engine is asked with."""

from __future__ import annotations

import difflib
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from qstudio.cli.asking import Asker
from qstudio.core.errors import UserError
from qstudio.core.first_last import with_first_last_bits
from qstudio.core.layer_rank import RankSelector, parse_selector
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import FIELDS, Recipe, Rule, Values, check_refinements, make_values
from qstudio.core.statistics import SiteStatistics
from qstudio.core.storage import INT8
from qstudio.engine.messages import WeightStatistics
from qstudio.session.data_words import data_spec
from qstudio.session.options import RunOptions
from qstudio.session.recipe_file import read_encodings, read_for_model, read_recipe

BOTH_SIDES = {"bits": "bits", "symmetric": "symmetric", "calibration": "calibration", "format": "format"}
"""Short fields of --set that mean the weight's and the activation's."""

WEIGHT_ONLY = ("granularity", "outliers")
"""Short fields of --set that only weights have."""

ASSIGNMENT = re.compile(r"(?P<glob>.+)\.(?P<field>[A-Za-z_-]+)=(?P<value>.*)", re.DOTALL)
"""Greedy: the last dot that is followed by a field and "=" splits, as layer names have dots of their own."""


@dataclass(frozen=True)
class Setting:
    """One --set: field values for the layers whose name matches."""

    text: str
    glob: str
    values: Values

    @property
    def ranks(self) -> RankSelector | None:
        """What "@l1:25%" in the glob's place means; None for globs."""
        return parse_selector(self.glob)

    def matches(self, layer: str) -> bool:
        """Return whether a layer is meant: by its exact name (which may hold brackets), or by the glob."""
        return layer == self.glob or fnmatchcase(layer, self.glob)


def run_options(arguments: Namespace, device: str = "cpu") -> RunOptions:
    """Return the options of a run."""
    data = data_spec(arguments)
    source = arguments.calibration_data
    return RunOptions(
        device=device,
        calibration_samples=arguments.calibration_samples,
        calibration_choice=arguments.calibration_choice,
        eval_samples=arguments.eval_samples,
        seed=arguments.seed,
        calibration_data=replace(data, source=source, split=None) if data is not None and source is not None else None,
        measure_latency=not getattr(arguments, "no_latency", False),
        latency_batch=getattr(arguments, "batch", 1),
        threads=getattr(arguments, "threads", 0),
        storage=getattr(arguments, "storage", INT8),
    )


@dataclass(frozen=True)
class RecipeChoices:
    """What was chosen about the recipe; checked without a model, applied to one."""

    start: Recipe
    """From --recipe and the options for the whole model."""
    first_last_bits: str | None
    settings: tuple[Setting, ...]
    encodings: str = ""
    """File of another tool's encodings, laid over the start; empty = none."""

    @property
    def needs_weights(self) -> bool:
        """Whether layers are chosen by the size of their weights."""
        return any(setting.ranks is not None for setting in self.settings)

    def apply(self, model: ModelInfo, weights: Mapping[str, SiteStatistics] | None = None) -> Recipe:
        """Return the recipe for a model.

        Args:
            model: Its layers are meant by the settings.
            weights: Statistics of the weights by site; needed where `needs_weights`.

        A --set becomes a rule before all others, the last one first, so that the later wins; where a layer's own value
        would win over the rule, that value is changed too.

        Raises:
            UserError: A --set matches no layer.
        """
        recipe = self.start
        if self.encodings:
            recipe, _ = read_for_model(self.encodings, model, recipe)
        if self.first_last_bits is not None:
            recipe = with_first_last_bits(recipe, model, self.first_last_bits)
        for setting in self.settings:
            ranks = setting.ranks
            if ranks is not None:
                recipe = recipe.with_layers(ranks.layers(model, weights or {}), **dict(setting.values))
                continue
            named = [layer.name for layer in model.layers if setting.matches(layer.name)]
            if not named:
                raise _no_such_layer(setting, model)
            own = [name for name, _ in recipe.overrides if setting.matches(name)]
            if setting.glob in named and not fnmatchcase(setting.glob, setting.glob):
                own.append(setting.glob)  # a name with brackets, which as a glob does not match itself
            recipe = replace(recipe, rules=(Rule(setting.glob, setting.values), *recipe.rules))
            recipe = recipe.with_layers(own, **dict(setting.values))
        return recipe


def recipe_of(choices: RecipeChoices, model: ModelInfo, asker: Asker) -> Recipe:
    """Return the recipe for a model; its weights are looked at where layers are chosen by their size.

    Raises:
        UserError: A --set matches no layer.
    """
    if not choices.needs_weights:
        return choices.apply(model)
    return choices.apply(model, {found.site: found for found in asker.ask(WeightStatistics(model.path))})


def recipe_choices(arguments: Namespace) -> RecipeChoices:
    """Read and check everything about the recipe that needs no model.

    Raises:
        UserError: A file is not a recipe, a value does not fit, or a refinement does not exist.
    """
    encodings = arguments.recipe or ""
    if not encodings or read_encodings(encodings) is None:
        encodings = ""
    recipe = read_recipe(arguments.recipe) if arguments.recipe is not None and not encodings else Recipe()
    both = arguments.calibration
    chosen = {
        "weight_bits": arguments.weight_bits,
        "activation_bits": arguments.activation_bits,
        "weight_granularity": arguments.granularity,
        "weight_calibration": arguments.weight_calibration or both,
        "activation_calibration": arguments.activation_calibration or both,
        "weight_symmetric": arguments.weight_symmetric,
        "activation_symmetric": arguments.activation_symmetric,
        "weight_format": arguments.weight_format,
        "activation_format": arguments.activation_format,
        "weight_outliers": arguments.outliers,
        "activation_dynamic": arguments.dynamic,
        "pruning": arguments.prune,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    for name, value in given.items():
        if name.endswith("_calibration") and str(value).strip().lower() == "manual":
            fix = f"Give the range of a layer: --set 'LAYER.{name.removesuffix('_calibration')}_clip=LOW,HIGH'"
            raise UserError("manual has no range for the whole model", "--calibration", fix)
    recipe = recipe.with_default(**given)
    if arguments.refine is not None:
        recipe = replace(recipe, refinements=_refinements(arguments.refine))
    if arguments.first_last_bits is not None:
        make_values(weight_bits=arguments.first_last_bits)
    return RecipeChoices(recipe, arguments.first_last_bits, tuple(map(_setting, arguments.set)), encodings)


def _refinements(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return () if names == ["none"] else check_refinements(names)


def _setting(text: str) -> Setting:
    match = ASSIGNMENT.fullmatch(text)
    if match is None:
        raise UserError(f"'{text}' is not of the form GLOB.FIELD=VALUE", "--set", "Write for example 'conv1.bits=4'")
    field = match["field"].lower().replace("-", "_")
    value = match["value"].strip()
    if field in BOTH_SIDES:
        values: dict[str, Any] = {f"{side}_{BOTH_SIDES[field]}": value for side in ("weight", "activation")}
    elif field in WEIGHT_ONLY:
        values = {f"weight_{field}": value}
    elif field == "dynamic":
        values = {"activation_dynamic": value}
    elif field in FIELDS:
        values = {field: value}
    else:
        near = difflib.get_close_matches(field, FIELDS, 1, 0.4)
        fix = f"Did you mean {near[0]}" if near else f"Choose one of {', '.join(FIELDS)}"
        raise UserError(f"there is no field '{match['field']}'", f"--set {text}", fix)
    for side in ("weight", "activation"):
        if f"{side}_clip" in values:
            values[f"{side}_calibration"] = "manual"
        elif values.get(f"{side}_calibration", "manual") != "manual":
            values[f"{side}_clip"] = None
    try:
        parse_selector(match["glob"])
        return Setting(text, match["glob"], make_values(**values))
    except UserError as error:
        raise UserError(error.what, f"--set {text}", error.fix) from None


def _no_such_layer(setting: Setting, model: ModelInfo) -> UserError:
    names = [layer.name for layer in model.layers]
    near = difflib.get_close_matches(setting.glob, names, 3, 0.5) or names[:3]
    fix = f"Choose for example {', '.join(near)}" if near else "The model has no layers"
    return UserError(f"no layer of the model matches '{setting.glob}'", f"--set {setting.text}", fix)
