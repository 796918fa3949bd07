"""What can be chosen for a layer, the words for it, and the edits themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qstudio.core.calibration import CALIBRATORS
from qstudio.core.errors import UserError
from qstudio.core.formats import FORMATS, format_of, title_of
from qstudio.core.model_info import LayerInfo
from qstudio.core.pruning import METHODS, PRUNED_OPERATORS, parse_pruning
from qstudio.core.recipe import FIELDS
from qstudio.core.scheme import FLOAT_BITS, Granularity, format_bits
from qstudio.session.options import Notice
from qstudio.session.session import Session
from qstudio.ui.text import tr

BITS: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)
GRANULARITIES: tuple[Granularity, ...] = (
    Granularity("tensor"),
    Granularity("channel"),
    Granularity("group", 16),
    Granularity("group", 32),
    Granularity("group", 64),
    Granularity("group", 128),
)
CALIBRATIONS: tuple[str, ...] = (
    "minmax",
    "percentile:99.9",
    "percentile:99.99",
    "percentile:99.999",
    "percentile:99.9999",
    "mse",
    "entropy",
)

FIELD_TITLES: dict[str, str] = {
    "weight_bits": "weight bits",
    "weight_symmetric": "weight symmetry",
    "weight_granularity": "weight granularity",
    "weight_calibration": "weight calibration",
    "weight_clip": "weight clip range",
    "activation_bits": "activation bits",
    "activation_symmetric": "activation symmetry",
    "activation_calibration": "activation calibration",
    "activation_clip": "activation clip range",
    "weight_format": "weight format",
    "weight_outliers": "weight outliers",
    "activation_format": "activation format",
    "activation_dynamic": "activation scale",
    "pruning": "pruning",
}

OUTLIERS: tuple[float, ...] = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Percent of a weight kept in float that is offered with one click."""

PRUNINGS: tuple[str, ...] = (
    "none",
    *(
        f"{method.id}:{percent}{scope}"
        for method in METHODS.values()
        for percent in ((10, 20, 30, 50) if method.structured else (30, 50, 70, 90))
        for scope in (("", ":global") if percent in (30, 50) else ("",))
    ),
)
"""What is offered with one click; any other share can be written in a recipe or on the command line."""


@dataclass(frozen=True)
class Choice:
    """One value of a field and the words for it."""

    value: Any
    text: str


def choices(field: str) -> tuple[Choice, ...]:
    """Return what a field can be set to with one click."""
    if field.endswith("_bits"):
        return tuple(Choice(bits, format_bits(bits)) for bits in BITS)
    if field.endswith("_symmetric"):
        return (Choice(True, value_text(field, True)), Choice(False, value_text(field, False)))
    if field.endswith("_granularity"):
        return tuple(Choice(value, value_text(field, value)) for value in GRANULARITIES)
    if field.endswith("_format"):
        side = field.partition("_")[0]
        return tuple(Choice(name, value_text(field, name)) for name, item in FORMATS.items() if item.takes(side))
    if field.endswith("_dynamic"):
        return (Choice(False, value_text(field, False)), Choice(True, value_text(field, True)))
    if field == "weight_outliers":
        return tuple(Choice(value, value_text(field, value)) for value in OUTLIERS)
    if field == "pruning":
        return tuple(Choice(value, value_text(field, value)) for value in PRUNINGS)
    return tuple(Choice(value, value_text(field, value)) for value in CALIBRATIONS)


def value_text(field: str, value: Any) -> str:
    """Return a field's value in the words of the window."""
    if field.endswith("_bits"):
        return format_bits(value)
    if field.endswith("_symmetric"):
        return tr("symmetric") if value else tr("asymmetric")
    if field.endswith("_format"):
        return tr(title_of(str(value)))
    if field.endswith("_dynamic"):
        return tr("dynamic") if value else tr("static")
    if field == "weight_outliers":
        return f"{value:g} %"
    if field.endswith("_granularity"):
        return tr("group of") + f" {value.group_size}" if value.kind == "group" else tr(value.kind)
    if field.endswith("_calibration"):
        name, _, parameter = str(value).partition(":")
        title = CALIBRATORS[name].title if name in CALIBRATORS else name
        return f"{title} {parameter}" if parameter else title
    if field == "pruning" and (asked := parse_pruning(str(value))) is not None:
        scope = ", " + tr("all layers") if asked.across_layers else ""
        return f"{tr(METHODS[asked.method].title)} {asked.percent:g} %{scope}"
    return str(value)


def explained(field: str, value: Any) -> str:
    """Return what a value means where its name does not say it: formula, use, source; else empty."""
    asked = parse_pruning(str(value)) if field == "pruning" else None
    if asked is None:
        return ""
    method = METHODS[asked.method]
    return f"{tr(method.summary)}\n{method.formula}\n{method.source}"


def not_applicable(layer: LayerInfo, field: str) -> str:
    """Return why a field does not apply to a layer, in words; empty when it does."""
    if layer.unsupported:
        return layer.unsupported
    if field == "pruning" and layer.weight is not None and layer.op_type not in PRUNED_OPERATORS:
        return tr("Only these are pruned:") + " " + ", ".join(PRUNED_OPERATORS)
    if field.startswith("weight") or field == "pruning":
        return "" if layer.weight is not None else tr("This layer has no weights")
    if layer.activation is None:
        if layer.shares_with:
            return tr("Shares the encoding of") + f" {layer.shares_with}"
        return tr("The output of this layer is not quantized")
    if layer.activation.fixed_range is not None and not field.endswith("_bits"):
        low, high = layer.activation.fixed_range
        return tr("Mathematics fixes this range:") + f" {low:g} .. {high:g}"
    return ""


def targets(session: Session, layer: str) -> tuple[str, ...]:
    """Return the layers an edit on `layer` is meant for: the whole selection when the layer is part of it."""
    return session.selection if layer in session.selection else (layer,)


def set_field(session: Session, layers: tuple[str, ...], field: str, value: Any) -> bool:
    """Set a field on every one of the layers it applies to, as one undoable step; return whether it was possible.

    What does not fit is told as a notice.
    """
    model = session.model
    if model is None:
        return False
    fitting = tuple(name for name in layers if not not_applicable(model.layer(name), field))
    if not fitting:
        reason = not_applicable(model.layer(layers[0]), field) if layers else tr("Select a layer first")
        session.notice_posted.emit(Notice("info", f"{tr('Nothing was changed')}: {reason}."))
        return False
    values = {field: value}
    if field.endswith("_format"):
        bits = f"{field.partition('_')[0]}_bits"
        if any(getattr(session.settings(name), bits) == FLOAT_BITS for name in fitting):
            values[bits] = format_of(str(value))[0].width(8)  # choosing a format means to leave float
    try:
        session.set_layers(edit_label(field, value, fitting), fitting, **values)
    except UserError as error:
        session.notice_posted.emit(Notice("warning", error.sentence()))
        return False
    return True


def edit_label(field: str, value: Any, layers: tuple[str, ...]) -> str:
    """Return the name of an edit for the undo menu."""
    where = layers[0] if len(layers) == 1 else f"{len(layers)} {tr('layers')}"
    return f"{tr(FIELD_TITLES[field])} {value_text(field, value)}: {where}"


def set_bits(session: Session, layers: tuple[str, ...], bits: int, activation: bool = False) -> bool:
    """Set the bits of the weights (of the output where a layer has none), or of the outputs of all layers."""
    model = session.model
    if model is None or not layers:
        return False
    if activation:
        return set_field(session, layers, "activation_bits", bits)
    weighted = tuple(name for name in layers if model.layer(name).weight is not None)
    return set_field(session, weighted or layers, "weight_bits" if weighted else "activation_bits", bits)


def set_float(session: Session, layers: tuple[str, ...]) -> None:
    """Leave layers in float, weights and outputs, as one undoable step."""
    if session.model is None or not layers:
        return
    where = layers[0] if len(layers) == 1 else f"{len(layers)} {tr('layers')}"
    recipe = session.recipe
    for field in ("weight_bits", "activation_bits"):
        fitting = tuple(name for name in layers if not not_applicable(session.model.layer(name), field))
        recipe = recipe.with_layers(fitting, **{field: FLOAT_BITS})
    session.edit(f"{tr('float')}: {where}", recipe)


def reset(session: Session, layers: tuple[str, ...], names: tuple[str, ...] = FIELDS) -> None:
    """Let layers inherit again."""
    if layers:
        session.reset_layers(layers, names)
