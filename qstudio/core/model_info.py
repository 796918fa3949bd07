"""What the window and scripts see of a model: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field

from qstudio.core.graph_types import GraphDescription
from qstudio.core.scheme import SiteKind


@dataclass(frozen=True)
class SiteInfo:
    """A tensor that can carry a quantizer."""

    id: str
    """The tensor's name in the prepared ONNX graph; unique in the model."""
    kind: SiteKind
    layer: str
    """Name of the layer whose settings govern this site."""
    shape: tuple[int | None, ...] = ()
    """Dimensions; None where only known at run time (the batch)."""
    channel_axis: int | None = None
    """Axis of output channels of a weight: Conv 0, ConvTranspose 1, Gemm transB ? 0 : 1, MatMul last. Of an
    activation: 1."""
    members: tuple[str, ...] = ()
    """All tensors that carry this site's encoding, the first is `id`: value-preserving operators pass it on, and the
    inputs of a Concat share one."""
    quantized_at: tuple[str, ...] = ()
    """The members at which values are rounded: those not put out by a value-preserving operator."""
    fixed_range: tuple[float, float] | None = None
    """A range that mathematics fixes (Softmax and Sigmoid: 0..1); calibration does not apply."""
    is_output: bool = False
    """Whether a member is an output of the model: logits are never clipped by calibration."""


@dataclass(frozen=True)
class LayerInfo:
    """A row of the layer table: an operator with parameters, or one that puts out a tensor with its own encoding."""

    name: str
    """The node's name as in the user's file; for a model input the tensor's name."""
    op_type: str
    """ONNX operator, or "Input"."""
    title: str
    """One line for people: "3x3, 32 -> 64, s2"."""
    weight: SiteInfo | None = None
    bias: SiteInfo | None = None
    activation: SiteInfo | None = None
    """The tensor put out, after a fused Relu or Clip; None where another site's encoding is used."""
    shares_with: str = ""
    """Where `activation` is None: the layer whose encoding the output uses; empty when the output is not quantized."""
    parameters: int = 0
    macs: int = 0
    """Multiply-accumulates for one sample."""
    inputs: tuple[str, ...] = ()
    """Names of the layers that feed this one."""
    unsupported: str = ""
    """Why the layer cannot be run or quantized; empty when it can."""


@dataclass(frozen=True)
class ModelInfo:
    """An opened model."""

    name: str
    path: str
    format: str
    """"onnx" or "pt2"."""
    sha256: str
    opset: int
    layers: tuple[LayerInfo, ...]
    """In topological order."""
    graph: GraphDescription
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_shape: tuple[int | None, ...]
    """Shape of the first input, batch first."""
    parameters: int
    float_size_bytes: int
    """Bytes of all parameters in float32."""
    unsupported: tuple[tuple[str, str, str], ...] = ()
    """(node, operator, reason): the model opens for looking, these parts cannot run."""
    notes: tuple[str, ...] = ()
    """What was changed on the way in (BatchNorm folded, opset raised), one sentence each."""
    _index: dict[str, LayerInfo] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {layer.name: layer for layer in self.layers})

    def layer(self, name: str) -> LayerInfo:
        """Return the layer of that name (KeyError when there is none)."""
        return self._index[name]

    @property
    def weighted_layers(self) -> tuple[LayerInfo, ...]:
        """Layers that have a weight, in topological order."""
        return tuple(layer for layer in self.layers if layer.weight is not None)

    @property
    def runnable(self) -> bool:
        """Whether every operator of the model is supported."""
        return not self.unsupported
