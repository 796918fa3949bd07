"""Where quantizers sit: the rows of the layer table and their sites.

The conventions are those of onnxruntime's QDQ quantizer (its operator registry) and of TensorRT: quantizers sit on
tensors, one encoding per tensor; after a fused Relu or Clip only the fused output is rounded; operators that only move
values pass their input's encoding on; the inputs and the output of a Concat share one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from qstudio.core.affine import Encoding, encode, integer_range, is_symmetric
from qstudio.core.graph_types import GraphDescription, GraphNode
from qstudio.core.model_info import LayerInfo, SiteInfo
from qstudio.core.scheme import Scheme

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose constant operand is a weight site."""

_COMPUTING: dict[str, tuple[int, ...] | None] = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": None,
    "Add": None,
    "Mul": None,
    "Concat": None,
    "Where": None,
    "Relu": (0,),
    "Clip": (0,),
    "LeakyRelu": (0,),
    "Sigmoid": (0,),
    "Softmax": (0,),
    "AveragePool": (0,),
    "GlobalAveragePool": (0,),
    "InstanceNormalization": (0,),
    "LayerNormalization": (0,),
    "BatchNormalization": (0,),
}
"""Operators that onnxruntime's quantizer rounds inputs and outputs of, with the positions of their data (None: all).

All others (Sub, Div, Exp, LSTM, ...) stay float, unless a neighbour in this table asks for the tensor between them.
"""

_MOVING = (
    "MaxPool",
    "Reshape",
    "Transpose",
    "Flatten",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Gather",
    "GatherElements",
    "GatherND",
    "Split",
    "Pad",
    "DepthToSpace",
    "SpaceToDepth",
    "Identity",
    "Dropout",
    "Resize",
    "Upsample",
    "Expand",
    "Tile",
    "ReduceMax",
    "ReduceMin",
    "GlobalMaxPool",
    "TopK",
)
"""Operators whose outputs hold only values of their first input (or 0)."""

_FUSING = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Add",
    "Sub",
    "Mul",
    "BatchNormalization",
    "InstanceNormalization",
)
_ACTIVATIONS = ("Relu", "Clip")
_FIXED_RANGES = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0)}
_FLOATS = ("float", "float16", "double", "bfloat16")


def place(description: GraphDescription) -> tuple[LayerInfo, ...]:
    """Return the rows of the layer table, model inputs first, then in topological order, each with its sites.

    A row stands for each model input, each operator with parameters, and each operator that puts out a tensor with an
    encoding of its own. Rows of unsupported operators are there too, without sites.
    """
    return _Placement(description).rows()


def fixed_encoding(site: SiteInfo, scheme: Scheme) -> Encoding | None:
    """Return the encoding that mathematics fixes for a site, None where calibration decides.

    Softmax and Sigmoid: asymmetric s = 2^-bits, z = 0 (u8: 1/256, what onnxruntime's QLinearSoftmax demands).
    """
    if site.fixed_range is None or scheme.is_float or scheme.calibration == "manual":
        return None
    if is_symmetric(scheme):
        return encode(scheme, site.fixed_range[0], site.fixed_range[1], None)
    qmin, qmax = integer_range(scheme)
    return Encoding(np.asarray(2.0**-scheme.bits, np.float32), np.asarray(0, np.int32), qmin, qmax)


@dataclass
class _Group:
    """Tensors that share an encoding, while they are being collected."""

    members: list[str] = field(default_factory=list)
    rounded: list[str] = field(default_factory=list)
    concats: list[GraphNode] = field(default_factory=list)


class _Placement:
    def __init__(self, description: GraphDescription) -> None:
        self.description = description
        self.constants = set(description.initializers)
        self.nodes = description.nodes
        self.producer: dict[str, GraphNode] = {}
        self.consumers: dict[str, list[GraphNode]] = defaultdict(list)
        for node in self.nodes:
            for name in node.outputs:
                if name:
                    self.producer[name] = node
            for name in node.inputs:
                if name:
                    self.consumers[name].append(node)
        self.fused = self._find_fused()
        self.parent: dict[str, str] = {}
        self._tie()

    # ---- which tensors

    def _is_float(self, tensor: str) -> bool:
        info = self.description.tensors.get(tensor)
        return info is not None and info.dtype in _FLOATS

    def _is_alone(self, tensor: str) -> bool:
        return len(self.consumers[tensor]) == 1 and tensor not in self.description.outputs

    def _find_fused(self) -> dict[str, str]:
        """Return tensor -> the tensor behind the Relu or Clip that is computed in the same step."""
        fused = {}
        for node in self.nodes:
            if node.op_type in _FUSING and not node.domain and self._is_alone(node.outputs[0]):
                following = self.consumers[node.outputs[0]][0]
                if following.op_type in _ACTIVATIONS and following.inputs[0] == node.outputs[0]:
                    fused[node.outputs[0]] = following.outputs[0]
        return fused

    def _moves(self, node: GraphNode) -> bool:
        """Return whether the node's outputs hold nothing but values of its first input."""
        if node.domain or node.op_type not in _MOVING or not node.inputs or node.inputs[0] in self.constants:
            return False
        attributes = dict(node.attributes)
        if node.op_type in ("Resize", "Upsample"):
            return attributes.get("mode", "nearest") == "nearest"
        if node.op_type == "Pad" and attributes.get("mode", "constant") == "constant":
            if len(node.inputs) > 2 and node.inputs[2]:
                filler = self.description.tensors.get(node.inputs[2])
                return filler is not None and filler.value == 0.0
            return float(attributes.get("value", 0.0)) == 0.0
        return True

    def _data(self, node: GraphNode) -> list[str]:
        """Return the tensors at which a computing operator wants rounded values."""
        if node.domain or node.op_type not in _COMPUTING or node.unsupported:
            return []
        positions = _COMPUTING[node.op_type]
        inputs = [name for i, name in enumerate(node.inputs) if positions is None or i in positions]
        return [name for name in inputs if name and name not in self.constants and self._is_float(name)]

    # ---- which tensors share an encoding

    def _find(self, tensor: str) -> str:
        while self.parent.setdefault(tensor, tensor) != tensor:
            tensor = self.parent[tensor] = self.parent[self.parent[tensor]]
        return tensor

    def _tie(self) -> None:
        for node in self.nodes:
            if self._moves(node):
                for name in self._float_outputs(node):
                    self.parent[self._find(name)] = self._find(node.inputs[0])
            elif node.op_type == "Concat" and not node.domain:
                for name in node.inputs:
                    if name not in self.constants and self._is_float(name):
                        self.parent[self._find(name)] = self._find(node.outputs[0])

    def _float_outputs(self, node: GraphNode) -> list[str]:
        names = node.outputs[:1] if node.op_type in ("MaxPool", "TopK", "Dropout") else node.outputs
        return [name for name in names if name and self._is_float(name)]

    def _groups(self) -> dict[str, _Group]:
        """Return the groups that carry an encoding, by representative."""
        wanted: set[str] = set()
        for node in self.nodes:
            data = self._data(node)
            wanted.update(self._find(name) for name in data)
            if node.op_type in _COMPUTING and not node.domain and not node.unsupported:
                wanted.update(self._find(self.fused.get(name, name)) for name in self._float_outputs(node))
        groups: dict[str, _Group] = defaultdict(_Group)
        for name in self.description.inputs:
            if self._is_float(name) and self._find(name) in wanted:
                group = groups[self._find(name)]
                group.members.append(name)
                group.rounded.append(name)
        for node in self.nodes:
            for name in self._float_outputs(node):
                if name in self.fused or self._find(name) not in wanted:
                    continue
                group = groups[self._find(name)]
                group.members.append(name)
                if node.op_type == "Concat" and not node.domain:
                    group.concats.append(node)
                    if any(i in self.constants for i in node.inputs):
                        group.rounded.append(name)
                elif not self._moves(node):
                    group.rounded.append(name)
        return groups

    # ---- rows

    def rows(self) -> tuple[LayerInfo, ...]:
        groups = self._groups()
        owners = {key: self._owner(group) for key, group in groups.items()}
        listed = [name for name in self.description.inputs if self._is_float(name)]
        listed += [node.name for node in self.nodes if self._has_row(node, groups)]
        known = set(listed)
        rows = []
        for name in self.description.inputs:
            if name in known:
                site, shared = self._activation(name, name, groups, owners)
                rows.append(LayerInfo(name, "Input", self._shape_text(name), activation=site, shares_with=shared))
        for node in self.nodes:
            if node.name in known:
                rows.append(self._row(node, groups, owners, known))
        return tuple(rows)

    def _has_row(self, node: GraphNode, groups: dict[str, _Group]) -> bool:
        if node.unsupported or (node.parameters and not self._moves(node) and self._weight(node)[0] is not None):
            return True
        if self._is_absorbed(node) or self._moves(node):
            return False
        carries = any(self._find(self.fused.get(name, name)) in groups for name in self._float_outputs(node))
        return carries or self._has_float_parameters(node)

    def _has_float_parameters(self, node: GraphNode) -> bool:
        """Return whether a node is a layer in its own right: float in, float out, and more than a single number."""
        arrays = [
            n for n in node.inputs if n in self.constants and self._is_float(n) and self._shape(n) not in ((), (1,))
        ]
        return bool(node.parameters and arrays and self._float_outputs(node))

    def _is_absorbed(self, node: GraphNode) -> bool:
        """Return whether a Relu or Clip belongs to the row of the operator before it."""
        return node.op_type in _ACTIVATIONS and self.fused.get(node.inputs[0]) == node.outputs[0]

    def _owner(self, group: _Group) -> tuple[str, str]:
        """Return (row name, tensor) of the group's owner: its first Concat, else where values are rounded first."""
        if group.concats:
            return group.concats[0].name, group.concats[0].outputs[0]
        tensor = (group.rounded or group.members)[0]
        return self._row_name(tensor), tensor

    def _row_name(self, tensor: str) -> str:
        node = self.producer.get(tensor)
        if node is None:
            return tensor
        return self.producer[node.inputs[0]].name if self._is_absorbed(node) else node.name

    def _activation(
        self, row: str, tensor: str, groups: dict[str, _Group], owners: dict[str, tuple[str, str]]
    ) -> tuple[SiteInfo | None, str]:
        """Return (site, "") for the owner of the tensor's encoding, (None, owner) for the others."""
        key = self._find(tensor)
        if key not in groups:
            return None, ""
        owner, first = owners[key]
        if owner != row:
            return None, owner
        group = groups[key]
        fixed = None
        if len(group.rounded) == 1 and group.rounded[0] in self.producer:
            fixed = _FIXED_RANGES.get(self.producer[group.rounded[0]].op_type)
        site = SiteInfo(
            id=first,
            kind="activation",
            layer=row,
            shape=self._shape(first),
            channel_axis=1 if len(self._shape(first)) > 1 else None,
            members=(first, *(name for name in group.members if name != first)),
            quantized_at=tuple(group.rounded),
            fixed_range=fixed,
            is_output=any(name in self.description.outputs for name in group.members),
        )
        return site, ""

    def _row(
        self, node: GraphNode, groups: dict[str, _Group], owners: dict[str, tuple[str, str]], known: set[str]
    ) -> LayerInfo:
        weight, bias = (None, None) if node.unsupported else self._weight(node)
        site, shared = None, ""
        outputs = self._float_outputs(node)
        if outputs:
            site, shared = self._activation(node.name, self.fused.get(outputs[0], outputs[0]), groups, owners)
        return LayerInfo(
            name=node.name,
            op_type=node.op_type,
            title=node.summary,
            weight=weight,
            bias=bias,
            activation=site,
            shares_with=shared,
            parameters=node.parameters,
            macs=node.macs or 0,
            inputs=self._feeding(node, known),
            unsupported=node.unsupported,
        )

    def _feeding(self, node: GraphNode, known: set[str]) -> tuple[str, ...]:
        found: list[str] = []
        seen: set[str] = set()
        stack = [name for name in reversed(node.inputs) if name]
        while stack:
            tensor = stack.pop()
            if tensor in seen or tensor in self.constants:
                continue
            seen.add(tensor)
            row = self._row_name(tensor)
            if row in known:
                if row not in found:
                    found.append(row)
            elif tensor in self.producer:
                stack.extend(name for name in reversed(self.producer[tensor].inputs) if name)
        return tuple(found)

    # ---- weights

    def _weight(self, node: GraphNode) -> tuple[SiteInfo | None, SiteInfo | None]:
        """Return (weight site, bias site) of an operator; None where it has none."""
        if node.op_type not in WEIGHTED or node.domain:
            return None, None
        attributes = dict(node.attributes)
        for position in (1, 0):
            name = node.inputs[position]
            if name in self.constants and self._is_float(name) and node.inputs[1 - position] not in self.constants:
                break
        else:
            return None, None
        axis = self._channel_axis(node.op_type, position, len(self._shape(name)), attributes)
        weight = SiteInfo(name, "weight", node.name, self._shape(name), axis, (name,), (name,))
        # A constant left operand has its channels along the rows of the product, where no bias is added.
        return weight, self._bias(node, weight, attributes) if position == 1 else None

    @staticmethod
    def _channel_axis(op_type: str, position: int, rank: int, attributes: dict[str, str]) -> int | None:
        if op_type in ("Conv", "ConvTranspose"):
            return 0 if op_type == "Conv" else 1
        if rank < 2:
            return None
        if op_type == "Gemm":
            transposed = attributes.get("transB" if position == 1 else "transA", "0") == "1"
            return int(transposed) if position == 0 else 1 - int(transposed)
        return rank - 1 if position == 1 else rank - 2

    def _bias(self, node: GraphNode, weight: SiteInfo, attributes: dict[str, str]) -> SiteInfo | None:
        if len(node.inputs) < 3 or node.inputs[2] not in self.constants or weight.channel_axis is None:
            return None
        name = node.inputs[2]
        # Scaled products and grouped transposed convolutions have no single s_x * s_w[c]; their bias stays float.
        if any(float(attributes.get(key, 1.0)) != 1.0 for key in ("alpha", "beta")):
            return None
        if node.op_type == "ConvTranspose" and attributes.get("group", "1") != "1":
            return None
        if self._shape(name) != (weight.shape[weight.channel_axis],):
            return None
        return SiteInfo(name, "bias", node.name, self._shape(name), 0, (name,), (name,))

    # ---- shapes

    def _shape(self, tensor: str) -> tuple[int | None, ...]:
        info = self.description.tensors.get(tensor)
        return info.shape if info is not None and info.shape is not None else ()

    def _shape_text(self, tensor: str) -> str:
        info = self.description.tensors.get(tensor)
        return info.shape_text() if info is not None else ""
