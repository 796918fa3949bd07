"""Train the four sample models and write what the program ships.

    python sample_models/train.py [--out FOLDER] [--only ID]

Writes, beside this script unless told otherwise: one model file and one card (.md) each, and index.json. Seeds are
fixed and one thread is used; other versions of PyTorch or other processors still change the last digits of sums and
with them the weights, so the figures in the cards are those of the files beside them.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir.passes.common as ir_passes
import onnxscript.optimizer
import torch
import torch.nn.functional as F
from cards import card
from networks import Cnn, ConvBnRelu6, Mlp, MobileNet, ResNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from qstudio.data.load import load_dataset


@dataclass(frozen=True)
class Sample:
    """A sample model: what it is and how it is trained."""

    id: str
    file: str
    title: str
    description: str
    build: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    seed: int = 0


SAMPLES = (
    Sample(
        "digits_cnn",
        "digits_cnn.onnx",
        "Plain CNN",
        "Three convolutions, no BatchNorm: the place to begin.",
        Cnn,
        60,
        3e-3,
    ),
    Sample(
        "digits_resnet",
        "digits_resnet.pt2",
        "Residual network",
        "BatchNorm to fold and additions whose branches share a scale; opened from torch.export.",
        ResNet,
        50,
        3e-3,
    ),
    Sample(
        "digits_mobilenet",
        "digits_mobilenet.onnx",
        "Depthwise separable network",
        "Channels of very different range: one scale per tensor fails where one per channel does not.",
        MobileNet,
        40,
        2e-2,
    ),
    Sample(
        "digits_mlp",
        "digits_mlp.onnx",
        "Fully connected network",
        "Three matrices: small enough to follow every number by hand.",
        Mlp,
        100,
        3e-3,
    ),
)
BATCH = 64
WEIGHT_DECAY = 1e-2
LABEL_SMOOTHING = 0.05
BITS = (8, 6, 5, 4)


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Return images [N, 1, 8, 8] and labels [N] of the built-in dataset."""
    part = load_dataset("digits").splits[split]
    return torch.from_numpy(part.batch(np.arange(len(part)))), torch.from_numpy(part.labels)


def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn (up to 0.2 rad), scale (10 %) and shift (0.8 pixels) each image a little."""

    def spread(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    angle, scale, shift = 0.2 * spread(len(x)), 1 + 0.1 * spread(len(x)), 0.2 * spread(len(x), 2)
    rows = [
        torch.stack([scale * angle.cos(), -angle.sin(), shift[:, 0]], 1),
        torch.stack([angle.sin(), scale * angle.cos(), shift[:, 1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def trained(sample: Sample, x: Tensor, y: Tensor) -> nn.Module:
    """Train a sample model: AdamW, weight decay on matrices and kernels only."""
    torch.manual_seed(sample.seed)
    generator = torch.Generator().manual_seed(sample.seed)
    model = sample.build().train()
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=sample.learning_rate)
    batches = len(x) // BATCH
    steps = sample.epochs * batches
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, sample.learning_rate, total_steps=steps)
    for _ in range(sample.epochs):
        order = torch.randperm(len(x), generator=generator)
        for k in range(batches):
            chosen = order[k * BATCH : (k + 1) * BATCH]
            loss = F.cross_entropy(model(moved(x[chosen], generator)), y[chosen], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of right answers in percent."""
    return 100 * float((model(x).argmax(1) == y).float().mean())


def folded(model: nn.Module) -> nn.Module:
    """Return a copy with each BatchNorm folded into the convolution that stands before it."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (name, conv), (next_name, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, next_name, nn.Identity())
    return model


@torch.no_grad()
def rounded(model: nn.Module, bits: int, per_channel: bool) -> nn.Module:
    """Return a copy with symmetric, narrow-range, minmax weights; activations and biases stay float."""
    model = copy.deepcopy(model)
    qmax = 2 ** (bits - 1) - 1
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            flat = layer.weight.abs().flatten(1)
            largest = flat.amax(1).view(-1, *[1] * (layer.weight.ndim - 1)) if per_channel else flat.max()
            scale = (largest / qmax).clamp_min(2.0**-126)
            layer.weight.copy_((layer.weight / scale).round().clamp(-qmax, qmax) * scale)
    return model


@torch.no_grad()
def depthwise_layers(model: nn.Module) -> list[dict[str, object]]:
    """Describe each depthwise layer after folding: how far channel ranges differ, and how little their input varies."""
    found = []
    flat = dict(folded(model).named_modules())
    for name, block in model.named_modules():
        if isinstance(block, ConvBnRelu6) and block.conv.groups > 1:
            ranges = flat[f"{name}.conv"].weight.abs().flatten(1).amax(1)
            found.append(
                {
                    "layer": f"{name}.conv",
                    "largest_over_median_range": round(float(ranges.max() / ranges.median()), 1),
                    "variance_of_that_channel": float(f"{block.bn.running_var[ranges.argmax()]:.1e}"),
                    "median_variance": float(f"{block.bn.running_var.median():.1e}"),
                }
            )
    return found


def save_onnx(model: nn.Module, path: Path) -> None:
    """Export with a free batch, BatchNorm kept, nodes and tensors named after the modules."""
    batch = {0: torch.export.Dim("batch")}
    names = {"input_names": ["image"], "output_names": ["scores"]}
    # optimize=True would fold BatchNorm; constants are folded by hand instead.
    program = torch.onnx.export(
        model, (torch.zeros(2, 1, 8, 8),), dynamo=True, optimize=False, dynamic_shapes=(batch,), verbose=False, **names
    )
    assert program is not None
    onnxscript.optimizer.fold_constants(program.model)
    ir_passes.RemoveUnusedNodesPass()(program.model)
    proto = program.model_proto
    tidy(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def tidy(proto: onnx.ModelProto) -> None:
    """Name things after modules, drop zero biases and everything that tells of the machine it was made on."""
    graph = proto.graph
    simplify(graph)
    values = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    renamed: dict[str, str] = {}
    names: list[str] = []
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        node.name = name_of(node, names)
        names.append(node.name)
        if node.op_type == "Conv" and len(node.input) == 3 and not values[node.input[2]].any():
            del node.input[2]
        constants = [name for name in node.input if name in values and not name.startswith(f"{node.name}.")]
        if node.op_type == "Clip":
            renamed.update(zip(constants, (f"{node.name}.min", f"{node.name}.max"), strict=True))
        if node.output[0] not in outputs:
            renamed[node.output[0]] = f"{node.name}.out"
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        del node.metadata_props[:]
        node.ClearField("doc_string")
    used = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if renamed.get(each.name, each.name) in used]
    for each in kept:
        each.name = renamed.get(each.name, each.name)
    del graph.initializer[:], graph.value_info[:], graph.metadata_props[:], proto.metadata_props[:]
    graph.initializer.extend(kept)
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    proto.ClearField("doc_string")
    graph.ClearField("doc_string")


def simplify(graph: onnx.GraphProto) -> None:
    """Write flattening and pooling as the one operator each is, instead of the shape arithmetic of the exporter."""
    consumers = {name: node for node in graph.node for name in node.input}
    for node in graph.node:
        if node.op_type == "Reshape" and consumers[node.output[0]].op_type == "Gemm":
            node.CopyFrom(replaced(node, "Flatten", axis=1))
        elif node.op_type == "ReduceMean":
            node.CopyFrom(replaced(node, "GlobalAveragePool"))
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)


def replaced(node: onnx.NodeProto, op_type: str, **attributes: int) -> onnx.NodeProto:
    """Return a node of another operator on the same first input."""
    new = onnx.helper.make_node(op_type, node.input[:1], node.output, **attributes)
    new.metadata_props.extend(node.metadata_props)
    return new


def name_of(node: onnx.NodeProto, taken: list[str]) -> str:
    """Return the path of the module a node comes from, with the operator behind it where that is not enough."""
    weights = [name.rpartition(".")[0] for name in node.input if name.endswith((".weight", ".running_mean"))]
    if weights:
        return weights[0]
    scopes = next(each.value for each in node.metadata_props if each.key == "pkg.torch.onnx.name_scopes")
    path = json.loads(scopes.replace("'", '"'))
    known = [part for part in path[:-1] if part and not part.startswith("_")]
    if known and known[-1] not in taken and node.op_type != "Add":
        return str(known[-1])
    return ".".join([*known[-1:], node.op_type.lower()])


def save_pt2(model: nn.Module, path: Path) -> None:
    """Export with a free batch, without the stack traces of this machine."""
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(model, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=(batch,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    torch.export.save(program, path)


def make(sample: Sample, folder: Path) -> dict[str, object]:
    """Train, measure and write one sample; return its entry in the index."""
    start = time.perf_counter()
    model = trained(sample, *digits("train"))
    seconds = time.perf_counter() - start
    x, y = digits("test")
    flat = folded(model)
    figures = {
        bits: (accuracy(rounded(flat, bits, False), x, y), accuracy(rounded(flat, bits, True), x, y)) for bits in BITS
    }
    path = folder / sample.file
    (save_pt2 if path.suffix == ".pt2" else save_onnx)(model, path)
    entry = {
        "id": sample.id,
        "file": sample.file,
        "card": f"{sample.id}.md",
        "title": sample.title,
        "description": sample.description,
        "dataset": "digits",
        "float_accuracy": round(accuracy(model, x, y), 2),
        "test_samples": len(y),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weight_only_accuracy": [
            {"bits": bits, "per_tensor": round(tensor, 2), "per_channel": round(channel, 2)}
            for bits, (tensor, channel) in figures.items()
        ],
        "training": {
            "epochs": sample.epochs,
            "learning_rate": sample.learning_rate,
            "batch": BATCH,
            "weight_decay": WEIGHT_DECAY,
            "label_smoothing": LABEL_SMOOTHING,
            "seed": sample.seed,
            "seconds": math.ceil(seconds),
            "torch": torch.__version__,
        },
    }
    if depthwise := depthwise_layers(model):
        entry["depthwise"] = depthwise
    print(json.dumps(entry), flush=True)
    return entry


def main() -> None:
    """Make the samples that were asked for; entries of others are kept."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=here, help="folder to write to")
    parser.add_argument("--only", choices=[sample.id for sample in SAMPLES], help="make this one only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    index = options.out / "index.json"
    entries = {each["id"]: each for each in json.loads(index.read_text("utf-8"))["models"]} if index.is_file() else {}
    for sample in SAMPLES:
        if options.only in (None, sample.id):
            entries[sample.id] = make(sample, options.out)
            (options.out / f"{sample.id}.md").write_text(card(entries[sample.id]), "utf-8")
    ordered = [entries[sample.id] for sample in SAMPLES if sample.id in entries]
    index.write_text(json.dumps({"models": ordered}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
