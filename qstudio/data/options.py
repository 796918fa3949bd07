"""How data is to be read: options of the command line and of a `.dataset.json` beside the data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from qstudio.core.errors import UserError
from qstudio.data.preprocess import AS_IS, NETWORK_LAYOUTS, STORED_LAYOUTS
from qstudio.data.reading import reading

SUFFIX = ".dataset.json"
LARGEST_SIDE = 8192
_LARGEST_FILE_BYTES = 2**20


@dataclass(frozen=True)
class ReadOptions:
    """What was chosen; None where nothing was."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    layout: tuple[str, str | None] | None = None
    """(stored, network): "nhwc" alone says how samples are stored, "nhwc>nhwc" also what the network gets."""
    split: str | None = None
    scale: float | None = None
    class_names: tuple[str, ...] | None = None

    def over(self, other: ReadOptions) -> ReadOptions:
        """Return these options, completed by `other` where nothing was chosen."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return ReadOptions(**{name: getattr(other, name) if value is None else value for name, value in mine.items()})


def parsed_options(values: Mapping[str, Any], where: str) -> ReadOptions:
    """Check options and bring them into one form.

    Args:
        values: Any of mean, std (a number or one per channel), size (a number or [height, width]), layout, split,
            scale, class_names. None stands for "not chosen".
        where: Prefix of the option in messages ("--" or "file.json: ").

    Raises:
        UserError: A value that cannot be meant.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return ReadOptions(
        mean=_numbers(given["mean"], where + "mean") if "mean" in given else None,
        std=_positive(given["std"], where + "std") if "std" in given else None,
        size=_size(given["size"], where + "size") if "size" in given else None,
        layout=_layout(given["layout"], where + "layout") if "layout" in given else None,
        split=_split(given["split"], where + "split") if "split" in given else None,
        scale=_positive([given["scale"]], where + "scale")[0] if "scale" in given else None,
        class_names=_names(given["class_names"], where + "class_names") if "class_names" in given else None,
    )


def described_options(data: Path) -> tuple[ReadOptions, tuple[str, ...]]:
    """Return the options of the `.dataset.json` that belongs to a file or folder of data, and warnings.

    The first of these that is there: NAME.dataset.json beside the data (NAME with or without its suffix); for a folder,
    the only *.dataset.json in it; the only *.dataset.json beside the data that is not named after other data there.

    Raises:
        UserError: The description is damaged.
    """
    own = [data.with_name(data.name + SUFFIX), data.with_name(data.name.split(".")[0] + SUFFIX)]
    beside = _general_descriptions(data.parent)
    inside = sorted(data.glob("*" + SUFFIX)) if data.is_dir() else []
    for candidates in ([path for path in own if path.is_file()][:1], inside, beside):
        if len(candidates) == 1:
            return _read_description(candidates[0])
        if candidates:
            names = ", ".join(path.name for path in candidates)
            return ReadOptions(), (f"none of {names} was used: name one of them after the data",)
    return ReadOptions(), ()


def _general_descriptions(folder: Path) -> list[Path]:
    """Return the descriptions in a folder that are named after no data in it."""
    names = [path.name for path in folder.iterdir() if not path.name.endswith(SUFFIX)]
    stems = {name.split(".")[0] for name in names} | set(names)
    return sorted(path for path in folder.glob("*" + SUFFIX) if path.name.removesuffix(SUFFIX) not in stems)


def _read_description(path: Path) -> tuple[ReadOptions, tuple[str, ...]]:
    with reading(path, "JSON"):
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise UserError("it is too large for a description", str(path), "Keep only its options")
        try:
            values = json.loads(path.read_text("utf-8"))
        except RecursionError as error:
            raise UserError("it is nested too deeply", str(path), "Keep only its options") from error
    if not isinstance(values, dict):
        raise UserError("it does not hold a JSON object", str(path), 'Write for example {"mean": [0.5], "std": [0.5]}')
    known = {field.name for field in fields(ReadOptions)}
    options = parsed_options({name: value for name, value in values.items() if name in known}, f"{path}: ")
    unknown = sorted(set(values) - known)
    notes = [f"{path.name}: {name} is not known and was ignored" for name in unknown]
    return options, tuple(notes)


def _numbers(value: Any, where: str) -> tuple[float, ...]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    good = [isinstance(item, (int, float)) and not isinstance(item, bool) and math.isfinite(item) for item in values]
    if not values or not all(good):
        raise UserError(
            f"{value!r} is not a number or one number per channel", where, "Give for example 0.485 0.456 0.406"
        )
    return tuple(float(item) for item in values)


def _positive(value: Any, where: str) -> tuple[float, ...]:
    values = _numbers(value, where)
    if min(values) <= 0:
        raise UserError(f"{min(values):g} is not above 0", where, "Give a number above 0")
    return values


def _size(value: Any, where: str) -> tuple[int, int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(values) == 1:
        values *= 2
    good = all(isinstance(item, int) and not isinstance(item, bool) and 0 < item <= LARGEST_SIDE for item in values)
    if len(values) != 2 or not good:
        raise UserError(f"{value!r} is not a size in pixels", where, "Give one number, or height and width")
    return values[0], values[1]


def _layout(value: Any, where: str) -> tuple[str, str | None]:
    stored, _, network = str(value).lower().replace(" ", "").partition(">")
    stored = AS_IS if stored in ("asis", "as_is", "as-is") else stored
    if stored not in (*STORED_LAYOUTS, AS_IS) or (network and network not in NETWORK_LAYOUTS):
        raise UserError(
            f"{value!r} is not a layout",
            where,
            "Give how images are stored (nhwc, nchw, nhw, as-is), and >nhwc where the network wants channels last",
        )
    return stored, network or None


def _split(value: Any, where: str) -> str:
    if value not in ("train", "test"):
        raise UserError(f"{value!r} is not a split", where, "Choose train or test")
    return str(value)


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError("it is not a list of names", where, "Write one name per class")
    return tuple(value)
