"""The recipe: all schemes of a model, as a frozen value."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any

from qstudio.core.calibration import check_calibration
from qstudio.core.errors import UserError
from qstudio.core.formats import check_format, format_of
from qstudio.core.pruning import check_pruning
from qstudio.core.refinement import check_refinements as check_refinements
from qstudio.core.scheme import FLOAT_BITS, Granularity, Scheme, format_bits, parse_bits

RECIPE_VERSION = 1


@dataclass(frozen=True)
class LayerSettings:
    """Everything that can be chosen for one layer.

    The activation fields govern the tensor that the layer puts out, after a fused Relu or Clip.
    """

    weight_bits: int = 8
    weight_symmetric: bool = True
    weight_granularity: Granularity = Granularity("channel")
    weight_calibration: str = "minmax"
    weight_clip: tuple[float, float] | None = None
    activation_bits: int = 8
    activation_symmetric: bool = False
    activation_calibration: str = "mse"
    activation_clip: tuple[float, float] | None = None
    weight_format: str = "int"
    weight_outliers: float = 0.0
    """Percent of the weight's values, the largest by magnitude, that stay float."""
    activation_format: str = "int"
    activation_dynamic: bool = False
    """Whether the activation's range is taken from the values at run time."""
    pruning: str = "none"
    """What is removed from the layer before it is quantized; see `qstudio.core.pruning`."""

    def weight_scheme(self) -> Scheme:
        """Return the scheme of the layer's weight."""
        return self._weight_scheme

    @cached_property  # settings are shared by layers and asked at every edit
    def _weight_scheme(self) -> Scheme:
        return Scheme(
            "weight",
            _width(self.weight_bits, self.weight_format),
            self.weight_symmetric,
            self.weight_granularity,
            self.weight_calibration,
            self.weight_clip,
            self.weight_format,
            self.weight_outliers,
        )

    def activation_scheme(self) -> Scheme:
        """Return the scheme of the tensor the layer puts out (always per tensor)."""
        return self._activation_scheme

    @cached_property
    def _activation_scheme(self) -> Scheme:
        return Scheme(
            "activation",
            _width(self.activation_bits, self.activation_format),
            self.activation_symmetric,
            Granularity("tensor"),
            self.activation_calibration,
            self.activation_clip,
            self.activation_format,
            dynamic=self.activation_dynamic,
        )


def _width(bits: int, number_format: str) -> int:
    """Return the width that a format takes: a fixed one whatever was asked, float where nothing is to be rounded."""
    return bits if bits == FLOAT_BITS else format_of(number_format)[0].width(bits)


FIELDS: tuple[str, ...] = tuple(f.name for f in fields(LayerSettings))
"""Names of all per-layer fields, in order."""

Values = tuple[tuple[str, Any], ...]
"""Field values that differ from what is inherited, sorted by field name; hashable."""


def make_values(**values: Any) -> Values:
    """Check field names and values and return them in canonical order.

    Raises:
        UserError: A field does not exist or a value does not fit it.
    """
    return tuple(sorted((name, check_field(name, value)) for name, value in values.items()))


def check_field(name: str, value: Any) -> Any:
    """Return `value` in the type of the field `name`; texts from files and the command line are read.

    Raises:
        UserError: The field does not exist or the value does not fit it.
    """
    if name not in FIELDS:
        raise UserError(f"there is no field '{name}'", "recipe", f"Choose one of {', '.join(FIELDS)}")
    try:
        if name.endswith("_bits"):
            return parse_bits(value)
        if name.endswith("_format"):
            return check_format(str(value), name.partition("_")[0])
        if name == "weight_outliers":
            return _parse_percent(value)
        if name == "pruning":
            return check_pruning(str(value))
        if name.endswith(("_symmetric", "_dynamic")):
            return _parse_flag(value)
        if name.endswith("_granularity"):
            return value if isinstance(value, Granularity) else Granularity.parse(str(value))
        if name.endswith("_clip"):
            return _parse_clip(value)
        return check_calibration(str(value))
    except UserError as error:
        raise UserError(error.what, name, error.fix) from None


def _parse_flag(value: Any) -> bool:
    text = str(value).lower()
    if text in ("true", "yes", "1", "symmetric", "dynamic"):
        return True
    if text in ("false", "no", "0", "asymmetric", "static"):
        return False
    raise UserError(f"'{value}' is neither true nor false", "", "Write true or false")


MOST_OUTLIERS = 50.0
"""Percent of a weight that may stay float; beyond it the layer is a float layer."""


def _parse_percent(value: Any) -> float:
    try:
        percent = float(str(value).rstrip("% "))
    except ValueError:
        percent = math.nan
    if not 0 <= percent <= MOST_OUTLIERS:
        raise UserError(f"'{value}' is not a share of outliers", "", f"Choose 0 to {MOST_OUTLIERS:g} percent")
    return percent


def _parse_clip(value: Any) -> tuple[float, float] | None:
    if value is None or value in ("", "none"):
        return None
    parts = value.replace(":", ",").split(",") if isinstance(value, str) else list(value)
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise UserError(f"'{value}' is not a range", "", "Write two numbers: LOW,HIGH") from None
    if not (math.isfinite(low) and math.isfinite(high)) or low > 0 or high < 0 or low == high:
        raise UserError(f"the range {low:g}..{high:g} does not hold zero", "", "Choose LOW <= 0 <= HIGH, not both zero")
    return (low, high)


@dataclass(frozen=True)
class Rule:
    """Field values for every layer whose name matches a glob (fnmatch, case kept)."""

    glob: str
    values: Values


@dataclass(frozen=True)
class ResolvedLayer:
    """A layer's settings with the origin of each field."""

    settings: LayerSettings
    sources: tuple[tuple[str, str], ...]
    """(field, origin) pairs; origin is "set", "rule GLOB" or "default"."""

    def source(self, name: str) -> str:
        """Return where the field's value comes from."""
        return dict(self.sources)[name]


@dataclass(frozen=True)
class Recipe:
    """All schemes of a model: default, then rules, then single layers.

    For each field on its own: a value set for the exact layer name wins, then the first rule that matches and sets
    it, then the default.
    """

    default: LayerSettings = LayerSettings()
    rules: tuple[Rule, ...] = ()
    overrides: tuple[tuple[str, Values], ...] = ()
    """(layer name, values), sorted by name; no empty values."""
    refinements: tuple[str, ...] = ("fold",)
    """PTQ refinements in the order they run."""
    _index: dict[str, Values] = field(default_factory=dict, init=False, repr=False, compare=False)
    _sha256: str = field(default="", init=False, repr=False, compare=False)
    _settings: dict[str, LayerSettings] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `settings` has put together: the window asks for every layer again and again."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", dict(self.overrides))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be put together again: recipes cross the pipe."""
        return {**self.__dict__, "_settings": {}}

    def resolve(self, layer: str) -> ResolvedLayer:
        """Return the settings of a layer and where each field comes from."""
        values: dict[str, Any] = {}
        sources = dict.fromkeys(FIELDS, "default")
        for name, value in self._index.get(layer, ()):
            values[name], sources[name] = value, "set"
        for rule in self.rules:
            if fnmatchcase(layer, rule.glob):
                for name, value in rule.values:
                    if name not in values:
                        values[name], sources[name] = value, f"rule {rule.glob}"
        return ResolvedLayer(replace(self.default, **values), tuple(sources.items()))

    def settings(self, layer: str) -> LayerSettings:
        """Return the settings of a layer."""
        found = self._settings.get(layer)
        if found is None:
            if any(fnmatchcase(layer, rule.glob) for rule in self.rules):
                found = self.resolve(layer).settings
            else:
                found = _with_values(self.default, self._index.get(layer, ()))
            self._settings[layer] = found
        return found

    def with_layers(self, layers: tuple[str, ...] | list[str], **values: Any) -> Recipe:
        """Return a recipe in which the named layers have the given field values set.

        Setting a clip also sets the calibration to "manual"; setting another calibration removes the clip.
        """
        if not layers or not values:
            return self
        index = dict(self._index)
        for side in ("weight", "activation"):
            if values.get(f"{side}_clip") is not None:
                values.setdefault(f"{side}_calibration", "manual")
            elif f"{side}_calibration" in values and values[f"{side}_calibration"] != "manual":
                values[f"{side}_clip"] = None
        checked = make_values(**values)
        for layer in layers:
            index[layer] = tuple(sorted((dict(index.get(layer, ())) | dict(checked)).items()))
        return replace(self, overrides=tuple(sorted(index.items())))

    def without(self, layers: tuple[str, ...] | list[str], names: tuple[str, ...] = FIELDS) -> Recipe:
        """Return a recipe in which the named fields of the named layers are inherited again."""
        index = dict(self._index)
        for layer in layers:
            kept = tuple((name, value) for name, value in index.pop(layer, ()) if name not in names)
            if kept:
                index[layer] = kept
        return replace(self, overrides=tuple(sorted(index.items())))

    def with_default(self, **values: Any) -> Recipe:
        """Return a recipe with other default values."""
        return replace(self, default=replace(self.default, **dict(make_values(**values))))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file; `from_json` reads them back."""
        return {
            "qstudio_recipe": RECIPE_VERSION,
            "default": {name: _plain(getattr(self.default, name)) for name in FIELDS},
            "rules": [{"glob": rule.glob, **{n: _plain(v) for n, v in rule.values}} for rule in self.rules],
            "layers": {layer: {n: _plain(v) for n, v in values} for layer, values in self.overrides},
            "refinements": list(self.refinements),
        }

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """Read what `to_json` wrote.

        Raises:
            UserError: The data is not a recipe, is of a newer version, or has a field or value that does not exist.
        """
        if not isinstance(data, dict) or "qstudio_recipe" not in data:
            raise UserError("this is not a QStudio recipe", "recipe", "Choose a file saved with Save recipe")
        if data["qstudio_recipe"] != RECIPE_VERSION:
            raise UserError(f"recipe version {data['qstudio_recipe']} is not known", "recipe", "Update QStudio")
        try:
            default = replace(LayerSettings(), **dict(make_values(**data.get("default", {}))))
            rules = tuple(
                Rule(str(rule["glob"]), make_values(**{n: v for n, v in rule.items() if n != "glob"}))
                for rule in data.get("rules", [])
            )
            layers = tuple(
                sorted(
                    (str(layer), make_values(**values)) for layer, values in data.get("layers", {}).items() if values
                )
            )
            refinements = check_refinements(data.get("refinements", ["fold"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"the recipe is malformed ({error})", "recipe", "Save it again from QStudio") from None
        return cls(default, rules, layers, refinements)

    def sha256(self) -> str:
        """Return the recipe's content hash (of its canonical JSON), 64 hex digits."""
        if not self._sha256:
            text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
            object.__setattr__(self, "_sha256", hashlib.sha256(text.encode()).hexdigest())
        return self._sha256


@lru_cache(maxsize=4096)
def _with_values(default: LayerSettings, values: Values) -> LayerSettings:
    """Return settings with some values set; most layers of a recipe share theirs."""
    return replace(default, **dict(values)) if values else default


def _plain(value: Any) -> Any:
    if isinstance(value, Granularity):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, int) and not isinstance(value, bool) and value == FLOAT_BITS:
        return format_bits(value)
    return value
