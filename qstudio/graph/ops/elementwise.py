"""Elementwise operators: arithmetic, activations, comparison, logic, casts."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn import functional as F

from qstudio.graph.ops.common import WIDE_INTEGERS, aligned
from qstudio.graph.translation import NodeView, translates

Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _broadcasting(function: Binary) -> Binary:
    """Align devices, and take integers that torch cannot compute with through int64."""

    @functools.wraps(function)
    def wrapped(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = aligned(a, b)
        if a.dtype in WIDE_INTEGERS or b.dtype in WIDE_INTEGERS:
            result = function(a.to(torch.int64), b.to(torch.int64))
            return result if result.dtype == torch.bool else result.to(a.dtype)
        return function(a, b)

    return wrapped


@_broadcasting
def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute a + b."""
    return a + b


@_broadcasting
def subtract(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute a - b."""
    return a - b


@_broadcasting
def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute a * b."""
    return a * b


@_broadcasting
def divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute a / b; integers are truncated toward zero."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@_broadcasting
def power(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute a ** b in a's type."""
    return torch.pow(a, b).to(a.dtype)


@_broadcasting
def modulo(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute a mod b with the sign of b."""
    return torch.remainder(a, b)


@_broadcasting
def modulo_c(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute a mod b with the sign of a, as C's fmod."""
    return torch.fmod(a, b)


@_broadcasting
def maximum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the larger of a and b."""
    return torch.maximum(a, b)


@_broadcasting
def minimum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the smaller of a and b."""
    return torch.minimum(a, b)


@_broadcasting
def equal(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compare a == b."""
    return a == b


@_broadcasting
def greater(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compare a > b."""
    return a > b


@_broadcasting
def greater_or_equal(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compare a >= b."""
    return a >= b


@_broadcasting
def less(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compare a < b."""
    return a < b


@_broadcasting
def less_or_equal(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compare a <= b."""
    return a <= b


@_broadcasting
def shift_left(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Shift bits left."""
    return torch.bitwise_left_shift(a, b)


@_broadcasting
def shift_right(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Shift bits right."""
    return torch.bitwise_right_shift(a, b)


@_broadcasting
def bit_and(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute the bitwise and."""
    return a & b


@_broadcasting
def bit_or(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute the bitwise or."""
    return a | b


@_broadcasting
def bit_xor(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute the bitwise exclusive or."""
    return a ^ b


_BINARY: dict[str, Binary] = {
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Pow": power,
    "Equal": equal,
    "Greater": greater,
    "GreaterOrEqual": greater_or_equal,
    "Less": less,
    "LessOrEqual": less_or_equal,
    "And": bit_and,
    "Or": bit_or,
    "Xor": bit_xor,
    "BitwiseAnd": bit_and,
    "BitwiseOr": bit_or,
    "BitwiseXor": bit_xor,
}


def erf(x: torch.Tensor) -> torch.Tensor:
    """Compute the error function; integers are computed as float."""
    return torch.erf(x) if x.is_floating_point() else torch.erf(x.float()).to(x.dtype)


def softsign(x: torch.Tensor) -> torch.Tensor:
    """Compute x / (1 + |x|)."""
    return x / (1 + x.abs())


def hard_swish(x: torch.Tensor) -> torch.Tensor:
    """Compute x * clip(x/6 + 1/2, 0, 1)."""
    return x * torch.clamp(x / 6 + 0.5, 0, 1)


def identity(x: torch.Tensor) -> torch.Tensor:
    """Return x."""
    return x


def bit_not(x: torch.Tensor) -> torch.Tensor:
    """Turn all bits around."""
    return torch.bitwise_not(x.to(torch.int64)).to(x.dtype) if x.dtype in WIDE_INTEGERS else torch.bitwise_not(x)


def negative(x: torch.Tensor) -> torch.Tensor:
    """Compute -x."""
    return -x


_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": bit_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": hard_swish,
    "Identity": identity,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": negative,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softsign": softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


@translates(*_BINARY)
def binary(view: NodeView) -> fx.Node:
    """Translate an operator of two broadcast inputs."""
    return view.call(_BINARY[view.op_type], view.tensor(0), view.tensor(1))


@translates(*_UNARY)
def unary(view: NodeView) -> fx.Node:
    """Translate an operator of one input and no attributes."""
    return view.call(_UNARY[view.op_type], view.tensor(0))


@translates("Mod")
def mod(view: NodeView) -> fx.Node:
    """Translate Mod, whose attribute chooses between Python's sign and C's."""
    return view.call(modulo_c if view.attribute("fmod", 0) else modulo, view.tensor(0), view.tensor(1))


@translates("BitShift")
def bit_shift(view: NodeView) -> fx.Node:
    """Translate BitShift."""
    left = view.attribute("direction") == "LEFT"
    return view.call(shift_left if left else shift_right, view.tensor(0), view.tensor(1))


def fold_max(*tensors: torch.Tensor) -> torch.Tensor:
    """Return the elementwise maximum of all tensors."""
    return functools.reduce(maximum, tensors)


def fold_min(*tensors: torch.Tensor) -> torch.Tensor:
    """Return the elementwise minimum of all tensors."""
    return functools.reduce(minimum, tensors)


def fold_sum(*tensors: torch.Tensor) -> torch.Tensor:
    """Return the elementwise sum of all tensors."""
    return functools.reduce(add, tensors)


def fold_mean(*tensors: torch.Tensor) -> torch.Tensor:
    """Return the elementwise mean of all tensors."""
    return functools.reduce(add, tensors) / len(tensors)


_VARIADIC = {"Max": fold_max, "Min": fold_min, "Sum": fold_sum, "Mean": fold_mean}


@translates(*_VARIADIC)
def variadic(view: NodeView) -> fx.Node:
    """Translate an operator of any number of inputs."""
    return view.call(_VARIADIC[view.op_type], *[view.tensor(i) for i in range(len(view.inputs))])


def clip(
    x: torch.Tensor,
    low: torch.Tensor | float | None = None,
    high: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """Limit x to low..high; where low > high the result is high, as in numpy."""
    if x.dtype in WIDE_INTEGERS:
        return clip(
            x.to(torch.int64), *[v.to(torch.int64) if isinstance(v, torch.Tensor) else v for v in (low, high)]
        ).to(x.dtype)
    if isinstance(low, torch.Tensor):
        x = torch.maximum(*aligned(x, low))
    elif low is not None:
        x = torch.clamp(x, min=low)
    if isinstance(high, torch.Tensor):
        x = torch.minimum(*aligned(x, high))
    elif high is not None:
        x = torch.clamp(x, max=high)
    return x


@translates("Clip")
def translate_clip(view: NodeView) -> fx.Node:
    """Translate Clip, whose limits are attributes before opset 11 and inputs after."""
    if view.opset < 11:
        return view.call(clip, view.tensor(0), view.attribute("min"), view.attribute("max"))
    limits = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in (view.numbers(1), view.numbers(2))]
    return view.call(clip, view.tensor(0), *limits)


def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Compute x where x >= 0, else slope * x."""
    return torch.where(x < 0, slope * x, x)


class PRelu(nn.Module):
    """A leaky rectifier with its slope as ONNX stores it (broadcast to x)."""

    weight: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the slope to the negative part of x."""
        return prelu(x, self.weight)


@translates("PRelu")
def translate_prelu(view: NodeView) -> fx.Node:
    """Translate PRelu."""
    if view.is_layer_weight(1):
        return view.layer(PRelu(), {"weight": 1}, view.tensor(0))
    return view.call(prelu, view.tensor(0), view.tensor(1))


def leaky_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Compute x where x >= 0, else alpha * x."""
    return torch.where(x < 0, alpha * x, x)


def elu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Compute x where x > 0, else alpha * (exp(x) - 1)."""
    return torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


def celu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Compute max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    return torch.clamp(x, min=0) + torch.clamp(alpha * torch.expm1(torch.clamp(x, max=0) / alpha), max=0)


def selu(x: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """Compute gamma * (x where x > 0, else alpha * (exp(x) - 1))."""
    return gamma * elu(x, alpha)


def hard_sigmoid(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Compute clip(alpha * x + beta, 0, 1)."""
    return torch.clamp(alpha * x + beta, 0, 1)


def thresholded_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return x where x > alpha, else 0."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


def shrink(x: torch.Tensor, lambd: float, bias: float) -> torch.Tensor:
    """Compute x + bias below -lambd, x - bias above lambd, else 0."""
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)


def swish(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Compute x * sigmoid(alpha * x)."""
    return x * torch.sigmoid(alpha * x)


_WITH_NUMBERS: dict[str, tuple[Callable[..., torch.Tensor], tuple[tuple[str, float], ...]]] = {
    "LeakyRelu": (leaky_relu, (("alpha", 0.01),)),
    "Elu": (elu, (("alpha", 1.0),)),
    "Celu": (celu, (("alpha", 1.0),)),
    "Selu": (selu, (("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875))),
    "HardSigmoid": (hard_sigmoid, (("alpha", 0.2), ("beta", 0.5))),
    "ThresholdedRelu": (thresholded_relu, (("alpha", 1.0),)),
    "Shrink": (shrink, (("lambd", 0.5), ("bias", 0.0))),
    "Swish": (swish, (("alpha", 1.0),)),
}


@translates(*_WITH_NUMBERS)
def with_numbers(view: NodeView) -> fx.Node:
    """Translate an operator of one input and some numbers."""
    function, numbers = _WITH_NUMBERS[view.op_type]
    return view.call(function, view.tensor(0), *[float(view.attribute(name, default)) for name, default in numbers])


def softplus(x: torch.Tensor) -> torch.Tensor:
    """Compute log(1 + exp(x)) without overflow."""
    return torch.logaddexp(x, torch.zeros_like(x))


@translates("Softplus")
def translate_softplus(view: NodeView) -> fx.Node:
    """Translate Softplus."""
    return view.call(softplus, view.tensor(0))


@translates("Gelu")
def gelu(view: NodeView) -> fx.Node:
    """Translate Gelu, exact or by tanh."""
    return view.call(F.gelu, view.tensor(0), approximate=view.attribute("approximate", "none"))


def is_infinite(x: torch.Tensor, negative_too: bool, positive_too: bool) -> torch.Tensor:
    """Tell where x is infinite, by sign."""
    found = torch.zeros_like(x, dtype=torch.bool)
    if positive_too:
        found = found | torch.isposinf(x)
    if negative_too:
        found = found | torch.isneginf(x)
    return found


@translates("IsInf")
def translate_is_infinite(view: NodeView) -> fx.Node:
    """Translate IsInf."""
    negative_too, positive_too = bool(view.attribute("detect_negative", 1)), bool(view.attribute("detect_positive", 1))
    return view.call(is_infinite, view.tensor(0), negative_too, positive_too)


def where(condition: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Choose x where the condition holds, else y."""
    condition, x, y = aligned(condition, x, y)
    return torch.where(condition, x, y)


@translates("Where")
def translate_where(view: NodeView) -> fx.Node:
    """Translate Where."""
    return view.call(where, view.tensor(0), view.tensor(1), view.tensor(2))


def dropout_mask(x: torch.Tensor) -> torch.Tensor:
    """Return the mask of a Dropout that drops nothing."""
    return torch.ones_like(x, dtype=torch.bool)


@translates("Dropout")
def dropout(view: NodeView) -> tuple[fx.Node | None, ...]:
    """Translate Dropout as it acts at inference: it passes its input on."""
    mask = view.call(dropout_mask, view.tensor(0)) if view.wants(1) else None
    return (view.call(identity, view.tensor(0)), mask)
