"""A deep synthetic model: residual blocks with a branch, as many layers as are asked for."""

from __future__ import annotations

from qstudio.core.graph_types import GraphDescription
from qstudio.core.model_info import LayerInfo, ModelInfo, SiteInfo

CHANNELS = (16, 32, 64, 128)


def make_large_model(layers: int = 1000) -> ModelInfo:
    """Return a model of blocks of five layers: two convolutions, a third beside them, a Concat and an Add."""
    made = [LayerInfo("x", "Input", "1 x 8 x 8", activation=SiteInfo("x", "activation", "x", (None, 1, 8, 8), 1))]

    def add(name: str, op_type: str, *inputs: str, weighted: bool = True) -> str:
        channels = CHANNELS[len(made) % 4]
        weight = SiteInfo(f"{name}.weight", "weight", name, (channels, 16, 3, 3), 0) if weighted else None
        activation = SiteInfo(f"{name}.out", "activation", name, (None, channels, 8, 8), 1)
        count = channels * 144 if weighted else 0
        title = f"3x3, 16 -> {channels}" if weighted else ""
        made.append(LayerInfo(name, op_type, title, weight, None, activation, "", count, count * 64, inputs))
        return name

    last = "x"
    number = 0
    while len(made) + 5 <= layers:
        scope = f"stages.{number // 20}.blocks.{number % 20}"
        first = add(f"{scope}.conv1", "Conv", last)
        second = add(f"{scope}.conv2", "Conv", first)
        beside = add(f"{scope}.beside", "Conv", last)
        joined = add(f"{scope}.concat", "Concat", second, beside, weighted=False)
        last = add(f"{scope}.add", "Add", joined, last, weighted=False)
        number += 1
    while len(made) < layers:
        last = add(f"head.fc{len(made)}", "Gemm", last)
    parameters = sum(layer.parameters for layer in made)
    graph = GraphDescription("large", 17, (), {}, (), ("x",), (last,))
    return ModelInfo(
        "large", "/models/fake.onnx", "onnx", "1" * 64, 17, tuple(made), graph, ("x",), (last,), (None, 1, 8, 8),
        parameters, 4 * parameters,
    )  # fmt: skip
