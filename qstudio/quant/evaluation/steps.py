"""Single steps with less ado than the general loop: parameters put in place, values rounded where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import torch
from torch import Tensor, fx, nn

from qstudio.graph.ops.elementwise import add
from qstudio.quant.quantizer import Quantizer, Rounder


def called_with(module: nn.Module, replaced: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
    """Return what a layer computes with other parameters, which are in place only while it is called.

    `torch.func.functional_call` does the same for any tree of modules and takes 0.2 ms for it.

    Args:
        module: A layer.
        replaced: Attribute to tensor.
        args: Of the call.
        kwargs: Of the call.
    """
    own = module._parameters
    if not all(name in own for name in replaced):
        return torch.func.functional_call(module, dict(replaced), args, kwargs)
    before = {name: own[name] for name in replaced}
    try:
        own.update(replaced)  # type: ignore[arg-type]
        return module(*args, **kwargs)
    finally:
        own.update(before)


def overwritten(node: fx.Node, values: Mapping[fx.Node, Any], free: Set[fx.Node]) -> Tensor | None:
    """Return a Relu or a sum computed in the place of its input; None where that cannot be.

    The bits are the same and no new memory is touched, which costs more than the arithmetic.

    Args:
        node: A step.
        values: By node.
        free: Inputs whose memory nothing else will look at.
    """
    if node.op != "call_function" or node.kwargs:
        return None
    if node.target is torch.relu and len(node.args) == 1:
        (source,) = node.args
        value = values[source] if isinstance(source, fx.Node) and source in free else None
        return value.relu_() if isinstance(value, Tensor) else None
    if node.target is add and len(node.args) == 2:
        first, second = node.args
        if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
            return None
        a, b = values[first], values[second]
        alike = isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
        if alike and a.stride() == b.stride() and a.dtype == b.dtype == torch.float32:
            return a.add_(b) if first in free else b.add_(a)
    return None


def rounded(quantizer: Rounder, value: Tensor, own: bool) -> Tensor:
    """Return a value rounded, in place where nothing else looks at it: a third faster than into new memory."""
    if not own or not isinstance(quantizer, Quantizer) or value.dtype != torch.float32 or quantizer.scale.dim():
        return quantizer(value)
    # The four operations of `Quantizer`, the first one in place too: the same bits.
    return value.div_(quantizer.scale).round_().clamp_(quantizer.low, quantizer.high).mul_(quantizer.scale)  # type: ignore[arg-type]
