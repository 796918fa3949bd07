"""Recurrent layers: RNN, GRU, LSTM, step by step as ONNX defines them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from qstudio.graph.ops.elementwise import elu, hard_sigmoid, leaky_relu, softsign, thresholded_relu
from qstudio.graph.translation import NodeView, Unsupported, translates

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULT_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": softsign,
    "softplus": F.softplus,
}
_WITH_ALPHA: dict[str, tuple[Callable[[torch.Tensor, float], torch.Tensor], float]] = {
    "leakyrelu": (leaky_relu, 0.01),
    "thresholdedrelu": (thresholded_relu, 1.0),
    "elu": (elu, 1.0),
}


def activate(x: torch.Tensor, name: str, alpha: float | None, beta: float | None) -> torch.Tensor:
    """Apply one of ONNX's recurrent activations by name."""
    key = name.lower()
    if key in _PLAIN:
        return _PLAIN[key](x)
    if key in _WITH_ALPHA:
        function, default = _WITH_ALPHA[key]
        return function(x, default if alpha is None else alpha)
    if key == "hardsigmoid":
        return hard_sigmoid(x, 0.2 if alpha is None else alpha, 0.5 if beta is None else beta)
    if key == "scaledtanh":
        return (1.0 if alpha is None else alpha) * torch.tanh((1.0 if beta is None else beta) * x)
    return (1.0 if alpha is None else alpha) * x + (0.0 if beta is None else beta)


class _Cell:
    """Hold what one direction of one layer needs for a step."""

    def __init__(
        self, kind: str, r: torch.Tensor, bias_r: torch.Tensor, options: dict[str, Any], direction: int
    ) -> None:
        self.kind, self.r, self.bias_r, self.options = kind, r, bias_r, options
        count = len(_DEFAULT_ACTIVATIONS[kind])
        names = options.get("activations") or _DEFAULT_ACTIVATIONS[kind] * 2
        self.activations = names[direction * count : (direction + 1) * count]
        offset = direction * count
        self.alpha = [self._at("activation_alpha", offset + i) for i in range(count)]
        self.beta = [self._at("activation_beta", offset + i) for i in range(count)]

    def _at(self, name: str, index: int) -> float | None:
        values = self.options.get(name) or []
        return float(values[index]) if index < len(values) else None

    def act(self, x: torch.Tensor, place: int) -> torch.Tensor:
        clip = self.options.get("clip")
        x = x if clip is None else x.clamp(-clip, clip)
        return activate(x, self.activations[place], self.alpha[place], self.beta[place])

    def step(
        self, gates_x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, peephole: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.kind == "RNN":
            return self.act(gates_x + F.linear(h, self.r, self.bias_r), 0), c
        if self.kind == "GRU":
            return self._gru(gates_x, h), c
        return self._lstm(gates_x, h, c, peephole)

    def _gru(self, gates_x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        size = h.shape[-1]
        zx, rx, hx = gates_x.split(size, -1)
        if self.options.get("linear_before_reset"):
            zh, rh, hh = F.linear(h, self.r, self.bias_r).split(size, -1)
            z, r = self.act(zx + zh, 0), self.act(rx + rh, 0)
            candidate = self.act(hx + r * hh, 1)
        else:
            zr = F.linear(h, self.r[: 2 * size], self.bias_r[: 2 * size])
            z, r = self.act(zx + zr[:, :size], 0), self.act(rx + zr[:, size:], 0)
            candidate = self.act(hx + F.linear(r * h, self.r[2 * size :], self.bias_r[2 * size :]), 1)
        return (1 - z) * candidate + z * h

    def _lstm(
        self, gates_x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, peephole: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = h.shape[-1]
        i, o, f, g = (gates_x + F.linear(h, self.r, self.bias_r)).split(size, -1)
        pi, po, pf = peephole.split(size) if peephole is not None else (None, None, None)
        i = self.act(i if pi is None else i + pi * c, 0)
        f = 1 - i if self.options.get("input_forget") else self.act(f if pf is None else f + pf * c, 0)
        c = f * c + i * self.act(g, 1)
        o = self.act(o if po is None else o + po * c, 0)
        return o * self.act(c, 2), c


def recurrent(
    kind: str,
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None,
    lengths: torch.Tensor | None,
    initial_h: torch.Tensor | None,
    initial_c: torch.Tensor | None,
    peephole: torch.Tensor | None,
    options: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run ONNX's RNN, GRU or LSTM.

    Args:
        kind: The operator.
        x: [steps, batch, input], or [batch, steps, input] with layout 1.
        w: [directions, gates*hidden, input], gates in ONNX's order (z r h; i o f c).
        r: [directions, gates*hidden, hidden].
        b: [directions, 2*gates*hidden] (of w, then of r), or None.
        lengths: [batch] steps of each sample, or None.
        initial_h: [directions, batch, hidden], or None for zeros.
        initial_c: The same for the LSTM's cell.
        peephole: [directions, 3*hidden] in the order i o f, or None.
        options: The operator's attributes.

    Returns:
        y [steps, directions, batch, hidden], the last h and the last c [directions, batch, hidden]; with layout 1 the
        batch comes first in all three.
    """
    batch_first = options.get("layout", 0) == 1
    if batch_first:
        x = x.transpose(0, 1)
        initial_h = None if initial_h is None else initial_h.transpose(0, 1)
        initial_c = None if initial_c is None else initial_c.transpose(0, 1)
    steps, batch = x.shape[:2]
    hidden, gates = r.shape[-1], _GATES[kind]
    outputs, last_h, last_c = [], [], []
    for d in range(w.shape[0]):
        bias = b[d] if b is not None else x.new_zeros(2 * gates * hidden)
        cell = _Cell(kind, r[d], bias[gates * hidden :], options, d)
        gates_x = F.linear(x, w[d], bias[: gates * hidden])
        h = initial_h[d] if initial_h is not None else x.new_zeros(batch, hidden)
        c = initial_c[d] if initial_c is not None else x.new_zeros(batch, hidden)
        backwards = d == 1 or options.get("direction") == "reverse"
        y: list[torch.Tensor] = [h] * steps
        for t in reversed(range(steps)) if backwards else range(steps):
            new_h, new_c = cell.step(gates_x[t], h, c, None if peephole is None else peephole[d])
            if lengths is None:
                h, c, y[t] = new_h, new_c, new_h
                continue
            alive = (lengths.to(x.device) > t).unsqueeze(1)
            h, c = torch.where(alive, new_h, h), torch.where(alive, new_c, c)
            y[t] = torch.where(alive, new_h, torch.zeros_like(new_h))
        outputs.append(torch.stack(y) if steps else x.new_zeros(0, batch, hidden))
        last_h.append(h)
        last_c.append(c)
    all_y, all_h, all_c = torch.stack(outputs, 1), torch.stack(last_h), torch.stack(last_c)
    if batch_first:
        return all_y.permute(2, 0, 1, 3), all_h.transpose(0, 1), all_c.transpose(0, 1)
    return all_y, all_h, all_c


class Recurrent(nn.Module):
    """An RNN, GRU or LSTM with its weights as ONNX stores them: weight, recurrence, bias, peephole."""

    weight: torch.Tensor
    recurrence: torch.Tensor
    bias: torch.Tensor | None
    peephole: torch.Tensor | None

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.kind, self.options = kind, options
        self.register_parameter("bias", None)
        self.register_parameter("peephole", None)

    def forward(
        self,
        x: torch.Tensor,
        lengths: torch.Tensor | None = None,
        initial_h: torch.Tensor | None = None,
        initial_c: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run all steps; see `recurrent`."""
        return recurrent(
            self.kind,
            x,
            self.weight,
            self.recurrence,
            self.bias,
            lengths,
            initial_h,
            initial_c,
            self.peephole,
            self.options,
        )

    def extra_repr(self) -> str:
        """Show kind and weight shape when printed."""
        return f"{self.kind}, {tuple(self.weight.shape)}"


@translates("RNN", "GRU", "LSTM")
def translate_recurrent(view: NodeView) -> tuple[fx.Node | None, ...]:
    """Make a layer of a recurrent operator with constant weights, and a plain call of any other."""
    names: tuple[str, ...] = ("activations", "activation_alpha", "activation_beta", "clip", "direction", "layout")
    names += ("input_forget", "linear_before_reset")
    options = {n: view.attribute(n) for n in names if view.attribute(n) is not None}
    known = {*_PLAIN, *_WITH_ALPHA, "hardsigmoid", "scaledtanh", "affine"}
    for name in options.get("activations", []):
        if name.lower() not in known:
            raise Unsupported(f"the activation {name!r}")
    given = {"weight": 1, "recurrence": 2, "bias": 3, "peephole": 7}
    given = {k: i for k, i in given.items() if view.has(i)}
    states = [view.optional(4), view.optional(5), view.optional(6)]
    if all(view.is_layer_weight(i) for i in given.values()):
        args = [view.tensor(0), *states]
        return view.items(view.layer(Recurrent(view.op_type, options), given, *args))  # type: ignore[arg-type]
    tensors = [view.tensor(0), view.tensor(1), view.tensor(2), view.optional(3)]
    return view.items(view.call(recurrent, view.op_type, *tensors, *states, view.optional(7), options))
