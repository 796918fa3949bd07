"""Nodes behind activation tensors that have no fixed scale and zero point: floating point, ranges at run time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qstudio.backends.activation_pairs import Places, reroute
from qstudio.backends.graph_edit import GraphEdit
from qstudio.backends.weight_nodes import FLOAT_TENSORS
from qstudio.core.affine import SMALLEST_SCALE, integer_range, is_symmetric
from qstudio.core.encodings import DynamicEncoding, FloatEncoding
from qstudio.core.float_formats import float_type
from qstudio.core.model_info import SiteInfo
from qstudio.core.scheme import Scheme

KEEP = "Max"
"""Of a single tensor: that tensor. onnxruntime neither removes it nor looks through it for DequantizeLinear."""


def activation_opset(encoding: FloatEncoding | DynamicEncoding) -> int:
    """Return the operator set that the nodes behind an activation need."""
    if isinstance(encoding, FloatEncoding):
        return 19 if float_type(encoding.format).bits == 8 else 13
    return 13


def add_float(edit: GraphEdit, site: SiteInfo, encoding: FloatEncoding) -> None:
    """Round a site to a floating-point type: QuantizeLinear and DequantizeLinear for 8 bits, two Casts for 16.

    Values beyond the type's largest saturate. Around the 8-bit pair stands a `KEEP`: onnxruntime 1.31 would fuse the
    pair into integer kernels, or into a Relu in front of it, and refuse the type in both cases.
    """
    number_type = float_type(encoding.format)
    onnx_type = FLOAT_TENSORS[number_type.id]
    if number_type.bits == 8:
        scale = edit.add_initializer(f"{site.id}_scale", np.asarray(encoding.scale, np.float32))
        zero = np.zeros((), helper.tensor_dtype_to_np_dtype(onnx_type))
        shared = [scale, edit.add_initializer(f"{site.id}_zero_point", zero)]
    else:
        bounds = {word: np.float32(sign * number_type.largest) for word, sign in (("low", -1), ("high", 1))}
        shared = [edit.add_initializer(f"{site.id}_clip_{word}", np.asarray(value)) for word, value in bounds.items()]
    for tensor in site.quantized_at or (site.id,):
        source, target = reroute(edit, tensor)
        nodes = _Nodes(edit, tensor)
        if number_type.bits == 8:
            read = nodes.add(KEEP, [source])
            codes = nodes.add("QuantizeLinear", [read, *shared])
            nodes.add(KEEP, [nodes.add("DequantizeLinear", [codes, *shared])])
        else:
            limited = nodes.add("Clip", [source, *shared])
            nodes.add("Cast", [nodes.add("Cast", [limited], to=onnx_type)], to=TensorProto.FLOAT)
        edit.add_behind(source, nodes.closed(target))


def add_dynamic(edit: GraphEdit, site: SiteInfo, encoding: DynamicEncoding) -> Places:
    """Round a site with the range it has at run time; return what DequantizeLinear puts out.

    Asymmetric 8 bits are DynamicQuantizeLinear. ONNX has no operator for the rest: it is written out, with the same
    formulas in float32.
    """
    places: Places = {}
    for tensor in site.quantized_at or (site.id,):
        source, target = reroute(edit, tensor)
        nodes = _Nodes(edit, tensor)
        if encoding.bits == 8 and not is_symmetric(_scheme(encoding)):
            outputs = [edit.fresh(f"{tensor}_{word}") for word in ("codes", "scale", "zero_point")]
            nodes.add("DynamicQuantizeLinear", [source], outputs=outputs)
            nodes.add("DequantizeLinear", outputs)
            places[target] = source
        else:
            _write_out(nodes, source, encoding)
        edit.add_behind(source, nodes.closed(target))
    return places


def _scheme(encoding: DynamicEncoding) -> Scheme:
    return Scheme("activation", encoding.bits, encoding.symmetric, format=encoding.format)


def _write_out(nodes: _Nodes, source: str, encoding: DynamicEncoding) -> None:
    """Add s and z from the extremes, then clamp(round(x / s), qmin - z, qmax - z) s."""
    symmetric = is_symmetric(_scheme(encoding))
    qmin, qmax = integer_range(_scheme(encoding))
    zero = nodes.constant(0.0, "zero")
    low = nodes.add("Min", [nodes.add("ReduceMin", [source], keepdims=0), zero])
    high = nodes.add("Max", [nodes.add("ReduceMax", [source], keepdims=0), zero])
    if symmetric:
        span, steps = nodes.add("Max", [nodes.add("Neg", [low]), high]), qmax
    else:
        span, steps = nodes.add("Sub", [high, low]), qmax - qmin
    smallest = nodes.constant(float(SMALLEST_SCALE), "smallest")
    if encoding.format == "bfp":
        # Comparing with every power of two is exact; a logarithm is not.
        exponents = np.arange(-126, 128)
        reached = nodes.add("GreaterOrEqual", [span, nodes.constant(np.exp2(exponents), "powers")])
        shared = nodes.constant(np.exp2(np.maximum(exponents - encoding.bits + 2, -126)), "shared")
        scale = nodes.add("ReduceMax", [nodes.add("Where", [reached, shared, smallest])], keepdims=0)
    else:
        exact = nodes.add("Div", [span, nodes.constant(steps, "steps")])
        usable = nodes.add("GreaterOrEqual", [exact, smallest])
        scale = nodes.add("Where", [usable, exact, nodes.constant(1.0, "one")])
    first, last = nodes.constant(qmin, "qmin"), nodes.constant(qmax, "qmax")
    if not symmetric:
        shifted = nodes.add("Sub", [first, nodes.add("Div", [low, scale])])
        rounded = nodes.add("Round", [nodes.add("Clip", [shifted, first, last])])
        # Without a usable range z = qmin, whatever the tiny quotient would say.
        point = nodes.add("Where", [usable, rounded, first])
        first, last = nodes.add("Sub", [first, point]), nodes.add("Sub", [last, point])
    steps_taken = nodes.add("Round", [nodes.add("Div", [source, scale])])
    nodes.add("Mul", [nodes.add("Clip", [steps_taken, first, last]), scale])


class _Nodes:
    """Nodes behind one tensor, in order."""

    def __init__(self, edit: GraphEdit, tensor: str) -> None:
        self._edit, self._tensor = edit, tensor
        self._nodes: list[onnx.NodeProto] = []

    def add(self, op_type: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its (first) output."""
        name = self._edit.fresh(f"{self._tensor}_{op_type}")
        written = outputs or [self._edit.fresh(f"{name}_Output")]
        self._nodes.append(helper.make_node(op_type, inputs, written, name, **attributes))
        return written[0]

    def constant(self, value: float | NDArray[np.floating], word: str) -> str:
        """Add a float32 number, or several, and return their name."""
        number: NDArray[np.float32] = np.asarray(value, np.float32)
        return self._edit.add_initializer(f"{self._tensor}_{word}", number)

    def closed(self, target: str) -> list[onnx.NodeProto]:
        """Return the nodes, the last of which puts out `target`."""
        self._nodes[-1].output[0] = target
        return self._nodes
