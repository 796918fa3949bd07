"""Text files for language models that read bytes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.data.reading import reading
from qstudio.data.sources import Found, Part, TextSource

DEFAULT_WINDOW = 64


def read_text(path: Path, window: int = DEFAULT_WINDOW) -> Found:
    """Describe a text file as windows of byte values.

    The file is cut into windows of `window` bytes, one after the other; what remains at the end is left out. A sample
    is int64 [window] with values 0..255, its label is the byte that follows. No tokenizer is involved: for a model with
    a vocabulary of its own, save token ids as int64 in an .npz file.

    Raises:
        UserError: The file is too short for one window and the byte after it.
    """
    with reading(path, "a text file"):
        size_bytes = path.stat().st_size
    count = (size_bytes - 1) // window
    if count < 1:
        raise UserError(
            f"its {size_bytes} bytes hold no window of {window}", str(path), "Use a longer text or a smaller --size"
        )

    def mapped() -> NDArray[np.uint8]:
        with reading(path, "a text file"):
            return cast("NDArray[np.uint8]", np.memmap(path, np.uint8, "r"))

    source = TextSource(mapped, count, window, str(path))
    return Found("text", {"test": Part(source, source.next_tokens())}, (str(path),), scale=1.0, tabular=True)
