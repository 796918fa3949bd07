"""Statistics of a site as bytes and back: a JSON header, then the arrays as they lie in memory, deflated."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.histogram import BINS, Histogram
from qstudio.core.statistics import Outlier, SiteStatistics
from qstudio.session.store.codec import dumps, loads, narrow

MOST_BYTES = 64 * 1024 * 1024
"""Of one site, inflated: a weight of 100,000 channels takes 52 MB."""

_LEVEL = 1
"""Of deflate: histograms are mostly small numbers; higher levels take twice the time for a tenth of the size."""

_DTYPES = ("uint8", "uint16", "uint32", "int64", "int32", "float32")
_DIMENSIONS = {"counts": 1, "channel_min": 1, "channel_max": 1, "channel_counts": 2, "extremes": 2}


@dataclass(frozen=True)
class _Header:
    site: str
    samples: int
    l1_norm: float
    outliers: tuple[Outlier, ...]
    low: float
    width: float
    zeros: int
    minimum: float
    maximum: float
    total: float
    total_square: float
    nonfinite: int
    arrays: tuple[tuple[str, str, tuple[int, ...]], ...]
    """(name, dtype, shape) in the order they follow."""


def pack(statistics: SiteStatistics) -> bytes:
    """Return the statistics of a site as bytes; exact in every field."""
    histogram = statistics.histogram
    arrays: dict[str, NDArray[Any]] = {
        "counts": narrow(histogram.counts),
        "channel_min": statistics.channel_min,
        "channel_max": statistics.channel_max,
    }
    if statistics.channel_counts is not None:
        arrays["channel_counts"] = narrow(statistics.channel_counts)
    if histogram.extremes is not None:
        arrays["extremes"] = histogram.extremes
    header = _Header(
        statistics.site,
        statistics.samples,
        statistics.l1_norm,
        statistics.outliers,
        histogram.low,
        histogram.width,
        histogram.zeros,
        histogram.minimum,
        histogram.maximum,
        histogram.total,
        histogram.total_square,
        histogram.nonfinite,
        tuple((name, str(array.dtype), tuple(array.shape)) for name, array in arrays.items()),
    )
    text = dumps(_Header, header, {}).encode()
    parts = [struct.pack("<I", len(text)), text, *(np.ascontiguousarray(array).tobytes() for array in arrays.values())]
    return zlib.compress(b"".join(parts), _LEVEL)


def unpack(data: object, where: str) -> SiteStatistics:
    """Read what `pack` wrote.

    Raises:
        UserError: The bytes are damaged.
    """
    try:
        return _unpack(data, where)
    except (zlib.error, struct.error, UnicodeDecodeError, ValueError, TypeError) as error:
        raise _damaged(str(error), where) from None


def _unpack(data: object, where: str) -> SiteStatistics:
    if not isinstance(data, bytes):
        raise _damaged(f"bytes were expected, not {type(data).__name__}", where)
    inflate = zlib.decompressobj()
    raw = inflate.decompress(data, MOST_BYTES)
    if not inflate.eof or inflate.unused_data:
        raise _damaged("it is cut off or too large", where)
    (length,) = struct.unpack_from("<I", raw)
    header = loads(_Header, raw[4 : 4 + length].decode(), {}, where)
    arrays: dict[str, NDArray[Any]] = {}
    at = 4 + length
    for name, kind, shape in header.arrays:
        if kind not in _DTYPES or len(shape) != _DIMENSIONS.get(name) or min(shape) < 0:
            raise _damaged(f"there is no array {name} {kind} {list(shape)}"[:200], where)
        count = prod(shape)
        if count > MOST_BYTES:
            raise _damaged(f"the array {name} is too large", where)
        arrays[name] = np.frombuffer(raw, kind, count, at).reshape(shape)
        at += arrays[name].nbytes
    if not {"counts", "channel_min", "channel_max"} <= set(arrays):
        raise _damaged("the histogram or the ranges of the channels are missing", where)
    if arrays["counts"].shape != (BINS,) or arrays["channel_min"].shape != arrays["channel_max"].shape:
        raise _damaged(f"a histogram has {BINS} bins, and ranges two ends", where)
    channels = arrays.get("channel_counts")
    extremes = arrays.get("extremes")
    histogram = Histogram(
        arrays["counts"].astype(np.int64),
        header.low,
        header.width,
        header.zeros,
        header.minimum,
        header.maximum,
        header.total,
        header.total_square,
        header.nonfinite,
        None if extremes is None else extremes.astype(np.float32, copy=False),
    )
    return SiteStatistics(
        header.site,
        histogram,
        arrays["channel_min"].astype(np.float32, copy=False),
        arrays["channel_max"].astype(np.float32, copy=False),
        header.outliers,
        header.samples,
        None if channels is None else channels.astype(np.int32),
        header.l1_norm,
    )


def _damaged(what: str, where: str) -> UserError:
    return UserError(f"statistics cannot be read ({what})", where)
