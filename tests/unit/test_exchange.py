"""Encodings in the files of other tools: written as they say, read back to the same ranges."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstudio.core.affine import Encoding, encode
from qstudio.core.errors import UserError
from qstudio.core.exchange import (
    SiteEncodings,
    as_aimet,
    as_onnxruntime,
    bits_of,
    is_symmetric,
    looks_like_encodings,
    recipe_from,
)
from qstudio.core.model_info import LayerInfo, SiteInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import FLOAT_BITS, Granularity, Scheme

LAYERS = (
    LayerInfo("x", "Input", "", activation=SiteInfo("x", "activation", "x")),
    LayerInfo(
        "conv",
        "Conv",
        "",
        weight=SiteInfo("conv.w", "weight", "conv", (4, 3, 3, 3), 0),
        activation=SiteInfo("conv.out", "activation", "conv", members=("conv.out", "pool.out")),
    ),
    LayerInfo("fc", "Gemm", "", weight=SiteInfo("fc.w", "weight", "fc", (10, 4), 0)),
)

ranges = st.tuples(st.floats(-50, -0.01), st.floats(0.01, 50))


def weight(bits: int, low: float, high: float, *, channels: int = 0, symmetric: bool = True) -> Encoding:
    scheme = Scheme("weight", bits, symmetric, Granularity("channel" if channels else "tensor"))
    factors = np.linspace(0.5, 1.5, channels) if channels else np.float64(1.0)
    return encode(scheme, low * factors, high * factors, 0)


def activation(bits: int, low: float, high: float, symmetric: bool = False) -> Encoding:
    return encode(Scheme("activation", bits, symmetric), low, high, None)


@given(ranges, ranges, st.sampled_from((2, 4, 8, 16)), st.booleans())
def test_aimet_and_back_gives_the_same_ranges(
    a: tuple[float, float], b: tuple[float, float], bits: int, symmetric: bool
) -> None:
    encodings = SiteEncodings(
        {"conv.w": weight(bits, *a, channels=4), "fc.w": weight(bits, *b, symmetric=symmetric)},
        {"x": activation(bits, *a, symmetric), "conv.out": activation(bits, *b)},
    )
    data = json.loads(json.dumps(as_aimet(encodings)))
    recipe, notes = recipe_from(data, LAYERS, Recipe())
    fc, conv, x = recipe.settings("fc"), recipe.settings("conv"), recipe.settings("x")
    assert (conv.weight_bits, conv.weight_granularity.kind, conv.weight_calibration) == (bits, "channel", "minmax")
    assert (fc.weight_bits, fc.weight_symmetric, x.activation_symmetric) == (bits, symmetric, symmetric)
    for settings, encoding in (
        (fc.weight_clip, encodings.weights["fc.w"]),
        (x.activation_clip, encodings.activations["x"]),
    ):
        assert settings is not None
        again = encode(
            Scheme("weight", bits, is_symmetric(encoding))
            if encoding is encodings.weights["fc.w"]
            else Scheme("activation", bits, is_symmetric(encoding)),
            *settings,
            None,
        )
        np.testing.assert_allclose(again.scale, encoding.scale, rtol=0.02 if bits <= 4 else 1e-3)
        assert again.zero_point == pytest.approx(encoding.zero_point, abs=1)
    assert len(notes) == 1


@given(ranges, st.sampled_from((4, 8, 16)))
def test_aimet_formula_gives_our_values(limits: tuple[float, float], bits: int) -> None:
    """AIMET: x^ = scale (q + offset) with q = clamp(round(x / scale) - offset, 0, 2^bits - 1)."""
    encoding = activation(bits, *limits)
    entry = as_aimet(SiteEncodings({}, {"x": encoding}))["activation_encodings"][0]
    x = np.linspace(1.2 * limits[0], 1.2 * limits[1], 101)
    scale, offset = entry["scale"][0], entry["offset"][0]
    theirs = scale * (np.clip(np.round(x / scale) - offset, 0, 2**bits - 1) + offset)
    codes = np.clip(np.round(x / np.float64(encoding.scale)) + encoding.zero_point, encoding.qmin, encoding.qmax)
    ours = np.float64(encoding.scale) * (codes - encoding.zero_point)
    np.testing.assert_allclose(theirs, ours, atol=1e-9)


def test_the_older_aimet_file_is_read() -> None:
    data = {
        "version": "0.6.1",
        "activation_encodings": {
            "pool.out": [
                {
                    "bitwidth": 8,
                    "dtype": "int",
                    "is_symmetric": "False",
                    "scale": 0.1,
                    "offset": -20,
                    "min": -2.0,
                    "max": 23.5,
                }
            ]
        },
        "param_encodings": {
            "fc.w": [
                {
                    "bitwidth": 4,
                    "dtype": "int",
                    "is_symmetric": "True",
                    "scale": 0.5,
                    "offset": -8,
                    "min": -4.0,
                    "max": 3.5,
                }
            ],
            "gone": [{"bitwidth": 32, "dtype": "float"}],
        },
    }
    recipe, notes = recipe_from(data, LAYERS, Recipe())
    conv, fc = recipe.settings("conv"), recipe.settings("fc")
    assert (conv.activation_bits, conv.activation_clip) == (8, pytest.approx((-2.0, 23.5)))
    assert (fc.weight_bits, fc.weight_symmetric, fc.weight_clip) == (4, True, pytest.approx((-3.5, 3.5)))
    assert conv.weight_bits == recipe.settings("x").activation_bits == FLOAT_BITS
    assert notes == ()


def test_overrides_keep_type_scale_and_axis() -> None:
    encodings = SiteEncodings({"conv.w": weight(8, -1, 1, channels=4)}, {"x": activation(8, -1, 3)})
    data = as_onnxruntime(encodings)
    assert data["x"] == [
        {
            "quant_type": "QUInt8",
            "scale": pytest.approx(4 / 255),
            "zero_point": int(encodings.activations["x"].zero_point),
        }
    ]
    assert [entry["axis"] for entry in data["conv.w"]] == [0] * 4
    assert {entry["quant_type"] for entry in data["conv.w"]} == {"QInt8"}
    assert looks_like_encodings(data)
    recipe, _ = recipe_from(data, LAYERS, Recipe())
    assert recipe.settings("conv").weight_granularity.kind == "channel"
    assert recipe.settings("x").activation_clip == pytest.approx((-1, 3), abs=4 / 255)
    recipe, _ = recipe_from({"x": [{"quant_type": "QuantType.QUInt8", "rmin": -1, "rmax": 2}]}, LAYERS, Recipe())
    assert recipe.settings("x").activation_clip == (-1, 2)


def test_bits_of_narrow_and_full_codes() -> None:
    for bits in range(1, 17):
        for symmetric in (True, False):
            assert bits_of(encode(Scheme("weight", bits, symmetric), -1.0, 1.0, None)) == bits


def test_what_a_file_cannot_say_is_refused_in_a_sentence() -> None:
    grouped = encode(Scheme("weight", 4, True, Granularity("group", 2)), np.full((4, 2), -1.0), np.ones((4, 2)), 0)
    with pytest.raises(UserError, match="groups"):
        as_aimet(SiteEncodings({"fc.w": grouped}, {}))
    with pytest.raises(UserError, match="groups"):
        as_onnxruntime(SiteEncodings({"fc.w": grouped}, {}))
    with pytest.raises(UserError, match="3 bits"):
        as_onnxruntime(SiteEncodings({"fc.w": weight(3, -1, 1)}, {}))


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"layers": []},
        {"activation_encodings": 3},
        {"activation_encodings": {"x": []}},
        {"activation_encodings": [{"name": "x", "bw": 8, "scale": ["a"], "offset": [0]}]},
        {"activation_encodings": [{"name": "x", "bw": 800, "scale": [1.0], "offset": [0]}]},
        {"activation_encodings": [{"name": "x", "bw": 8, "scale": [-1.0], "offset": [0]}]},
        {"activation_encodings": [{"name": "x", "bw": 8, "scale": [1e400], "offset": [0]}]},
        {"activation_encodings": [None]},
        {"param_encodings": [{"name": "x", "bw": 4, "enc_type": "LPBQ", "scale": [1.0], "offset": [0]}]},
        {"x": [{"quant_type": "QFloat"}]},
        {"x": [{"quant_type": "QInt8"}]},
        {"somewhere else": [{"quant_type": "QInt8", "scale": 1.0, "zero_point": 0}]},
    ],
)
def test_a_wrong_file_is_one_sentence(data: Any) -> None:
    with pytest.raises(UserError) as caught:
        recipe_from(data, LAYERS, Recipe())
    assert "\n" not in caught.value.sentence()
