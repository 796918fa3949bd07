"""A model made ready for experiments: prepared ONNX, its layers and sites, and the graph that runs it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.model_info import LayerInfo, SiteInfo
from qstudio.graph.describe import describe
from qstudio.graph.load import LoadedModel
from qstudio.graph.prepare import prepare
from qstudio.graph.to_torch import to_torch
from qstudio.quant.executor import Executor
from qstudio.quant.placement import place
from qstudio.quant.statistics import activation_sites

_KEPT = 4
"""Networks kept in memory at a time."""

_cache: OrderedDict[tuple[str, bool, str], Network] = OrderedDict()


class Network:
    """One model on one device.

    Args:
        proto: The prepared model (folded or not).
        sha256: Content hash that stands for the model in caches and results.
        device: Where it runs.
        notes: What preparing changed, one sentence each.

    Raises:
        UserError: The model has a part that cannot run.
    """

    def __init__(self, proto: onnx.ModelProto, sha256: str, device: str = "cpu", notes: tuple[str, ...] = ()) -> None:
        self.proto = proto
        self.sha256 = sha256
        self.device = device
        self.notes = notes
        self.description = describe(proto)
        self.layers: tuple[LayerInfo, ...] = place(self.description)
        self.executor = Executor(to_torch(proto), device)
        self.inputs = self.executor.inputs
        self.outputs = self.executor.outputs
        self.activation_sites: tuple[SiteInfo, ...] = activation_sites(self.layers)
        self.weight_sites: tuple[SiteInfo, ...] = tuple(
            {layer.weight.id: layer.weight for layer in self.layers if layer.weight is not None}.values()
        )
        self._constants = {tensor.name: tensor for tensor in proto.graph.initializer}
        lost = [t for s in self.activation_sites for t in s.quantized_at if t not in self.executor.tensors]
        if lost:
            raise UserError("the tensor is quantized but not computed", lost[0], "Report this model")

    def value(self, initializer: str) -> NDArray[np.float32]:
        """Return a parameter in float32 (KeyError when there is none of that name)."""
        return np.asarray(onnx.numpy_helper.to_array(self._constants[initializer]), np.float32)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Return every weight by site id."""
        return {site.id: self.value(site.id) for site in self.weight_sites}

    @property
    def gives_class_scores(self) -> bool:
        """Whether the first output is one row of scores for each sample, [N, K] but for axes of length 1.

        Boxes of a detector or the pixels of a segmentation are not: labels say nothing about their argmax.
        """
        tensor = self.description.tensors.get(self.outputs[0])
        if tensor is None or tensor.shape is None:
            return True
        return sum(size != 1 for size in tensor.shape[1:]) <= 1

    @property
    def fixed_batch(self) -> int | None:
        """The batch size the file demands, or None where it takes any."""
        tensor = self.description.tensors.get(self.inputs[0]) if self.inputs else None
        return tensor.shape[0] if tensor is not None and tensor.shape else None


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use here.

    Raises:
        UserError: There is no such device, or it is not available.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or [""])[0].split(" Please")[0][:160]
        raise UserError(
            f"this device cannot be used ({reason})", device, "Choose cpu, or a device listed as available"
        ) from None


def compute_in_float32() -> None:
    """Let GPUs multiply in float32, the same way each time.

    By default convolutions of NVIDIA GPUs round their inputs to TF32, 10 bits of mantissa: about 1e-3 of a value, which
    moves codes at 8 bits and changes ranges; and cuDNN may choose algorithms whose sums change from run to run.
    """
    backends: Any = torch.backends  # its modules are replaced by objects whose attributes mypy does not see
    backends.cudnn.conv.fp32_precision = "ieee"
    backends.cudnn.rnn.fp32_precision = "ieee"
    backends.cuda.matmul.fp32_precision = "ieee"
    backends.cudnn.deterministic = True
    backends.cudnn.benchmark = False


def network_for(model: LoadedModel, fold_batchnorm: bool = True, device: str = "cpu") -> Network:
    """Return the network of an opened model; the last four are kept, by content."""
    check_device(device)
    if device.startswith("cuda"):
        compute_in_float32()
    key = (model.sha256, fold_batchnorm, device)
    network = _cache.get(key)
    if network is None:
        prepared = prepare(model.proto, fold_batchnorm=fold_batchnorm)
        digest = hashlib.sha256(f"{model.sha256}:{fold_batchnorm}".encode()).hexdigest()
        network = _cache[key] = Network(prepared.proto, digest, device, tuple(prepared.notes))
        while len(_cache) > _KEPT:
            _cache.popitem(last=False)
    _cache.move_to_end(key)
    return network
