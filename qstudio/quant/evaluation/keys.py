"""Content keys: a value is known by what it was computed from, so nothing found in a cache can be stale."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx

from qstudio.core.encodings import OutlierEncoding
from qstudio.quant.executor import Executor
from qstudio.quant.simulate import SimulatedModel

DIGEST_BYTES = 16
"""Of a key: 2^64 different values would have to be kept before two of them could be expected to share one."""


def digest(value: Any) -> bytes:
    """Return a hash of a value's content: of arrays their type, shape and bytes, of dataclasses all fields."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    _feed(state, value)
    return state.digest()


def _feed(state: hashlib.blake2b, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(value)
        state.update(f"array {array.dtype.str} {array.shape}\0".encode())
        state.update(array.tobytes())
    elif is_dataclass(value) and not isinstance(value, type):
        state.update(f"{type(value).__name__}(".encode())
        for part in fields(value):
            state.update(f"{part.name}=".encode())
            _feed(state, getattr(value, part.name))
        state.update(b")")
    elif isinstance(value, (tuple, list)):
        state.update(f"[{len(value)}".encode())
        for item in value:
            _feed(state, item)
    else:
        state.update(f"{type(value).__name__} {value!r}\0".encode())


def quantizer_digests(model: SimulatedModel) -> dict[str, bytes]:
    """Return ONNX tensor -> hash of what rounds it, for the tensors of `model.quantizers`."""
    found: dict[str, bytes] = {}
    for site in model.network.activation_sites:
        encoding = model.activations.get(site.id) or model.others.get(site.id)
        if encoding is not None and not isinstance(encoding, OutlierEncoding):
            found.update(dict.fromkeys(site.quantized_at or (site.id,), digest(encoding)))
    return found


def step_keys(executor: Executor, model: SimulatedModel) -> dict[fx.Node, bytes]:
    """Return the key of every step's value, apart from the samples: step, rounding, parameters, keys of its inputs.

    Args:
        executor: Of the model's network.
        model: Says which parameters are replaced, by what, and how values are rounded.
    """
    rounding = quantizer_digests(model)
    parameters = {name: digest(value) for name, value in model.parameters.items()}
    keys: dict[fx.Node, bytes] = {}
    for position, step in enumerate(executor.steps):
        state = hashlib.blake2b(position.to_bytes(4, "little"), digest_size=DIGEST_BYTES)
        for used in step.node.all_input_nodes:
            state.update(keys[used])
        for attribute, initializer in step.parameters:
            found = parameters.get((step.onnx_node, initializer), parameters.get(initializer))
            if found is not None:
                state.update(attribute.encode() + b"\0" + found)
        if step.node.op != "get_attr" and step.tensor in rounding:
            state.update(rounding[step.tensor])
        keys[step.node] = state.digest()
    return keys


def size_bytes(value: Any) -> int:
    """Return the memory that a step's value holds on to: a view holds on to all of what it looks at."""
    if isinstance(value, Tensor):
        return int(value.untyped_storage().nbytes())
    if isinstance(value, (tuple, list)):
        return sum(map(size_bytes, value))
    return 0


def is_own(value: Any, inputs: Iterable[Any]) -> bool:
    """Return whether a tensor lies in memory of its own, all of it: neither a view nor what an input already holds.

    Args:
        value: What a step has just computed.
        inputs: The values it was computed from.
    """
    if not isinstance(value, Tensor) or value.numel() * value.element_size() != size_bytes(value):
        return False
    return value.untyped_storage().data_ptr() not in {place for used in inputs for place in _storages(used)}


def _storages(value: Any) -> Iterator[int]:
    if isinstance(value, Tensor):
        yield value.untyped_storage().data_ptr()
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _storages(item)
