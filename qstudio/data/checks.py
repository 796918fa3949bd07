"""Whether data and model fit together, said in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qstudio.core.errors import UserError
from qstudio.data.dataset import Dataset

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def check_against_model(
    dataset: Dataset,
    input_shape: Sequence[int | None],
    input_dtype: str,
    output_shape: Sequence[int | None],
) -> None:
    """Refuse data that the model cannot take.

    Args:
        dataset: The data.
        input_shape: Of the model's input, batch first; None where free. An empty one is not checked.
        input_dtype: numpy name of the input's type ("float32", "int64").
        output_shape: Of the model's first output; labels are checked against it when it is [batch, classes].

    Raises:
        UserError: Type, number of axes, channels, size or labels do not fit; says which and what to do.
    """
    _check_type(dataset, input_dtype)
    wanted = tuple(input_shape[1:])
    if input_shape:
        _check_shape(dataset, wanted)
    if len(output_shape) == 2 and output_shape[1] is not None and output_shape[1] > 1:
        _check_labels(dataset, output_shape[1])


def _check_type(dataset: Dataset, input_dtype: str) -> None:
    there = str(dataset.test.batch(np.zeros(1, np.int64)).dtype)
    if (there == "float32") == (input_dtype in _FLOATS) and not input_dtype.startswith(("uint", "bool", "str")):
        return
    raise UserError(
        f"the data gives {there} numbers, the model wants {input_dtype}",
        dataset.path,
        "Save x as float32 or uint8"
        if input_dtype in _FLOATS
        else "Save x as int64"
        if input_dtype.startswith("int")
        else "Export the model with a float32 input",
    )


def _check_shape(dataset: Dataset, wanted: tuple[int | None, ...]) -> None:
    there = dataset.sample_shape
    if len(there) == len(wanted) and all(b is None or a == b for a, b in zip(there, wanted, strict=True)):
        return
    raise UserError(
        f"the data has {_extent(there)}, the model wants {_extent(wanted)}",
        dataset.path,
        _advice(dataset, there, wanted),
    )


def _advice(dataset: Dataset, there: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    """Name the option that would make the data fit, if there is one."""
    images = dataset.preprocess.stored != "as is"
    if len(there) == len(wanted) == 3:
        moved = (there[2], there[0], there[1])
        if not images and _fits(moved, wanted):
            return "Choose --layout nhwc"
        if images and _fits((there[1], there[2], there[0]), wanted):
            return f"Choose --layout '{dataset.preprocess.stored}>nhwc'"
        if images and (wanted[0] is None or there[0] == wanted[0]) and None not in wanted[1:]:
            return f"Choose --size {wanted[1]}x{wanted[2]} or another dataset"
    if len(there) == 2 and len(wanted) == 3 and _fits((1, *there), wanted):
        return "Choose --layout nhw"
    return "Choose another dataset, or save x in the shape of the model's input"


def _fits(there: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return all(b is None or a == b for a, b in zip(there, wanted, strict=True))


def _extent(shape: Sequence[int | None]) -> str:
    sides = ["any" if side is None else str(side) for side in shape]
    if len(sides) == 3:
        return f"{sides[0]} {'channel' if sides[0] == '1' else 'channels'} {sides[1]}x{sides[2]}"
    return "samples of shape " + ("x".join(sides) or "()")


def _check_labels(dataset: Dataset, classes: int) -> None:
    for name, split in dataset.splits.items():
        if split is None or split.labels is None or int(split.labels.max()) < classes:
            continue
        index = int(np.argmax(split.labels >= classes))
        raise UserError(
            f"label {split.labels[index]} of {name} sample {index} is out of range: the model has {classes} outputs",
            dataset.path,
            "Choose another dataset or correct the labels (0 is the first class)",
        )
