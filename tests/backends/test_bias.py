"""int32 biases: s_b = s_x * s_w, and weight scales raised where they would overflow."""

from __future__ import annotations

import numpy as np

from qstudio.backends.bias import BIAS_QMAX, adjust_weight_scale, bias_encoding, takes_int32_bias
from qstudio.core.affine import Encoding, fake_quantize, quantize


def encoding(scale, axis=None):
    scale = np.asarray(scale, np.float32)
    return Encoding(scale, np.zeros(scale.shape, np.int32), -127, 127, axis)


def test_scale_is_the_product_per_channel():
    found = bias_encoding(encoding(0.5), encoding([0.25, 2.0], axis=0))
    np.testing.assert_array_equal(found.scale, np.float32([0.125, 1.0]))
    assert (found.axis, found.qmin, found.qmax) == (0, -BIAS_QMAX, BIAS_QMAX)
    np.testing.assert_array_equal(quantize(np.float32([0.25, -2.5]), found), [2, -2])


def test_scales_rise_only_where_the_bias_would_overflow():
    activation, weight = encoding(1e-6), encoding([1e-6, 1e-3], axis=0)
    bias = np.float32([100.0, 0.5])
    raised = adjust_weight_scale(weight, activation, bias)
    smallest = 1.0001 * 2 * 100.0 / (2**32 - 2)
    np.testing.assert_allclose(raised.scale[0] * 1e-6, smallest, rtol=1e-6)
    assert raised.scale[1] == weight.scale[1]
    restored = fake_quantize(bias, bias_encoding(activation, raised))
    np.testing.assert_allclose(restored, bias, rtol=1e-4)
    clipped = fake_quantize(bias, bias_encoding(activation, weight))
    assert clipped[0] < 1.0, "without raising, the bias is lost"


def test_per_tensor_weights_rise_for_the_largest_bias():
    raised = adjust_weight_scale(encoding(1e-7), encoding(1e-6), np.float32([1.0, -50.0]))
    np.testing.assert_allclose(float(raised.scale) * 1e-6, 1.0001 * 2 * 50.0 / (2**32 - 2), rtol=1e-6)


def test_enough_room_leaves_the_encoding_as_it_is():
    weight = encoding([0.1, 0.2], axis=0)
    assert adjust_weight_scale(weight, encoding(0.05), np.float32([3.0, -4.0])) is weight


def test_groups_and_float_neighbours_keep_the_bias_in_float():
    groups = Encoding(np.ones((2, 3), np.float32), np.zeros((2, 3), np.int32), -7, 7, 0, 4)
    assert not takes_int32_bias(encoding(1.0), groups)
    assert not takes_int32_bias(None, encoding(1.0))
    assert not takes_int32_bias(encoding(1.0), None)
