"""How data is named on a command line: the same options for the window, the commands and `qstudio.launch`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from qstudio.core.errors import UserError

if TYPE_CHECKING:
    from qstudio.engine.messages import DataSpec


def add_data_options(group: argparse._ActionsContainer, required: bool = False) -> None:
    """Add --data and the options that say how it is read."""
    group.add_argument(
        "--data",
        metavar="D",
        required=required,
        help="evaluation data: 'digits' (built in), an .npz with x,y or x_train,y_train,x_test,y_test, a folder of IDX "
        "files (MNIST), of CIFAR batches or of images by class, or a .txt file for language models",
    )
    group.add_argument("--mean", nargs="+", metavar="X", help="subtracted after scaling: one value, or one per channel")
    group.add_argument("--std", nargs="+", metavar="X", help="divided by after that: one value, or one per channel")
    group.add_argument("--scale", type=float, metavar="X", help="uint8 values are divided by this (default: 255)")
    group.add_argument("--size", metavar="H[xW]", help="images are resized to this many pixels")
    group.add_argument("--layout", metavar="L", help="how samples are stored: nhwc, nchw, nhw or as-is")
    group.add_argument("--split", choices=("train", "test"), help="evaluate on this split (default: test)")


def data_spec(arguments: argparse.Namespace) -> DataSpec | None:
    """Return how the data is read; None without --data.

    Raises:
        UserError: An option is not a number, or not a size.
    """
    if arguments.data is None:
        return None
    from qstudio.engine.messages import DataSpec  # loads numpy, which --help can do without

    return DataSpec(
        arguments.data,
        mean=_numbers(arguments.mean, "--mean"),
        std=_numbers(arguments.std, "--std"),
        scale=arguments.scale,
        size=_size(arguments.size),
        layout=arguments.layout,
        split=arguments.split,
    )


def data_words(spec: DataSpec) -> list[str]:
    """Return the options that `data_spec` reads back as this spec."""
    words = ["--data", spec.source]
    for name in ("mean", "std"):
        values = getattr(spec, name)
        if values is not None:
            words += [f"--{name}", *map(repr, values)]
    if spec.size is not None:
        words += ["--size", f"{spec.size[0]}x{spec.size[1]}"]
    for name in ("scale", "layout", "split"):
        value = getattr(spec, name)
        if value is not None:
            words += [f"--{name}", str(value)]
    return words


def _numbers(texts: list[str] | None, where: str) -> tuple[float, ...] | None:
    if texts is None:
        return None
    parts = [part for text in texts for part in text.split(",") if part]
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        fix = "Give numbers, for example 0.485 0.456 0.406, and MODEL before them"
        raise UserError(f"'{' '.join(texts)}' is not a list of numbers", where, fix) from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) for part in parts):
        raise UserError(f"'{text}' is not a size", "--size", "Give one number, or HEIGHTxWIDTH")
    return int(parts[0]), int(parts[-1])
