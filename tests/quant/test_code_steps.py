"""Distances in codes: integers, floats of every width, and ranges taken at run time."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from qstudio.core.affine import Encoding
from qstudio.core.encodings import DynamicEncoding, FloatEncoding
from qstudio.core.rounding import round_values
from qstudio.quant.code_steps import code_steps


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("fp8_e4m3", ml_dtypes.float8_e4m3fn),
        ("fp8_e5m2", ml_dtypes.float8_e5m2),
        ("fp16", np.float16),
        ("bf16", ml_dtypes.bfloat16),
    ],
)
def test_neighbouring_floats_are_one_code_apart(text, dtype):
    bits = 8 * np.dtype(dtype).itemsize
    codes = np.arange(2 ** (bits - 1), dtype=f"uint{bits}").view(dtype)
    values = codes.astype(np.float32)
    values = values[np.isfinite(values)]
    scale = np.float32(0.0371) if bits == 8 else np.float32(1)
    encoding = FloatEncoding(text, np.asarray(scale))
    rounded = (np.concatenate([-values[:0:-1], values]) * scale).astype(np.float32)
    assert (code_steps(rounded[:-1], rounded[1:], encoding) == 1).all(), "zero and subnormals included"
    assert not code_steps(rounded, rounded, encoding).any()
    assert code_steps(rounded[:1], rounded[-1:], encoding)[0] == len(rounded) - 1


def test_integers_and_ranges_at_run_time_count_their_steps():
    encoding = Encoding(np.float32(0.1), np.asarray(3, np.int32), 0, 255)
    x = np.linspace(-0.3, 20, 1000).astype(np.float32)
    rounded = round_values(x, encoding)
    assert (code_steps(rounded, rounded + np.float32(0.2), encoding) == 2).all()
    for dynamic in (DynamicEncoding(8, False), DynamicEncoding(6, True)):
        rounded = round_values(x, dynamic)
        step = np.diff(np.unique(rounded)).max()
        assert not code_steps(rounded, rounded, dynamic).any()
        assert (code_steps(rounded, rounded + step, dynamic) == 1).all()
    zeros = np.zeros(4, np.float32)
    assert not code_steps(zeros, zeros, DynamicEncoding(8, False)).any()
