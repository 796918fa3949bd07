"""Scales and zero points in the files of other tools: onnxruntime's TensorQuantOverrides and AIMET's encodings.

AIMET writes q = round(x / scale) - offset with unsigned codes 0 .. 2^bits - 1 and a negative offset (encoding format
0.6.1 and 1.0.0, "Encoding Format Specification" of its documentation); onnxruntime writes ONNX's scale and zero_point
with the name of the type (onnxruntime.quantization.tensor_quant_overrides).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding
from qstudio.core.errors import UserError
from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import FLOAT_BITS, Granularity

_TYPES = {
    (8, True): "QInt8",
    (8, False): "QUInt8",
    (16, True): "QInt16",
    (16, False): "QUInt16",
    (4, True): "QInt4",
    (4, False): "QUInt4",
}
"""(bits, signed) -> name in onnxruntime.quantization.QuantType."""


@dataclass(frozen=True, eq=False)
class SiteEncodings:
    """Affine encodings of a run by tensor; what stays float or is not affine is absent."""

    weights: dict[str, Encoding] = field(default_factory=dict)
    """By initializer."""
    activations: dict[str, Encoding] = field(default_factory=dict)
    """By tensor: each tensor at which values are rounded."""
    left_out: tuple[str, ...] = ()
    """Sites that are quantized in a way which has no scale and zero point."""


def bits_of(encoding: Encoding) -> int:
    """Return the width of the codes, 1 to 16; narrow ranges have as many bits as the full ones."""
    return max((encoding.qmax - encoding.qmin).bit_length(), 1)


def is_symmetric(encoding: Encoding) -> bool:
    """Return whether zero is the middle of the codes, for every scale; with one code more below it, it is not."""
    return encoding.qmin == -encoding.qmax and not np.any(encoding.zero_point)


# ---- writing


def as_aimet(encodings: SiteEncodings) -> dict[str, Any]:
    """Return AIMET's encoding format 1.0.0 as plain values for JSON.

    Raises:
        UserError: A weight is quantized in groups, which this version of the format has for pairs of axes only.
    """
    grouped = [name for name, encoding in encodings.weights.items() if encoding.group_size]
    if grouped:
        raise UserError(
            f"{len(grouped)} weights are quantized in groups, which AIMET's file has no place for",
            grouped[0],
            "Quantize per channel, or export the model itself",
        )
    return {
        "version": "1.0.0",
        "activation_encodings": [_aimet_entry(name, e) for name, e in encodings.activations.items()],
        "param_encodings": [_aimet_entry(name, e) for name, e in encodings.weights.items()],
        "excluded_layers": [],
        "producer": "QStudio",
    }


def _aimet_entry(name: str, encoding: Encoding) -> dict[str, Any]:
    bits, symmetric = bits_of(encoding), is_symmetric(encoding)
    # AIMET's codes begin at 0: a signed zero point moves by half of the codes, also where the lowest is not used.
    lowest = -(2 ** (bits - 1)) if encoding.qmin < 0 else 0
    offset = lowest - np.atleast_1d(np.asarray(encoding.zero_point, np.int64))
    scale = np.atleast_1d(np.asarray(encoding.scale, np.float64))
    return {
        "name": name,
        "dtype": "INT",
        "enc_type": "PER_CHANNEL" if encoding.axis is not None else "PER_TENSOR",
        "bw": bits,
        "is_sym": symmetric,
        "scale": scale.tolist(),
        "offset": offset.tolist(),
    }


def as_onnxruntime(encodings: SiteEncodings) -> dict[str, list[dict[str, Any]]]:
    """Return onnxruntime's TensorQuantOverrides as plain values for JSON; types by name ("QInt8").

    Raises:
        UserError: A width is none of 4, 8 and 16, or a weight is quantized in groups.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name, encoding in (*encodings.activations.items(), *encodings.weights.items()):
        signed = encoding.qmin < 0
        kind = _TYPES.get((bits_of(encoding), signed))
        if kind is None or encoding.group_size:
            what = "is quantized in groups" if encoding.group_size else f"has {bits_of(encoding)} bits"
            raise UserError(
                f"the tensor {what}, which onnxruntime's overrides cannot say",
                name,
                "Choose 4, 8 or 16 bits per tensor or channel, or export the model itself",
            )
        scales = np.atleast_1d(np.asarray(encoding.scale, np.float64)).tolist()
        zeros = np.broadcast_to(np.asarray(encoding.zero_point, np.int64), (len(scales),)).tolist()
        entries = [{"quant_type": kind, "scale": s, "zero_point": z} for s, z in zip(scales, zeros, strict=True)]
        if encoding.axis is not None:
            for entry in entries:
                entry["axis"] = encoding.axis
        found[name] = entries
    return found


# ---- reading


@dataclass(frozen=True)
class _Entry:
    """What a file says about one tensor."""

    bits: int
    symmetric: bool
    channels: int
    """0 = one scale for the tensor."""
    low: float
    high: float
    """Representable range of a single scale."""


def looks_like_encodings(data: Any) -> bool:
    """Return whether a parsed JSON file is one that `recipe_from` reads."""
    if not isinstance(data, dict) or not data:
        return False
    if "activation_encodings" in data or "param_encodings" in data:
        return True
    return all(isinstance(v, list) and v and isinstance(v[0], dict) and "quant_type" in v[0] for v in data.values())


def recipe_from(data: Any, layers: Iterable[LayerInfo], base: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe that a file of encodings describes, and notes on what it says that a recipe cannot.

    Widths, symmetry and single ranges are taken as they are. Where a weight has a scale for each channel, the channels
    are calibrated by min-max: a recipe has one clip for a layer. Tensors the file does not name stay float.

    Args:
        data: The parsed JSON: AIMET encodings 0.6.1 or 1.0.0, or TensorQuantOverrides.
        layers: Of the open model.
        base: Its refinements and rules stay; its overrides are replaced.

    Raises:
        UserError: It is no such file, an entry cannot be read, or it names no tensor of the model.
    """
    if not looks_like_encodings(data):
        raise UserError("these are no encodings of AIMET or onnxruntime", "encodings", "Choose another file")
    entries = _entries(data)
    recipe = Recipe(base.default, base.rules, (), base.refinements)
    known: set[str] = set()
    channelwise = 0
    for layer in layers:
        values: dict[str, Any] = {}
        if layer.weight is not None:
            entry = entries.get(layer.weight.id)
            values["weight_bits"] = entry.bits if entry else FLOAT_BITS
            if entry:
                known.add(layer.weight.id)
                values["weight_symmetric"] = entry.symmetric
                values["weight_granularity"] = Granularity("channel" if entry.channels else "tensor")
                if entry.channels:
                    values["weight_calibration"] = "minmax"
                    channelwise += 1
                else:
                    values |= {"weight_calibration": "manual", "weight_clip": (entry.low, entry.high)}
        if layer.activation is not None:
            names = (layer.activation.id, *layer.activation.members)
            name = next((name for name in names if name in entries), "")
            values["activation_bits"] = entries[name].bits if name else FLOAT_BITS
            if name:
                known.update(n for n in names if n in entries)
                values["activation_symmetric"] = entries[name].symmetric
                if layer.activation.fixed_range is None:
                    clip = (entries[name].low, entries[name].high)
                    values |= {"activation_calibration": "manual", "activation_clip": clip}
        if values:
            recipe = recipe.with_layers((layer.name,), **values)
    if not known:
        raise UserError("none of its tensors is in the open model", "encodings", "Open the model that it was made for")
    notes = []
    if channelwise:
        notes.append(f"{channelwise} weights have a scale for each channel: those are found again by min-max")
    strange = [name for name in entries if name not in known]
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        notes.append(f"not in this model or not quantized by it: {', '.join(strange[:3])}{more}")
    return recipe, tuple(notes)


def _entries(data: Mapping[str, Any]) -> dict[str, _Entry]:
    if "activation_encodings" not in data and "param_encodings" not in data:
        return {name: _read(name, _override, value) for name, value in data.items()}
    found: dict[str, _Entry] = {}
    for group in ("activation_encodings", "param_encodings"):
        part = data.get(group, {})
        if isinstance(part, dict):  # 0.6.1: {tensor: [{...} for each channel]}
            found |= {name: _read(name, _old_aimet, value) for name, value in part.items()}
        elif isinstance(part, list):
            for value in part:
                name = str(value.get("name", "")) if isinstance(value, dict) else ""
                found[name] = _read(name or group, _new_aimet, value)
        else:
            raise UserError("the entry is neither a list nor an object", group, "Choose another file")
    return {name: entry for name, entry in found.items() if entry is not None}


def _read(name: str, how: Any, value: Any) -> Any:
    try:
        entry = how(value)
        if entry is not None and not (1 <= entry.bits <= 16 and entry.low < entry.high and np.isfinite(entry.high)):
            raise ValueError(f"{entry.bits} bits, {entry.low} .. {entry.high}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(f"the entry cannot be read ({error})", name, "Write the file again") from error
    return entry


def _aimet(bits: int, symmetric: bool, scales: NDArray[np.float64], offsets: NDArray[np.float64], many: bool) -> _Entry:
    if not np.isfinite(scales).all() or not np.isfinite(offsets).all():
        raise ValueError("a scale or offset is not finite")
    low, high = float(scales[0] * offsets[0]), float(scales[0] * (offsets[0] + 2**bits - 1))
    if symmetric:
        low = -high
    return _Entry(bits, symmetric, len(scales) if many else 0, low, high)


def _new_aimet(value: Any) -> _Entry | None:
    if str(value.get("dtype", "INT")).upper() == "FLOAT":
        return None
    if value.get("enc_type", "PER_TENSOR") not in ("PER_TENSOR", "PER_CHANNEL"):
        raise ValueError(f"{value['enc_type']} is not known here")
    scales = np.asarray(value["scale"], np.float64).reshape(-1)
    offsets = np.asarray(value["offset"], np.float64).reshape(-1)
    many = value.get("enc_type") == "PER_CHANNEL"
    return _aimet(int(value["bw"]), bool(value.get("is_sym", False)), scales, offsets, many)


def _old_aimet(value: Any) -> _Entry | None:
    first = value[0]
    if str(first.get("dtype", "int")).lower() == "float":
        return None
    scales = np.asarray([float(entry["scale"]) for entry in value])
    offsets = np.asarray([float(entry["offset"]) for entry in value])
    symmetric = str(first.get("is_symmetric", "False")).lower() == "true"
    return _aimet(int(first["bitwidth"]), symmetric, scales, offsets, len(value) > 1)


def _override(value: Any) -> _Entry:
    first = value[0]
    matched = re.fullmatch(r"(?:QuantType\.)?Q(U?)Int(4|8|16)", str(first["quant_type"]))
    if matched is None:
        raise ValueError(f"no integer type: {first['quant_type']}")
    bits, signed = int(matched[2]), not matched[1]
    qmin, qmax = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if "scale" not in first:
        low, high = float(first["rmin"]), float(first["rmax"])
        return _Entry(bits, bool(first.get("symmetric", signed)), len(value) if "axis" in first else 0, low, high)
    scale, zero = float(np.ravel(first["scale"])[0]), int(np.ravel(first["zero_point"])[0])
    symmetric = signed and zero == 0
    high = scale * (qmax - zero)
    return _Entry(
        bits, symmetric, len(value) if "axis" in first else 0, -high if symmetric else scale * (qmin - zero), high
    )
