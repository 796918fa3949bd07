"""Values and gradients of the quantizers in training, against the formulas of the papers written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qstudio.core.affine import Encoding, encode, fake_quantize
from qstudio.core.scheme import Granularity, Scheme
from qstudio.quant.qat.quantizers import ActivationQuantizer, DorefaWeight, WeightQuantizer, gradient_scale
from qstudio.quant.qat.rounding import zero_point_of

CPU = torch.device("cpu")


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def activation_encoding(bits=4, low=0.0, high=1.7):
    return encode(Scheme("activation", bits, symmetric=False), low, high, None)


def run(quantizer, x, grad):
    """Return (values, gradient of x) of an activation quantizer; the leaves hold their gradients."""
    x = torch.tensor(x, requires_grad=True)
    y = quantizer(x)
    y.backward(torch.tensor(grad))
    return y.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("method", ["ste", "lsq", "lsq+", "pact", "dorefa"])
@pytest.mark.parametrize("low", [0.0, -0.9])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_activations_start_at_the_values_of_ptq(method, low, bits):
    encoding = activation_encoding(bits, low)
    x = draw(3, 4, 5, 5)
    quantizer = ActivationQuantizer(encoding, method, True, CPU)
    values, _ = run(quantizer, x, np.ones_like(x))
    if method == "pact" and low == 0.0:  # alpha / n is not always the same float32 as the scale
        np.testing.assert_allclose(values, fake_quantize(x, encoding), rtol=2e-7, atol=encoding.scale * 1e-6)
    else:
        np.testing.assert_array_equal(values, fake_quantize(x, encoding))
    now = quantizer.encoding()
    np.testing.assert_allclose(now.scale, encoding.scale, rtol=2e-7)
    assert int(now.zero_point) == int(encoding.zero_point)


@pytest.mark.parametrize("method", ["ste", "lsq", "lsq+", "pact", "dorefa"])
def test_the_gradient_of_activations_is_zero_outside_the_range(method):
    encoding = activation_encoding(4)
    x = np.array([[-2.0, -0.01, 0.3, 1.0, 1.69, 1.75, 40.0]], np.float32)
    _, grad = run(ActivationQuantizer(encoding, method, True, CPU), x, np.full_like(x, 3.0))
    np.testing.assert_array_equal(grad, [[0.0, 0.0, 3.0, 3.0, 3.0, 0.0, 0.0]])


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("low", [0.0, -0.9])
def test_lsq_learns_the_scale_as_the_paper_says(low, relative):
    encoding = activation_encoding(3, low, 1.1)
    x, g = draw(4, 3, 6, 6), draw(4, 3, 6, 6, seed=1)
    quantizer = ActivationQuantizer(encoding, "lsq", relative, CPU)
    run(quantizer, x, g)
    s, zero = float(encoding.scale), int(encoding.zero_point)
    bottom, top = encoding.qmin - zero, encoding.qmax - zero
    v = x.astype(np.float64) / s
    slope = np.where(v <= bottom, bottom, np.where(v >= top, top, np.rint(v) - v))
    expected = (slope * g).sum() / np.sqrt(x[0].size * top) * (s if relative else 1.0)
    np.testing.assert_allclose(float(quantizer.scale.leaf.grad), expected, rtol=1e-4)


def test_lsq_plus_learns_scale_and_offset_as_the_paper_says():
    encoding = activation_encoding(3, -0.9, 1.1)
    x, g = draw(4, 3, 6, 6), draw(4, 3, 6, 6, seed=1)
    quantizer = ActivationQuantizer(encoding, "lsq+", False, CPU)
    run(quantizer, x, g)
    s, zero = float(encoding.scale), int(encoding.zero_point)
    bottom, top = encoding.qmin - zero, encoding.qmax - zero
    v = x.astype(np.float64) / s
    outside = (v <= bottom) | (v >= top)
    slope = np.where(v <= bottom, 0, np.where(v >= top, encoding.qmax - encoding.qmin, np.rint(v) - v))
    factor = 1 / np.sqrt(x[0].size * top)
    np.testing.assert_allclose(float(quantizer.scale.leaf.grad), (slope * g).sum() * factor, rtol=1e-4)
    np.testing.assert_allclose(float(quantizer.offset.grad), g[outside].astype(np.float64).sum() * factor, rtol=1e-4)


def test_the_zero_point_of_an_offset_keeps_zero_exact():
    assert zero_point_of(0.1, -0.52, 0, 15) == 5
    assert zero_point_of(0.1, 0.7, 0, 15) == 0
    assert zero_point_of(0.1, -9.0, 0, 15) == 15


def test_pact_learns_its_clip_from_what_lies_beyond():
    encoding = activation_encoding(4)
    x, g = np.abs(draw(4, 3, 6, 6)) * 2, draw(4, 3, 6, 6, seed=1)
    quantizer = ActivationQuantizer(encoding, "pact", False, CPU)
    run(quantizer, x, g)
    alpha = float(encoding.scale) * 15
    np.testing.assert_allclose(float(quantizer.alpha.leaf.grad), g[x >= alpha].astype(np.float64).sum(), rtol=1e-4)


def test_pact_leaves_signed_tensors_to_ptq():
    quantizer = ActivationQuantizer(activation_encoding(4, -1.0), "pact", True, CPU)
    assert quantizer.kind == "ste"
    assert not quantizer.leaves()


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group:8"])
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_round_as_the_reference_and_learn_one_scale_for_each_group(granularity, axis):
    w, g = draw(6, 4, 3, 3), draw(6, 4, 3, 3, seed=1)
    scheme = Scheme("weight", 3, granularity=Granularity.parse(granularity))
    count = w.shape[axis]
    groups = -(-(w.size // count) // 8)
    shape = {"tensor": (), "channel": (count,), "group:8": (count, groups)}[granularity]
    high = np.random.default_rng(2).uniform(0.5, 1.5, shape)
    encoding = encode(scheme, -high, high, axis)
    quantizer = WeightQuantizer(encoding, torch.tensor(w), True, False)
    values = quantizer.values()
    np.testing.assert_array_equal(values.detach().numpy(), fake_quantize(w, encoding))
    values.backward(torch.tensor(g))
    spread = np.asarray(encoding.scale, np.float64)
    if granularity == "channel":
        spread = spread.reshape([-1 if i == axis else 1 for i in range(4)])
    if granularity == "group:8":
        flat = np.repeat(spread, 8, axis=1)[:, : w.size // count]
        spread = np.moveaxis(flat.reshape([count, *(n for i, n in enumerate(w.shape) if i != axis)]), 0, axis)
    v = w.astype(np.float64) / spread
    slope = np.where(v <= -3, -3, np.where(v >= 3, 3, np.rint(v) - v)) * g
    rows = np.moveaxis(slope, axis, 0).reshape(count, -1)
    if granularity == "tensor":
        expected = rows.sum()
    elif granularity == "channel":
        expected = rows.sum(1)
    else:
        padded = np.zeros((count, groups * 8))
        padded[:, : rows.shape[1]] = rows
        expected = padded.reshape(count, groups, 8).sum(2)
    expected = expected * gradient_scale(w.size / encoding.scale.size, 3)
    np.testing.assert_allclose(quantizer.scale.leaf.grad.numpy(), expected, rtol=1e-3, atol=1e-6)
    inside = (v > -3) & (v < 3)
    np.testing.assert_array_equal(quantizer.leaf.grad.numpy(), np.where(inside, g, 0))


def test_ste_passes_the_whole_gradient_to_weights():
    w, g = draw(4, 3), draw(4, 3, seed=1)
    quantizer = WeightQuantizer(encode(Scheme("weight", 2), -0.4, 0.4, None), torch.tensor(w), False, True)
    quantizer.values().backward(torch.tensor(g))
    np.testing.assert_array_equal(quantizer.leaf.grad.numpy(), g)


@pytest.mark.parametrize("bits", [2, 3, 4, 7])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_dorefa_weights_are_its_formula_and_lie_on_the_exported_grid(bits, granularity):
    w = draw(5, 3, 3, 3) * 0.2
    scheme = Scheme("weight", bits, granularity=Granularity(granularity))
    high = np.abs(w).reshape(5, -1).max(1) if granularity == "channel" else np.abs(w).max()
    quantizer = DorefaWeight(encode(scheme, -high, high, 0), torch.tensor(w), bits)
    size = (high.reshape(5, 1, 1, 1) if granularity == "channel" else high).astype(np.float64)
    np.testing.assert_allclose(quantizer.latent_values(), w, rtol=1e-4, atol=1e-6)
    bent = np.tanh(quantizer.leaf.detach().numpy().astype(np.float64))
    largest = np.abs(bent).reshape(5, -1).max(1).reshape(5, 1, 1, 1) if granularity == "channel" else np.abs(bent).max()
    share = bent / (2 * largest) + 0.5
    n = 2**bits - 1
    expected = size * (2 * np.rint(n * share) / n - 1)
    # A share that lies on a tie to seven digits may fall either way in float32.
    near_tie = np.abs(n * share % 1 - 0.5) < 1e-4
    values = quantizer.float_values()
    np.testing.assert_allclose(values[~near_tie], expected[~near_tie], rtol=1e-5, atol=1e-7)
    assert len(np.unique(np.rint(values / size * n))) <= 2**bits
    encoding = quantizer.encoding()
    np.testing.assert_array_equal(fake_quantize(values, encoding), values)
    assert encoding.qmax <= 127


def test_a_scale_stays_positive_whatever_the_gradient():
    quantizer = ActivationQuantizer(activation_encoding(4), "lsq", True, CPU)
    with torch.no_grad():
        quantizer.scale.leaf.fill_(-5.0)
    quantizer.hold()
    assert float(quantizer.scale.value().detach()) > 0
    assert isinstance(quantizer.encoding(), Encoding)
    assert quantizer.encoding().scale > 0


@pytest.mark.parametrize(("granularity", "learned"), [("channel", True), ("channel", False), ("group:8", True)])
def test_scales_of_channels_follow_the_gain_of_a_normalisation(granularity, learned):
    w = draw(6, 4, 3, 3)
    high = np.random.default_rng(2).uniform(0.5, 1.5, (6,) if granularity == "channel" else (6, 5))
    encoding = encode(Scheme("weight", 3, granularity=Granularity.parse(granularity)), -high, high, 0)
    start = torch.tensor([0.5, 2.0, -1.0, 1.0, 4.0, -0.25]).reshape(-1, 1, 1, 1)
    quantizer = WeightQuantizer(encoding, torch.tensor(w), learned, True, start)
    np.testing.assert_array_equal(quantizer.values(start).detach().numpy(), fake_quantize(w * start.numpy(), encoding))
    moved = start * torch.tensor([2.0, 0.5, -4.0, 1.0, 8.0, 0.125]).reshape(-1, 1, 1, 1)
    now = quantizer.encoding(moved)
    factor = np.abs((moved / start).numpy()).reshape([6] + [1] * (encoding.scale.ndim - 1))
    np.testing.assert_array_equal(now.scale, encoding.scale * factor)
    values = quantizer.values(moved).detach().numpy()
    np.testing.assert_array_equal(values, fake_quantize(quantizer.float_values(moved), now))
    np.testing.assert_array_equal(values, quantizer.values(start).detach().numpy() * (moved / start).numpy())


def test_one_scale_for_all_channels_stays_where_it_is():
    encoding = encode(Scheme("weight", 3, granularity=Granularity.parse("tensor")), -1.0, 1.0, None)
    gain = torch.ones(4, 1)
    quantizer = WeightQuantizer(encoding, torch.tensor(draw(4, 3)), True, True, gain)
    np.testing.assert_array_equal(quantizer.encoding(2 * gain).scale, encoding.scale)
