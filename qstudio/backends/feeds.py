"""Random data of the shape of a model's inputs, for timing."""

from __future__ import annotations

import numpy as np
import onnxruntime

from qstudio.backends.ort import input_dtype

_DYNAMIC_SIZE = 1


def random_feed(session: onnxruntime.InferenceSession, batch: int) -> dict[str, np.ndarray]:
    """Return data for all inputs: normally distributed floats, zeros for integers; dynamic axes other than the first 1.

    Raises:
        UserError: An input is not a tensor of numbers.
    """
    generator = np.random.default_rng(0)
    feed: dict[str, np.ndarray] = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else _DYNAMIC_SIZE for size in value.shape]
        if shape and not isinstance(value.shape[0], int):
            shape[0] = batch
        dtype = input_dtype(value.type)
        if np.issubdtype(dtype, np.floating):
            feed[value.name] = generator.standard_normal(shape).astype(dtype)
        else:
            feed[value.name] = np.zeros(shape, dtype)
    return feed
