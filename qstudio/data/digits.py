"""The built-in dataset: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(https://doi.org/10.24432/C50P49, CC BY 4.0); scikit-learn ships the test part. Values are 0..16.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.data.reading import reading
from qstudio.data.sources import ArraySource, Found, Part

WHITE = 16
_FILE = Path("datasets", "data", "digits.csv.gz")


def read_digits() -> Found:
    """Describe the built-in digits, with the split that the sample models are trained and judged with.

    Of each class, every third sample in the order of sha256("digits:INDEX") is a test sample (602 in all), so the split
    is stratified and the same with every version of every library.

    Raises:
        UserError: scikit-learn is not installed.
    """
    path, images, labels = _images_and_labels()
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=_shuffled)
        test[members[::3]] = True
    parts = {}
    for split, chosen in (("train", ~test), ("test", test)):
        pixels = images[chosen]
        name = f"digits: {split}"
        source = ArraySource(pixels.shape, pixels.dtype, lambda pixels=pixels: pixels, name, WHITE)  # type: ignore[misc]
        parts[split] = Part(source, labels[chosen])
    return Found("digits", parts, (str(path),), class_names=tuple("0123456789"), scale=float(WHITE))


def _shuffled(index: int) -> bytes:
    return hashlib.sha256(f"digits:{index}".encode()).digest()


def _images_and_labels() -> tuple[Path, NDArray[np.uint8], NDArray[np.int64]]:
    """Read the file itself: importing sklearn.datasets takes a second, reading 1,797 lines takes none."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise UserError("scikit-learn is not installed", "digits", "Install it with pip install scikit-learn")
    path = Path(package.submodule_search_locations[0]) / _FILE
    with reading(path, "the digits of scikit-learn"):
        table = np.loadtxt(path, delimiter=",")
    return path, table[:, :-1].astype(np.uint8).reshape(-1, 8, 8), table[:, -1].astype(np.int64)
