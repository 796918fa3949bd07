"""What a traced sample says, in words, and its pictures as arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.inspection import LayerMaps, SampleTrace
from qstudio.session.session import Session
from qstudio.ui.data.colormap import as_plane, is_picture
from qstudio.ui.plots.images import Image, Place
from qstudio.ui.plots.score_bars import Score
from qstudio.ui.text import format_value, tr

SHOWN_CLASSES = 5
TOKENS = 40
"""Token ids that are written out."""


def why_no_sample(session: Session) -> str:
    """Return what to tell instead of a sample: what is missing, or how far it is; empty when there is one."""
    model, pictures = session.model, session.pictures
    if model is None:
        return tr("Open a model to follow a sample through its layers")
    if not model.runnable:
        node, operator, _ = model.unsupported[0]
        return f"{tr('The model cannot run here, so no sample goes through it')}: {operator} ({node})"
    if session.dataset is None:
        if len(model.inputs) > 1:
            return tr("The model has several inputs; samples are shown for models with one")
        return tr("Choose a dataset to follow a sample through the layers")
    if pictures.problem:
        return pictures.problem
    if pictures.trace is None and session.preview.request() is None:
        return tr("The sample is shown as soon as the calibration samples have been looked at")
    if pictures.trace is None:
        return tr("Following the sample through the layers…")
    return ""


def class_name(trace: SampleTrace, number: int) -> str:
    """Return a class by name, else by number."""
    return trace.class_names[number] if 0 <= number < len(trace.class_names) else str(number)


def are_classes(trace: SampleTrace) -> bool:
    """Return whether the scores are probabilities of classes."""
    scores = trace.float_scores
    return len(scores) > 1 and bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) < 1e-2


def best_scores(trace: SampleTrace, count: int = SHOWN_CLASSES) -> tuple[Score, ...]:
    """Return the `count` classes with the largest scores on either side, the float network's first."""
    first, second = trace.float_scores, trace.quantized_scores
    if not len(first):
        return ()
    largest = np.maximum(np.abs(first), np.abs(second)) if not are_classes(trace) else np.maximum(first, second)
    chosen = np.argsort(-largest, kind="stable")[:count].tolist()
    tops = (int(first.argmax()), int(second.argmax())) if are_classes(trace) else (-1, -1)
    chosen.sort(key=lambda number: -float(first[number]))
    return tuple(
        Score(
            class_name(trace, number) if are_classes(trace) else f"{tr('output')} {number}",
            float(first[number]),
            float(second[number]),
            number == trace.label and are_classes(trace),
            number == tops[0],
            number == tops[1],
        )
        for number in chosen
    )


def verdict(trace: SampleTrace) -> tuple[str, str]:
    """Return what becomes of the sample's class, and the role of the words ("worse", "better", "watch" or "")."""
    if not are_classes(trace):
        return tr("The outputs are no class scores"), "muted"
    before, after = int(trace.float_scores.argmax()), int(trace.quantized_scores.argmax())
    label = trace.label if trace.label is not None and 0 <= trace.label < len(trace.float_scores) else None
    if before == after:
        words = f"{tr('Both say')} {class_name(trace, after)}"
        if label is None:
            return words, ""
        return (f"✓ {words}", "") if after == label else (f"✗ {words}, {tr('label')} {class_name(trace, label)}", "")
    words = f"{class_name(trace, before)} → {class_name(trace, after)}"
    if label is None:
        return f"{tr('The class flips')}: {words}", "watch"
    if after == label:
        return f"✓ {tr('Flips to right')}: {words}", "better"
    if before == label:
        return f"✗ {tr('Flips to wrong')}: {words}", "worse"
    return f"✗ {tr('Flips, wrong both times')}: {words}, {tr('label')} {class_name(trace, label)}", "watch"


def input_image(stored: NDArray[Any]) -> Image | None:
    """Return a stored sample as an image; None for token ids, which are words."""
    if stored.ndim <= 1:
        if stored.dtype.kind in "iu" and stored.dtype != np.uint8:
            return None
        return Image("", np.asarray(stored, np.float32).reshape(1, -1), "value", colour="float")
    if is_picture(stored):
        return Image("", as_plane(stored), "picture")
    plane = as_plane(stored)
    if plane.ndim == 3:  # floats in three channels: each channel beside the other
        plane = np.concatenate(list(np.moveaxis(plane, -1, 0)), axis=1)
    return Image("", np.asarray(plane, np.float32), "value")


def token_words(stored: NDArray[Any]) -> str:
    """Return token ids as words."""
    ids = stored.reshape(-1)
    more = "…" if len(ids) > TOKENS else ""
    return f"{len(ids)} {tr('token ids')}: {' '.join(map(str, ids[:TOKENS].tolist()))}{more}"


# ---- feature maps


def channels_across(maps: LayerMaps) -> int:
    """Return how many channels stand side by side: the whole is about as wide as high, and full where that goes."""
    channels, height, width = maps.float.shape
    ideal = math.sqrt(channels * height / width)
    full = [count for count in range(1, channels + 1) if channels % count == 0 and ideal / 1.5 <= count <= ideal * 1.5]
    best = min(full, key=lambda count: abs(count - ideal), default=math.ceil(ideal))
    return int(min(max(best, 1), channels))


def mosaic(planes: NDArray[np.float32], across: int) -> NDArray[np.float32]:
    """Return [C, H, W] as rows of `across` channels, filled up with the first value."""
    channels, height, width = planes.shape
    down = -(-channels // across)
    whole = np.full((down * across, height, width), planes.flat[0], np.float32)
    whole[:channels] = planes
    return np.ascontiguousarray(
        whole.reshape(down, across, height, width).transpose(0, 2, 1, 3).reshape(down * height, across * width)
    )


def map_images(maps: LayerMaps) -> dict[str, Image]:
    """Return a layer's maps as images: "float", "quantized", "difference"."""
    across = channels_across(maps)
    channels, height, width = maps.float.shape
    tile = (height, width) if channels > 1 else (0, 0)
    first, second = mosaic(maps.float, across), mosaic(maps.quantized, across)
    return {
        "float": Image(tr("float"), first, "value", tile, channels, "float"),
        "quantized": Image(tr("quantized"), second, "value", tile, channels, "quantized"),
        "difference": Image(tr("quantized − float"), second - first, "difference", tile, channels, "watch"),
    }


def map_words(maps: LayerMaps, place: Place) -> str:
    """Return channel, position and the three values at a place of the mosaic; empty beyond the last channel."""
    channels, height, width = maps.float.shape
    across = channels_across(maps)
    channel = place[0] // height * across + place[1] // width
    if channel >= channels:
        return ""
    row, column = place[0] % height, place[1] % width
    before, after = float(maps.float[channel, row, column]), float(maps.quantized[channel, row, column])
    if height == width == 1 or (channels == 1 and height == 1):
        where = f"{tr('value')} {column if channels == 1 else channel}"
    elif channels == 1:
        where = f"{tr('row')} {row}, {tr('column')} {column}"
    else:
        where = f"{tr('channel')} {channel}, {tr('row')} {row}, {tr('column')} {column}"
    return f"{where}: {three_values(before, after)}"


def three_values(before: float, after: float) -> str:
    """Return float, quantized and difference in words."""
    return (
        f"{tr('float')} {format_value(before)}, {tr('quantized')} {format_value(after)}, "
        f"{tr('difference')} {after - before:+.3g}"
    )


def map_notes(maps: LayerMaps) -> str:
    """Return the size of a layer's output and what of it is not shown."""
    size = " × ".join(map(str, maps.shape)) or "1"
    words = [size]
    channels, height, width = maps.float.shape
    if channels < maps.channels:
        words.append(f"{tr('first')} {channels} {tr('of')} {maps.channels:,} {tr('channels')}")
    values = math.prod(maps.shape)
    if channels * height * width < values * channels // max(maps.channels, 1):
        words.append(f"{tr('averaged down to')} {height} × {width}")
    return ", ".join(words)
