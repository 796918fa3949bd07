"""Open data: which reader reads what, and how options are applied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qstudio.core.errors import UserError
from qstudio.data.cifar import cifar_files, read_cifar
from qstudio.data.dataset import Dataset, Split
from qstudio.data.digits import read_digits
from qstudio.data.idx import idx_image_files, read_idx
from qstudio.data.images import holds_images, read_images
from qstudio.data.labels import check_class_names
from qstudio.data.npz import read_npz
from qstudio.data.options import SUFFIX, ReadOptions, described_options, parsed_options
from qstudio.data.preprocess import AS_IS, Preprocess, image_size
from qstudio.data.reading import EAGER_BYTES, reading
from qstudio.data.sources import ArraySource, Found
from qstudio.data.text import DEFAULT_WINDOW, read_text

_KINDS = (
    "digits, an .npz file, a folder of IDX files (MNIST), of CIFAR batches or of images by class, or a .txt file for"
    " language models"
)
_CHANNELS = (1, 3, 4)
_FINITE_CHECK_ROWS = 1024


def load_dataset(
    spec: str,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: int | Sequence[int] | None = None,
    layout: str | None = None,
    split: str | None = None,
    scale: float | None = None,
) -> Dataset:
    """Open data by name or path.

    What is known without options: uint8 images [N, H, W, C] or [N, H, W] are divided by 255 and become float32
    [N, C, H, W]; float arrays are taken as they are; integers other than uint8 stay integers (token ids). Options come
    from a `.dataset.json` beside the data (see `qstudio.data.options`), explicit ones win.

    Args:
        spec: "digits", or a path: .npz, a folder of IDX files, of CIFAR-10/100 batches or of images by class, a .txt.
        mean: Subtracted after scaling, one value or one per channel.
        std: Divided by after that, one value or one per channel.
        size: Images are resized to this, a number or (height, width): scaled to cover it, centre kept. For a text file
            the length of a window in bytes (the last number).
        layout: How samples are stored: "nhwc", "nchw", "nhw" or "as-is"; "nhwc>nhwc" where the network wants
            channels last.
        split: Use only this part, "train" or "test", as a dataset of its own.
        scale: Divide stored values by this. 1 leaves uint8 images at 0..255, for networks that want no scaling; the
            default is 255 for uint8, 16 for digits and 1 for everything else. `mean` and `std` apply after it.

    Raises:
        UserError: The data is missing, damaged, empty, inconsistent or of an unknown kind, or an option is wrong.
    """
    chosen = {"mean": mean, "std": std, "size": size, "layout": layout, "split": split, "scale": scale}
    explicit = parsed_options(chosen, "--")
    described = ReadOptions()
    notes: tuple[str, ...] = ()
    path = Path(spec).expanduser()
    if spec == "digits":
        name, where = spec, spec
    else:
        with reading(path, "data"):
            path = path.resolve(strict=True)
            described, notes = described_options(path)
        name, where = path.name, str(path)
    options = explicit.over(described)
    found = read_digits() if spec == "digits" else _found(path, options)
    splits = _splits(found, options, where)
    warnings = notes + found.warnings + _doubts(explicit, described, splits)
    class_names = options.class_names or found.class_names
    for part in splits.values():
        if part is not None:
            check_class_names(part.labels, class_names, where)
    return Dataset(name, where, found.kind, splits, found.files, class_names, warnings)


def _found(path: Path, options: ReadOptions) -> Found:
    """Choose the reader by what is there."""
    name = path.name.lower()
    if path.is_dir():
        return _found_in_folder(path)
    if name.endswith(SUFFIX):
        raise UserError("it describes data and holds none", str(path), "Name the data file beside it")
    if name.endswith(".npz"):
        return read_npz(path)
    if name.endswith(".txt"):
        return read_text(path, options.size[1] if options.size else DEFAULT_WINDOW)
    if "idx" in name or name.endswith("ubyte") or name.endswith("ubyte.gz"):
        return read_idx(path)
    raise UserError("this kind of data is not known", str(path), f"Choose {_KINDS}")


def _found_in_folder(folder: Path) -> Found:
    with reading(folder, "a folder of data"):
        if idx_image_files(folder):
            return read_idx(folder)
        if cifar_files(folder):
            return read_cifar(folder)
        if holds_images(folder):
            return read_images(folder)
        archives = sorted(folder.glob("*.npz"))
        if len(archives) == 1:
            return read_npz(archives[0])
        if archives:
            names = ", ".join(archive.name for archive in archives)
            raise UserError(f"there are several .npz files ({names})", str(folder), "Name one of them")
        if not any(folder.iterdir()):
            raise UserError("the folder is empty", str(folder), f"Choose {_KINDS}")
    raise UserError("there is no data of a known kind in the folder", str(folder), f"Choose {_KINDS}")


def _splits(found: Found, options: ReadOptions, where: str) -> dict[str, Split | None]:
    parts = found.parts
    if options.split is not None:
        if options.split not in parts:
            raise UserError(f"there is no {options.split} split", where, "Leave out --split")
        parts = {"test": parts[options.split]}
    elif "test" not in parts:
        parts = {"test": parts["train"]}
    splits: dict[str, Split | None] = {"train": None, "test": None}
    shapes = {}
    for name, part in parts.items():
        preprocess, shapes[name] = _preprocess(found, part.source, options, where)
        splits[name] = Split(part.source, part.labels, preprocess)
        _check_finite(splits[name])
    if len(set(shapes.values())) > 1 and found.kind != "images":
        both = " and ".join(f"{name} {'x'.join(map(str, shape))} {kind}" for name, (shape, kind) in shapes.items())
        raise UserError(f"the splits do not match ({both})", where, "Save both with one shape and type")
    return splits


def _preprocess(
    found: Found, source: object, options: ReadOptions, where: str
) -> tuple[Preprocess, tuple[tuple[int, ...], str]]:
    """Decide how the samples of one split are prepared; also return their stored (shape, type)."""
    shape: tuple[int, ...] = ()
    dtype = np.dtype(np.uint8)
    channels: int | None = None
    if isinstance(source, ArraySource):
        shape, dtype = source.shape[1:], source.dtype
        _check_type(dtype, source.name)
        stored = _stored_layout(source.shape, dtype, options.layout, source.name)
        channels = _channels(shape, stored)
    elif found.tabular:
        return Preprocess(), ((), "int64")
    else:
        grey = bool(getattr(source, "grey", False))
        stored, channels = ("nhw", 1) if grey else ("nhwc", 3)
    network = AS_IS
    if stored != AS_IS:
        network = options.layout[1] if options.layout is not None and options.layout[1] else "nchw"
    for word, values in (("mean", options.mean), ("std", options.std)):
        if values is not None and len(values) not in (1, channels):
            raise UserError(
                f"{word} has {len(values)} values, the data has {channels} channels",
                where,
                f"Give --{word} one or {channels}",
            )
    size = options.size
    if size is not None and stored != AS_IS and shape and image_size(shape, stored) == size:
        size = None
    if size is not None and (stored == AS_IS or dtype != np.uint8):
        raise UserError("--size resizes uint8 images only", where, "Leave out --size, or save the images as uint8")
    scale = options.scale or (found.scale if dtype == np.uint8 else 1.0)
    return Preprocess(stored, network, scale, options.mean or (), options.std or (), size), (shape, str(dtype))


def _check_type(dtype: np.dtype[np.generic], where: str) -> None:
    signed = dtype.kind == "i"
    if not (dtype.kind == "f" or signed or dtype == np.uint8):
        raise UserError(f"samples are of type {dtype}", where, "Save them as uint8 (images) or float32")


def _stored_layout(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], chosen: tuple[str, str | None] | None, where: str
) -> str:
    if chosen is not None:
        stored = chosen[0]
        if stored != AS_IS and len(shape) != len(stored):
            extent = "x".join(map(str, shape))
            raise UserError(
                f"the data of shape {extent} cannot be {stored}", where, "Choose another --layout or leave it out"
            )
        return stored
    if dtype != np.uint8 or len(shape) not in (3, 4):
        return AS_IS
    if len(shape) == 3:
        return "nhw"
    return "nchw" if shape[3] not in _CHANNELS and shape[1] in _CHANNELS else "nhwc"


def _channels(shape: tuple[int, ...], stored: str) -> int:
    if stored == "nhw" or not shape:
        return 1
    return shape[-1] if stored == "nhwc" else shape[0]


def _doubts(explicit: ReadOptions, described: ReadOptions, splits: dict[str, Split | None]) -> tuple[str, ...]:
    """Return warnings about options that are probably not meant together."""
    doubts = []
    preprocess = next(split.preprocess for split in splits.values() if split is not None)
    if preprocess.scale == 255 and max(map(abs, preprocess.mean), default=0) > 1:
        doubts.append("mean is above 1 while values are scaled to 0..1: --scale 1 leaves them at 0..255")
    if explicit.scale is not None and described.scale is None:
        kept = [
            word for word in ("mean", "std") if getattr(explicit, word) is None and getattr(described, word) is not None
        ]
        if kept:
            doubts.append(
                f"{' and '.join(kept)} of the .dataset.json still apply after --scale: --mean 0 --std 1 turns them off"
            )
    return tuple(doubts)


def _check_finite(split: Split | None) -> None:
    """Report NaN and infinity in arrays that are in memory when the data is opened (others: in each batch)."""
    if split is None or not isinstance(split.source, ArraySource) or split.source.dtype.kind != "f":
        return
    if np.dtype(split.source.dtype).itemsize * int(np.prod(split.source.shape)) > EAGER_BYTES:
        return
    for _ in split.batches(np.arange(len(split)), _FINITE_CHECK_ROWS):
        continue
