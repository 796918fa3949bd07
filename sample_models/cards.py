"""The text of a model card, from the figures that were measured while the model was made."""

from __future__ import annotations

import textwrap
from typing import Any

ARCHITECTURES = {
    "digits_cnn": """
        Conv 3x3 1->16, ReLU; Conv 3x3 16->32, ReLU, max pooling 2; Conv 3x3 32->48, ReLU, max pooling 2; fully
        connected 192->64, ReLU; fully connected 64->10. No BatchNorm.""",
    "digits_resnet": """
        Conv 3x3 1->24, BatchNorm, ReLU; residual blocks 24->24, 24->48 with stride 2 and a 1x1 convolution on the
        shortcut, 48->48 (each Conv 3x3, BatchNorm, ReLU, Conv 3x3, BatchNorm, Add, ReLU); global average pooling;
        fully connected 48->10 (after He et al., Deep Residual Learning for Image Recognition, 2015). Saved with
        torch.export; BatchNorm is kept.""",
    "digits_mobilenet": """
        Conv 3x3 1->24; depthwise separable blocks 24->48, 48->48, 48->96 with stride 2, 96->96 (each a 3x3 depthwise
        and a 1x1 convolution); every convolution is followed by BatchNorm and ReLU6; global average pooling; fully
        connected 96->10 (after Howard et al., MobileNets, 2017). BatchNorm is kept in the ONNX file.""",
    "digits_mlp": """
        Fully connected 64->128, ReLU; 128->64, ReLU; 64->10. The image is flattened inside.""",
}

PURPOSES = {
    "digits_cnn": """
        A first look: few layers, every one of a kind that quantizes well. Eight bits cost nothing; go down from there
        and see which layer gives way.""",
    "digits_resnet": """
        BatchNorm folding as a visible step, additions whose inputs and output have encodings of their own, and
        training with quantization at very few bits.""",
    "digits_mobilenet": """
        Per-tensor against per-channel weights, cross-layer equalization, and layers of few weights that need more bits
        than others.""",
    "digits_mlp": """
        Small enough to follow by hand: three matrices, one scale each.""",
}

TRAINING = """
    `python sample_models/train.py --only {id}`: {epochs} epochs, batch {batch}, AdamW with a one-cycle learning rate up
    to {learning_rate:g}, weight decay {weight_decay:g} on kernels and matrices, label smoothing {label_smoothing:g},
    images turned (0.2 rad), scaled (10 %) and shifted (0.8 pixels) at random, seed {seed}. It took {seconds} s on one
    thread of a shared 2-core machine with torch {torch}."""

DATA = """
    The `digits` dataset of QStudio: the 1,797 images of 8x8 pixels that come with scikit-learn (E. Alpaydin, C. Kaynak,
    "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49; licence CC BY 4.0). Pixels 0..16 are divided by 16. 1,195 images train, 602 are
    held out: of each class every third image in the order of sha256("digits:INDEX"). No held-out image was trained on;
    the settings of training were chosen with a look at the held-out accuracy. The model itself is under the
    Apache-2.0 licence, as the program is."""

WHY = """
    At 8 bits one scale per tensor gives {per_tensor:.2f} %, one per channel {per_channel:.2f} %. Nothing was done to
    the weights after training.

    The learning rate ({rate:g}) is high for Adam. It teaches well, but on the way some ReLU6 channels fall silent:
    they give the same value for every image. The depthwise convolution works on each channel by itself, so its output
    in such a channel hardly varies either, and the BatchNorm after it keeps a variance near 0. Folding divides the
    channel's weights by sqrt(variance + 1e-5): silent channels become the largest of the tensor. In float this changes
    nothing, as their input does not vary. With one scale for the tensor they claim its range, and the channels that do
    the work are left with a few codes. A 1x1 convolution mixes channels and hides this; a depthwise one cannot. The
    same was found in MobileNet on ImageNet (Sheng et al., A Quantization-Friendly Separable Convolution for
    MobileNets, 2018)."""

SEEDS = """
    How many channels fall silent depends on the seed. Trials of this recipe with seeds 0, 1 and 2 gave 46.3, 99.5 and
    71.3 % at 8 bits per tensor (per channel 99.7, 99.7 and 99.3 %); the first seed is shipped."""


def card(entry: dict[str, Any]) -> str:
    """Return the card of one sample model as Markdown."""
    network = (
        f"Input `image`, float32 [batch, 1, 8, 8], 0..1. Output `scores`, float32 [batch, 10]."
        f" {entry['parameters']:,} parameters."
    )
    parts = [
        f"# {entry['title']} (`{entry['file']}`)",
        _text(PURPOSES[entry["id"]]),
        "## Architecture",
        _text(ARCHITECTURES[entry["id"]]),
        network,
        "## Accuracy",
        f"Float: {entry['float_accuracy']:.2f} % of the {entry['test_samples']} held-out images.",
        "Weights only (BatchNorm folded, symmetric, narrow range, minmax; activations and biases float), in percent:",
        _table(entry),
        *(_why(entry) if "depthwise" in entry else []),
        "## Training",
        _text(TRAINING.format(id=entry["id"], **entry["training"])),
        "## Data and licence",
        _text(DATA),
    ]
    return "\n\n".join(parts) + "\n"


def _table(entry: dict[str, Any]) -> str:
    lines = ["| bits | one scale per tensor | one scale per channel |", "|---|---|---|"]
    for row in entry["weight_only_accuracy"]:
        lines.append(f"| {row['bits']} | {row['per_tensor']:.2f} | {row['per_channel']:.2f} |")
    return "\n".join(lines)


def _why(entry: dict[str, Any]) -> list[str]:
    """Explain the gap of the depthwise network with its own figures."""
    eight = next(row for row in entry["weight_only_accuracy"] if row["bits"] == 8)
    lines = [
        "| depthwise layer | largest over median channel range | variance of that channel | median variance |",
        "|---|---|---|---|",
    ]
    for row in entry["depthwise"]:
        lines.append(
            f"| {row['layer']} | {row['largest_over_median_range']:g} | {row['variance_of_that_channel']:.1e} |"
            f" {row['median_variance']:.1e} |"
        )
    return [
        "## Why one scale per tensor fails at 8 bits",
        _text(WHY.format(rate=entry["training"]["learning_rate"], **eight)),
        "After folding:",
        "\n".join(lines),
        _text(SEEDS),
    ]


def _text(paragraphs: str) -> str:
    wrapped = [textwrap.fill(" ".join(each.split()), 110) for each in paragraphs.strip().split("\n\n")]
    return "\n\n".join(wrapped)
