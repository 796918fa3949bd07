"""Folders of images, one sub-folder per class, with or without train and test folders above them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qstudio.core.errors import UserError
from qstudio.data.reading import reading
from qstudio.data.sources import Found, Part

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# 8192 x 8192: larger than any photograph a network is fed with, small enough (192 MiB as RGB) to decode safely.
LARGEST_PIXELS = 2**26
_TRAIN = frozenset(("train", "training"))
_TEST = frozenset(("test", "testing", "val", "valid", "validation", "eval"))


class ImageSource:
    """Image files, decoded when asked for, all grey or all colour."""

    def __init__(self, paths: Sequence[Path], grey: bool) -> None:
        """Keep the paths; nothing is opened.

        Args:
            paths: One file per sample.
            grey: Whether samples are [H, W]; otherwise [H, W, 3].
        """
        self.paths = tuple(paths)
        self.grey = grey

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, indices: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return decoded images, uint8 [H, W] or [H, W, 3] each, which may differ in size."""
        return [decoded(self.paths[index], self.grey) for index in indices]

    def names(self, indices: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the path of each image."""
        return tuple(str(self.paths[index]) for index in indices)


def decoded(path: Path, grey: bool) -> NDArray[np.uint8]:
    """Return one image, uint8 [H, W] if grey, else [H, W, 3].

    Raises:
        UserError: Damaged, of an unknown format, or of more than 2**26 pixels.
    """
    with reading(path, "an image"), _opened(path) as image:
        return np.asarray(image.convert("L" if grey else "RGB"))


def _opened(path: Path) -> Image.Image:
    """Open an image and look at its header only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
        try:
            image = Image.open(path, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise UserError("the image is too large to be decoded safely", str(path), "Make it smaller") from error
    if image.width * image.height > LARGEST_PIXELS:
        image.close()
        raise UserError(
            f"the image has {image.width:,} x {image.height:,} pixels, too many to be decoded safely",
            str(path),
            "Make it smaller",
        )
    return image


def _is_grey(path: Path) -> bool:
    with reading(path, "an image"), _opened(path) as image:
        return image.mode in ("1", "L", "LA", "I", "I;16", "F")


def holds_images(folder: Path) -> bool:
    """Return whether there are image files in the folder, its sub-folders or theirs."""
    level = [folder]
    for _ in range(3):
        if any(_image_files(each) for each in level):
            return True
        level = [child for each in level for child in _folders(each)]
    return False


def read_images(folder: Path) -> Found:
    """Describe a folder of images without decoding them.

    Labels are the positions of the class folders in order of name (in order of number where all are numbers). Images
    that lie in no class folder make a dataset without labels. Samples are grey if the first image of each class is.

    Raises:
        UserError: No images, or class folders that differ between train and test.
    """
    notes: list[str] = []
    splits = _split_folders(folder, notes)
    classes = {split: [child for child in _folders(root) if _image_files(child)] for split, root in splits.items()}
    names = _in_order({child.name for children in classes.values() for child in children})
    found: dict[str, tuple[list[Path], list[int] | None]] = {}
    for split, root in splits.items():
        flat = _image_files(root)
        if classes[split]:
            if flat:
                notes.append(f"{len(flat)} images in {root} lie in no class folder and are left out")
            files = [(file, names.index(child.name)) for child in classes[split] for file in _image_files(child)]
            found[split] = ([file for file, _ in files], [label for _, label in files])
        elif flat:
            found[split] = (flat, None)
    if not found:
        raise UserError("there are no images", str(folder), "Choose a folder with one sub-folder of images per class")
    paths = [path for files, _ in found.values() for path in files]
    firsts = {path.parent: path for path in reversed(paths)}
    grey = all(_is_grey(path) for path in firsts.values())
    parts = {
        split: Part(ImageSource(files, grey), None if labels is None else np.array(labels, dtype=np.int64))
        for split, (files, labels) in found.items()
    }
    return Found("images", parts, tuple(map(str, paths)), class_names=tuple(names), warnings=tuple(notes))


def _split_folders(folder: Path, notes: list[str]) -> dict[str, Path]:
    """Return train and test folders if there are such and no others, else the folder itself."""
    children = _folders(folder)
    lower = {child.name.lower(): child for child in children}
    if not children or not all(name in _TRAIN | _TEST for name in lower):
        return {"test": folder}
    splits = {}
    for split, accepted in (("train", sorted(_TRAIN)), ("test", sorted(_TEST))):
        present = [lower[name] for name in accepted if name in lower]
        if present:
            splits[split] = present[0]
        notes += [f"the folder {other.name} is left out, {present[0].name} is used" for other in present[1:]]
    return splits


def _in_order(names: set[str]) -> list[str]:
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.suffix.lower() in SUFFIXES and child.is_file())
