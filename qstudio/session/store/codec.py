"""Frozen dataclasses as JSON and back, led by their type hints: no pickle, and nothing in the data names code."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Callable, MutableMapping
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe

T = TypeVar("T")

Recipes = MutableMapping[str, Recipe]
"""Recipes by their hash: values hold the hash only, as many runs share one recipe."""

MOST_JSON_CHARACTERS = 64 * 1024 * 1024
"""Longer texts are refused: a run of a 5,000-layer network takes about 2 MB."""

Encode = Callable[[Any, Recipes], Any]
Decode = Callable[[Any, Recipes, str], Any]

_NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def dumps(kind: Any, value: Any, recipes: Recipes) -> str:
    """Return a value of type `kind` as JSON; its recipes are put into `recipes` and named by their hash."""
    return json.dumps(_encoder(kind)(value, recipes), separators=(",", ":"), allow_nan=False)


def loads(kind: type[T], text: object, recipes: Recipes, where: str) -> T:
    """Read what `dumps` wrote.

    Args:
        kind: The type that was written.
        text: The JSON.
        recipes: The recipes that the value names.
        where: What is read, for the error's sentence.

    Raises:
        UserError: It is not such a value, or a newer version wrote it (a field that is not known).
    """
    value: T = decode(kind, parse(text, where), recipes, where)
    return value


def parse(text: object, where: str) -> Any:
    """Read JSON of bounded length.

    Raises:
        UserError: It is not JSON, or too long.
    """
    if not isinstance(text, str):
        raise _damaged(f"a text was expected, not {type(text).__name__}", where)
    if len(text) > MOST_JSON_CHARACTERS:
        raise _damaged(f"a text has {len(text):,} characters", where)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged("a text is not JSON", where) from None


def encode(kind: Any, value: Any, recipes: Recipes) -> Any:
    """Return a value of type `kind` as plain JSON values."""
    return _encoder(kind)(value, recipes)


def decode(kind: Any, data: Any, recipes: Recipes, where: str) -> Any:
    """Return the value of type `kind` that plain JSON values stand for.

    Raises:
        UserError: They do not stand for one.
    """
    try:
        return _decoder(kind)(data, recipes, where)
    except RecursionError:
        raise _damaged("it is nested too deeply", where) from None


def _damaged(what: str, where: str) -> UserError:
    return UserError(f"it cannot be read ({what})", where, "Choose another file, or an older copy of it")


def _newer(name: str, where: str) -> UserError:
    return UserError(f"a newer version of QStudio wrote it ('{name}' is not known here)", where, "Update QStudio")


# ---- by type


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Return (name, type, has a default) of every field that the constructor takes."""
    hints = typing.get_type_hints(kind)
    return tuple(
        (
            field.name,
            hints[field.name],
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
        if field.init
    )


def _is_ours(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


@cache
def _encoder(kind: Any) -> Encode:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Recipe:
        return _encode_recipe
    if _is_ours(kind):
        parts = tuple((name, _encoder(hint)) for name, hint, _ in _fields(kind))
        return lambda value, recipes: {name: write(getattr(value, name), recipes) for name, write in parts}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return lambda value, _recipes: value.name
    if origin in (typing.Union, types.UnionType):
        return _union_encoder(inner)
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        each = _encoder(inner[0])
        return lambda value, recipes: [each(item, recipes) for item in value]
    if origin is tuple:
        writers = tuple(_encoder(part) for part in inner)
        return lambda value, recipes: [write(item, recipes) for write, item in zip(writers, value, strict=True)]
    if origin is np.ndarray:
        return lambda value, _recipes: _encode_array(value)
    if origin is dict:
        entry = _encoder(inner[1])
        return lambda value, recipes: {str(key): entry(item, recipes) for key, item in value.items()}
    return _encode_plain


def _encode_plain(value: Any, _recipes: Recipes) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def narrow(array: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers of 0 or more in the smallest type that holds them; other arrays as they are."""
    if array.dtype.kind not in "iu" or array.min(initial=0) < 0:
        return array
    most = int(array.max(initial=0))
    return next((array.astype(kind) for kind in _UNSIGNED if most <= np.iinfo(kind).max), array)


_UNSIGNED = (np.uint8, np.uint16, np.uint32)

DTYPES = frozenset({"bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float32", "float64"})
"""Of arrays in a file: numbers only, nothing that could be an object."""


def _encode_array(value: NDArray[Any]) -> dict[str, Any]:
    array = np.ascontiguousarray(narrow(value))
    text = base64.b64encode(array.tobytes()).decode()
    return {"type": str(array.dtype), "shape": list(array.shape), "base64": text}


def _encode_recipe(value: Recipe, recipes: Recipes) -> str:
    digest = value.sha256()
    recipes.setdefault(digest, value)
    return digest


def _union_encoder(kinds: tuple[Any, ...]) -> Encode:
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        only = _encoder(kinds[0])
        return lambda value, recipes: None if value is None else only(value, recipes)
    named = {kind: (kind.__name__, _encoder(kind)) for kind in kinds if _is_ours(kind)}

    def write(value: Any, recipes: Recipes) -> Any:
        if type(value) in named:
            name, encoded = named[type(value)]
            return {"is": name, "value": encoded(value, recipes)}
        return _encode_plain(value, recipes)

    return write


@cache
def _decoder(kind: Any) -> Decode:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Recipe:
        return _decode_recipe
    if _is_ours(kind):
        return _dataclass_decoder(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum_decoder(kind)
    if origin in (typing.Union, types.UnionType):
        return _union_decoder(inner)
    if origin is typing.Literal:
        return _choice_decoder(inner)
    if origin is tuple:
        return _tuple_decoder(inner)
    if origin is np.ndarray:
        return _array_decoder(typing.get_args(inner[1]))
    if origin is dict:
        return _dict_decoder(inner[1])
    return _plain_decoder(kind)


def _decode_recipe(data: Any, recipes: Recipes, where: str) -> Recipe:
    if not isinstance(data, str) or data not in recipes:
        raise _damaged("a recipe is missing", where)
    return recipes[data]


def _dataclass_decoder(kind: Any) -> Decode:
    readers = {name: _decoder(hint) for name, hint, _ in _fields(kind)}
    needed = tuple(name for name, _, has_default in _fields(kind) if not has_default)

    def read(data: Any, recipes: Recipes, where: str) -> Any:
        if not isinstance(data, dict):
            raise _damaged(f"{kind.__name__} was expected, not {type(data).__name__}", where)
        for name in data:
            if name not in readers:
                raise _newer(f"{kind.__name__}.{name}"[:80], where)
        for name in needed:
            if name not in data:
                raise _damaged(f"{kind.__name__} has no {name}", where)
        values = {name: readers[name](item, recipes, where) for name, item in data.items()}
        try:
            return kind(**values)
        except UserError as error:
            raise _damaged(error.sentence().rstrip("."), where) from None

    return read


def _enum_decoder(kind: type[enum.Enum]) -> Decode:
    names = dict(kind.__members__)

    def read(data: Any, _recipes: Recipes, where: str) -> Any:
        if not isinstance(data, str):
            raise _damaged(f"{kind.__name__} was expected, not {type(data).__name__}", where)
        if data not in names:
            raise _newer(data[:80], where)
        return names[data]

    return read


def _union_decoder(kinds: tuple[Any, ...]) -> Decode:
    optional = type(None) in kinds
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        only = _decoder(kinds[0])
        return lambda data, recipes, where: None if data is None and optional else only(data, recipes, where)
    named = {kind.__name__: _decoder(kind) for kind in kinds if _is_ours(kind)}
    plain = tuple(_decoder(kind) for kind in kinds if not _is_ours(kind))

    def read(data: Any, recipes: Recipes, where: str) -> Any:
        if data is None and optional:
            return None
        if isinstance(data, dict) and set(data) == {"is", "value"}:
            if not isinstance(data["is"], str) or data["is"] not in named:
                raise _newer(str(data["is"])[:80], where)
            return named[data["is"]](data["value"], recipes, where)
        for reader in plain:
            try:
                return reader(data, recipes, where)
            except UserError:
                continue
        raise _damaged(f"{type(data).__name__} was not expected", where)

    return read


def _choice_decoder(choices: tuple[Any, ...]) -> Decode:
    def read(data: Any, _recipes: Recipes, where: str) -> Any:
        if not isinstance(data, str | int) or data not in choices:
            raise _newer(str(data)[:80], where)
        return data

    return read


def _tuple_decoder(inner: tuple[Any, ...]) -> Decode:
    if len(inner) == 2 and inner[1] is Ellipsis:
        each = _decoder(inner[0])

        def read_all(data: Any, recipes: Recipes, where: str) -> Any:
            if not isinstance(data, list):
                raise _damaged(f"a list was expected, not {type(data).__name__}", where)
            return tuple(each(item, recipes, where) for item in data)

        return read_all
    readers = tuple(_decoder(part) for part in inner)

    def read(data: Any, recipes: Recipes, where: str) -> Any:
        if not isinstance(data, list) or len(data) != len(readers):
            raise _damaged(f"a list of {len(readers)} was expected", where)
        return tuple(reader(item, recipes, where) for reader, item in zip(readers, data, strict=True))

    return read


def _dict_decoder(kind: Any) -> Decode:
    entry = _decoder(kind)

    def read(data: Any, recipes: Recipes, where: str) -> Any:
        if not isinstance(data, dict):
            raise _damaged(f"names with values were expected, not {type(data).__name__}", where)
        return {key: entry(item, recipes, where) for key, item in data.items()}

    return read


def _array_decoder(scalar: tuple[Any, ...]) -> Decode:
    """Return the reader of arrays of a scalar type; where the hint names none, of the type they were written in."""
    wanted = scalar[0] if scalar and isinstance(scalar[0], type) and issubclass(scalar[0], np.generic) else None

    def read(data: Any, _recipes: Recipes, where: str) -> Any:
        if not isinstance(data, dict) or set(data) != {"type", "shape", "base64"} or data["type"] not in DTYPES:
            raise _damaged("an array was expected", where)
        try:
            raw = base64.b64decode(data["base64"], validate=True)
            array = np.frombuffer(raw, data["type"]).reshape([int(size) for size in data["shape"]])
        except (binascii.Error, TypeError, ValueError) as error:
            raise _damaged(f"an array is damaged: {error}", where) from None
        return array.astype(wanted) if wanted is not None else array

    return read


def _plain_decoder(kind: Any) -> Decode:
    def read(data: Any, _recipes: Recipes, where: str) -> Any:
        if kind is float and isinstance(data, str) and data in _NONFINITE:
            return _NONFINITE[data]
        wanted = (float, int) if kind is float else kind
        if not isinstance(data, wanted) or (isinstance(data, bool) and kind is not bool):
            raise _damaged(f"{kind.__name__} was expected, not {type(data).__name__}", where)
        return data

    return read
