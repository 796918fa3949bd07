"""Read arrays out of a pickle without running any of its code.

A pickle is a program; the usual reader calls whatever functions it names. This one knows the few names that plain
numpy arrays are stored under, answers them with inert stand-ins, and refuses every other name. numpy sees only the
finished bytes, shape and type, after they were checked.
"""

from __future__ import annotations

import io
import math

# The pure Python reader: the C one takes memory for whatever index a hostile pickle names in its memo.
from pickle import BUILD, UnpicklingError, _Unpickler
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError

_TYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "b1"}


class _Type:
    """Stands in for numpy.dtype: remembers its name and byte order."""

    name = ""
    order = "|"

    def __init__(self, *arguments: Any) -> None:
        self.name = _text(arguments[0]) if arguments else ""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = _text(state[1])

    def dtype(self) -> np.dtype[Any]:
        """Return the type if it is one of plain numbers (UnpicklingError otherwise)."""
        if self.name not in _TYPES or self.order not in ("|", "<", ">", "="):
            raise UnpicklingError(f"an array of type {self.name!r}")
        return np.dtype(self.order.replace("|", "=") + self.name)


class _Array:
    """Stands in for numpy.ndarray: remembers its state."""

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        """Ignore the subtype, shape and type that `_reconstruct` is given; the state says them again."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        """Return the array (UnpicklingError when bytes, shape and type do not fit together)."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise UnpicklingError("an array without content")
        _, shape, kind, fortran_order, content = self.state
        if isinstance(content, str):
            content = content.encode("latin-1")
        if not isinstance(kind, _Type) or not isinstance(content, bytes) or not isinstance(shape, tuple):
            raise UnpicklingError("an array of objects")
        dtype = kind.dtype()
        if not all(type(length) is int and length >= 0 for length in shape):
            raise UnpicklingError("an array with an impossible shape")
        if math.prod(shape) * dtype.itemsize != len(content):
            raise UnpicklingError("an array whose bytes do not fit its shape")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _encode(text: Any, encoding: Any = "latin-1") -> bytes:
    """Stand in for _codecs.encode, by which Python 3 writes bytes in protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnpicklingError("an unexpected encoding")
    return text.encode("latin-1")


def _rebuild(*arguments: Any) -> _Array:
    """Stand in for numpy's _reconstruct."""
    return _Array()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """Stand in for numpy's _frombuffer, by which protocol 5 writes arrays."""
    array = _Array()
    array.state = (1, shape, kind, order == "F", bytes(content) if isinstance(content, bytearray) else content)
    return array


def _no_bytes(*arguments: Any) -> bytes:
    """Stand in for bytes, by which protocol 2 writes empty ones."""
    return b""


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _rebuild,
    ("numpy._core.multiarray", "_reconstruct"): _rebuild,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


class _ArrayUnpickler(_Unpickler):
    """An unpickler that knows arrays and nothing else."""

    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        """Answer the names of array storage with stand-ins and refuse all others."""
        known = _KNOWN.get((module, name))
        if known is None:
            raise UnpicklingError(f"the name {module}.{name}")
        return known

    def get_extension(self, code: int) -> None:
        """Refuse what is named by number in copyreg's registry, which other libraries may have filled."""
        raise UnpicklingError(f"the registered name {code}")

    def load_build(self) -> None:
        """Give state to stand-ins only: the usual BUILD would also set attributes of the functions above."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, (_Array, _Type)):
            raise UnpicklingError("state for something other than an array")
        target.__setstate__(state)

    dispatch: ClassVar[dict[int, Any]] = {**_Unpickler.dispatch, BUILD[0]: load_build}


def load_pickled_arrays(content: bytes, where: str) -> Any:
    """Return what a pickle holds, if that is only dictionaries, lists, text, numbers and numpy arrays.

    Args:
        content: The pickle; Python 2 pickles too, their text then comes as bytes.
        where: The file, for messages.

    Raises:
        UserError: Anything else is in it, or it is damaged. Nothing it names was called.
    """
    try:
        value = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        return _finished(value, 0)
    except UnpicklingError as error:
        raise UserError(
            f"it holds more than arrays ({error}), which could run code",
            where,
            "Get the original file, or save the arrays with numpy.savez",
        ) from error
    except Exception as error:  # a damaged pickle can make its reader raise anything
        raise UserError("it is damaged", where, "Get the file again") from error


def _finished(value: Any, depth: int) -> Any:
    if depth > 8:
        raise UnpicklingError("deeply nested values")
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, dict):
        return {key: _finished(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_finished(item, depth + 1) for item in value]
    if value is None or isinstance(value, (bytes, str, int, float)):
        return value
    raise UnpicklingError(f"a {type(value).__name__.strip('_').lower()}")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
