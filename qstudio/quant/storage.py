"""Export a simulated model with its weights stored in one way, and the file of the other way beside it."""

from __future__ import annotations

from pathlib import Path

import onnx

from qstudio.backends.qdq import export_qdq
from qstudio.backends.save import save_model
from qstudio.backends.weight_nodes import can_pack
from qstudio.core.storage import INT8, PACKED, StorageChoice, StorageFigures
from qstudio.graph.opset import raise_opset
from qstudio.quant.simulate import SimulatedModel


def exported_model(simulated: SimulatedModel, storage: str) -> onnx.ModelProto:
    """Return the ONNX model that computes what is simulated.

    Raises:
        UserError: A format cannot be written at the operator sets the model can have.
    """
    return export_qdq(
        simulated.network.proto,
        simulated.network.layers,
        simulated.activations,
        simulated.weights,
        raise_opset=raise_opset,
        weight_values=simulated.weight_values,
        packed=storage == PACKED,
        others=simulated.others,
    )


def with_other_storage(simulated: SimulatedModel, storage: str, file_bytes: int, other: Path) -> StorageChoice | None:
    """Write the model in the storage that was not chosen to `other`, and return the sizes of both.

    Args:
        simulated: What was exported.
        storage: The storage that was chosen.
        file_bytes: Size of the file in that storage.
        other: Where to write the other file.

    Returns:
        None where no weight has codes that can be packed: nothing is written.
    """
    stored = [simulated.weights.get(site) or simulated.others.get(site) for site in _weights(simulated)]
    if not any(encoding is not None and can_pack(encoding) for encoding in stored):
        return None
    written = save_model(exported_model(simulated, INT8 if storage == PACKED else PACKED), other)
    chosen, left = StorageFigures(file_bytes), StorageFigures(written)
    if storage == PACKED:
        return StorageChoice(int8=left, packed=chosen, chosen=storage)
    return StorageChoice(int8=chosen, packed=left, chosen=storage)


def _weights(simulated: SimulatedModel) -> list[str]:
    return [layer.weight.id for layer in simulated.network.layers if layer.weight is not None]
