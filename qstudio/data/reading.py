"""Reading files that may be damaged or hostile: every fault becomes one sentence, and no size is taken on trust."""

from __future__ import annotations

import gzip
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qstudio.core.errors import UserError

# Measured on real data: MNIST expands 5 times, CIFAR-10 1.1 times, sparse label masks up to some 50 times. Deflate
# itself reaches 1032. What is small may expand as it likes.
LARGEST_EXPANSION = 100
FREE_BYTES = 64 * 2**20
# Up to here arrays are read when the data is opened, so that damage is found at once; larger ones at first use.
EAGER_BYTES = 256 * 2**20

_FAULTS = (
    ValueError,
    RuntimeError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever the libraries raise while they read `path` into a UserError.

    Args:
        path: The file, for the message.
        what: What it should be ("an .npz file").
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError("there is no such file or folder", str(path), "Check the path") from error
    except PermissionError as error:
        raise UserError("reading is not permitted", str(path), "Change its permissions") from error
    except MemoryError as error:
        raise UserError("it does not fit into memory", str(path), "Use a smaller part of the data") from error
    except _FAULTS as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(
            f"it cannot be read as {what} ({reason})", str(path), "It may be truncated: get it again"
        ) from error
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror or error})", str(path), "Check the path") from error


def refuse_bomb(declared_bytes: int, present_bytes: int, where: str) -> None:
    """Refuse data that claims to expand beyond reason, before any memory is taken for it.

    Args:
        declared_bytes: Size that the header claims after decompression.
        present_bytes: Compressed size on disk.
        where: The file and part, for the message.

    Raises:
        UserError: More than 64 MiB, and over 100 times what is there.
    """
    if declared_bytes > FREE_BYTES and declared_bytes > LARGEST_EXPANSION * max(present_bytes, 1):
        raise UserError(
            f"it claims to expand from {present_bytes:,} to {declared_bytes:,} bytes",
            where,
            "Save it without compression if that is right",
        )
