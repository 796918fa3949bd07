"""Where learned rounding starts its weight scales, and that refinements use it."""

from __future__ import annotations

import numpy as np
import pytest
from quant_cases import small_cnn
from refine_cases import calibrated, images, task

from qstudio.core.affine import encode, fake_quantize
from qstudio.core.scheme import Granularity, Scheme
from qstudio.quant.network import network_for
from qstudio.quant.refine.adaround import adaround
from qstudio.quant.refine.brecq import brecq
from qstudio.quant.refine.scale_search import SHARES, least_error


def heavy_tailed(*shape, seed=0):
    return np.random.default_rng(seed).standard_t(3, size=shape).astype(np.float32)


def squared(values, encoding):
    return (fake_quantize(values, encoding).astype(np.float64) - values) ** 2


def test_each_channel_gets_the_best_share_of_its_own_scale():
    values = heavy_tailed(6, 5, 3, 3)
    top = np.abs(values).max((1, 2, 3)).astype(np.float64)
    start = encode(Scheme("weight", bits=4, symmetric=True, granularity=Granularity("channel")), -top, top, 0)
    found = least_error(values, start)
    for channel in range(6):
        costs = []
        for share in SHARES:
            scale = np.float32(start.scale[channel] * share)
            codes = np.clip(np.rint(values[channel] / scale), start.qmin, start.qmax)
            costs.append(float(((codes * scale - values[channel]).astype(np.float64) ** 2).sum()))
        assert found.scale[channel] == np.float32(start.scale[channel] * SHARES[int(np.argmin(costs))])
    assert squared(values, found).sum() < squared(values, start).sum()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", [Granularity("tensor"), Granularity("group", 5)])
def test_no_scale_gets_worse_and_zero_points_stay(granularity, symmetric):
    values = heavy_tailed(8, 12, seed=1) + np.float32(0.5)
    scheme = Scheme("weight", bits=3, symmetric=symmetric, granularity=granularity)
    groups = values.reshape(1, -1) if granularity.kind == "tensor" else np.pad(values, ((0, 0), (0, 3))).reshape(24, 5)
    shape = () if granularity.kind == "tensor" else (8, 3)
    low, high = (np.asarray(ends(groups, axis=1), np.float64).reshape(shape) for ends in (np.min, np.max))
    start = encode(scheme, np.minimum(low, 0.0), np.maximum(high, 0.0), 0)
    found = least_error(values, start)
    np.testing.assert_array_equal(found.zero_point, start.zero_point)
    assert found.scale.shape == start.scale.shape
    assert (found.scale <= start.scale).all()
    assert squared(values, found).sum() < squared(values, start).sum()


def test_scales_that_cannot_be_bettered_stay():
    values = np.tile(np.arange(-7, 8, dtype=np.float32), (2, 1))
    top = np.array([7.0, 7.0])
    start = encode(Scheme("weight", bits=4, granularity=Granularity("channel")), -top, top, 0)
    np.testing.assert_array_equal(least_error(values, start).scale, start.scale)
    zeros = np.zeros((2, 15), np.float32)
    np.testing.assert_array_equal(least_error(zeros, start).scale, start.scale)


def test_a_refinement_searches_unless_told_not_to(tmp_path):
    data = images(tmp_path, (1, 8, 8), 32)
    network = network_for(small_cnn())
    start = calibrated(network, data, weight_bits=3, weight_granularity="channel")
    kept = adaround(network, task(data, iterations=20, search=0), start).encodings.weights
    searched = adaround(network, task(data, iterations=20), start).encodings.weights
    for name, encoding in start.encodings.weights.items():
        np.testing.assert_array_equal(kept[name].scale, encoding.scale)
    changed = [name for name, e in start.encodings.weights.items() if (searched[name].scale < e.scale).any()]
    assert changed
    for name in changed:
        values = network.value(name)
        expected = least_error(values, start.encodings.weights[name])
        np.testing.assert_array_equal(searched[name].scale, expected.scale)


def test_scales_that_share_exponents_stay_powers_of_two(tmp_path):
    data = images(tmp_path, (1, 8, 8), 32)
    network = network_for(small_cnn())
    formats = {"weight_format": "bfp", "activation_format": "bfp"}
    start = calibrated(network, data, weight_bits=4, activation_bits=4, **formats)
    result = brecq(network, task(data, "brecq", iterations=20), start).encodings
    assert set(result.weights) == {"w1", "w2", "w3", "w4"}
    for name, encoding in (*result.weights.items(), *result.activations.items()):
        exponents = np.log2(encoding.scale)
        np.testing.assert_array_equal(exponents, np.rint(exponents), err_msg=name)
