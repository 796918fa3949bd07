"""Formats whose codes stand for a finite set of levels: logarithms, powers of two, codebooks, one and two bits.

A builder turns rows of values into levels and the boundaries between them:
(rows [R, N], valid [R, N] or None, reach [R], bits) -> (levels [R, L], bounds [R, L - 1]), both float32 and ascending.
A value x takes level i when bounds[i - 1] <= x < bounds[i]. `valid` marks real values (groups are padded with zeros);
`reach` is the largest magnitude of the calibrated range, for the formats that use one. Boundaries are the smallest
float32 at or, where a formula sends the tie down, above the exact boundary: comparing with them is the formula itself.
Rows of zeros take a reach of 1, and rows of one value keep it where the format can hold it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import as_groups
from qstudio.core.codebook import kmeans_levels
from qstudio.core.encodings import LevelEncoding
from qstudio.core.formats import format_of
from qstudio.core.registry import resolve
from qstudio.core.scheme import TENSOR, Granularity, Scheme

Rows = NDArray[np.float32]
Valid = NDArray[np.bool_] | None
Reach = NDArray[np.float64]
Levels = tuple[NDArray[np.float32], NDArray[np.float32]]
Builder = Callable[[Rows, Valid, Reach, int], Levels]
Ends = NDArray[np.floating] | float | None
Number = TypeVar("Number", bound=np.generic)

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""NormalFloat 4 (Dettmers et al., QLoRA, 2023, appendix E)."""

_LARGEST = float(np.finfo(np.float32).max)

_COMPARED = 32
"""Levels up to which comparing with every boundary is faster than a search."""


def binary(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return -E|x| and E|x|, with 0 taking the positive one (Rastegari et al., XNOR-Net, 2016)."""
    magnitude = _mean(np.abs(rows), valid)
    levels = np.stack([-magnitude, magnitude], axis=1).astype(np.float32)
    return levels, np.zeros((len(rows), 1), np.float32)


def ternary(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return -alpha, 0, alpha with alpha = E(|x| : |x| > D), D = 0.7 E|x| (Li et al., TWN, 2016)."""
    magnitude = np.abs(rows).astype(np.float64)
    threshold = 0.7 * _mean(magnitude, valid)
    edge = _at_least(threshold[:, None], np.array([True]), threshold[:, None])
    above = (magnitude >= edge) if valid is None else (magnitude >= edge) & valid
    alpha = np.where(above, magnitude, 0.0).sum(axis=1) / np.maximum(above.sum(axis=1), 1)
    levels = np.stack([-alpha, np.zeros_like(alpha), alpha], axis=1).astype(np.float32)
    return levels, np.concatenate([-np.nextafter(edge, np.float32(-np.inf)), edge], axis=1)


def log(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return sign(k) (e^(|k| / alpha) - 1), alpha = n / ln(1 + reach), n = 2^(b-1) - 1 (Miyashita et al., 2016)."""
    count = _magnitudes(bits)
    alpha = count / np.log1p(_positive(reach))
    return _rounded_codes(lambda k: np.expm1(k / alpha[:, None]), count)


def log2(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return the levels of base 2, sign(k) (2^(|k| / alpha) - 1) (Miyashita et al., 2016).

    alpha = 2^floor(log2(n / log2(reach + 1))), n = 2^(b-1) - 1.
    """
    count = _magnitudes(bits)
    ideal = count / (np.log1p(_positive(reach)) / np.log(2.0))
    # A reach of 2^k - 1 makes the quotient a whole power of two, which the logarithms miss by a digit.
    alpha = np.exp2(np.floor(np.log2(ideal) + 1e-12))
    return _rounded_codes(lambda k: np.expm1(k / alpha[:, None] * np.log(2.0)), count)


def pow2(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return 0 and signed powers of two, their exponents the 2^(b-1)-1 up to round(log2 reach) (Zhou et al., 2017).

    |x| takes 2^round(log2 |x|); below half of the smallest power it takes 0.
    """
    count = _magnitudes(bits)
    top = np.minimum(np.rint(np.log2(_positive(reach))), 127.0)
    exponents = top[:, None] - np.arange(count - 1, -1, -1)
    edges = np.exp2(exponents - 0.5)
    edges[:, 0] = np.exp2(exponents[:, 0] - 1)
    return _signed(np.exp2(exponents), edges, np.ones(count, bool))


def apot(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return mean + scale p, with p the signed sums of two powers of two over the largest (Li et al., APoT, 2020).

    The mean is the row's and scale the largest |x - mean| inside [-reach, reach]; the paper's division by the standard
    deviation cancels, its clipping threshold is scale / std. The nearest level is taken.
    """
    first, second = _APOT[bits]
    sums = np.array(sorted({a + b for a in first for b in second}))
    steps = np.concatenate([-sums[:0:-1], sums]) / sums[-1]
    mean = _mean(rows, valid)
    inside = np.clip(rows, -reach[:, None], reach[:, None]) - mean[:, None]
    scale = np.abs(inside if valid is None else np.where(valid, inside, 0.0)).max(axis=1)
    return _nearest(mean[:, None] + scale[:, None] * steps)


_APOT: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    3: ((0, 2**-1, 2**-2, 2**-3), (0,)),
    4: ((0, 2**-1, 2**-2, 2**-4), (0, 2**-3)),
    5: ((0, 2**-1, 2**-3, 2**-5), (0, 2**-2, 2**-4, 2**-6)),
}
"""The two sets of powers by width, sign included, as in the paper's own code (build_power_value of width - 1)."""


def quadratic(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return sign(k) sqrt(|k| / beta), beta = n / reach^2, n = 2^(b-1) - 1."""
    count = _magnitudes(bits)
    scale = _positive(reach)[:, None]
    return _rounded_codes(lambda k: scale * np.sqrt(k / count), count)


def statistical(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return mean + 3 std k / n for k = -n .. n, n = 2^(b-1) - 1; std is the population's."""
    count = _magnitudes(bits)
    mean = _mean(rows, valid)[:, None]
    spread = 3.0 * np.sqrt(_mean((rows - mean) ** 2, valid))[:, None]
    codes = np.arange(-count, count + 1)
    bounds = mean + spread * ((codes[:-1] + 0.5) / count)
    goes_down = codes[1:] % 2 != 0  # half-way goes to the even code
    return _float32(mean + spread * (codes / count)), _at_least(bounds, goes_down, np.abs(mean) + spread)


def kmeans(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return 2^b means placed by Lloyd's iteration; see `qstudio.core.codebook`."""
    return _nearest(kmeans_levels(rows, valid, 1 << bits))


def nf4(rows: Rows, valid: Valid, reach: Reach, bits: int) -> Levels:
    """Return reach times the sixteen levels of NormalFloat 4."""
    return _nearest(_positive(reach)[:, None] * np.array(NF4))


def level_encoding(
    scheme: Scheme,
    values: NDArray[np.floating],
    axis: int | None,
    low: Ends,
    high: Ends,
    leave_out: NDArray[np.integer] | None = None,
) -> LevelEncoding:
    """Return the levels of a weight, one row for each tensor, channel or group.

    Args:
        scheme: Its scheme, in a format of the family "levels".
        values: The weight, finite.
        axis: Its channel axis; None for tensor granularity whatever the scheme says.
        low: Smallest value of the calibrated range, [], [C] or [C, G]; None for the smallest of each row.
        high: Largest value of the calibrated range, likewise.
        leave_out: Flat positions of values that stay float and have no part in the levels.
    """
    granularity = scheme.granularity if axis is not None else TENSOR
    real = np.ones(values.shape, bool)
    if leave_out is not None:
        real.reshape(-1)[leave_out] = False
    rows = _rows(np.asarray(values, np.float32), granularity, axis)
    valid = _rows(real.astype(np.float32), granularity, axis) > 0
    everything = bool(valid.all())
    if low is None or high is None:
        reach = np.abs(rows if everything else np.where(valid, rows, np.float32(0))).max(axis=1).astype(np.float64)
    else:
        ends = np.maximum(np.abs(np.asarray(low, np.float64)), np.abs(np.asarray(high, np.float64)))
        reach = np.broadcast_to(ends.reshape(-1), (len(rows),)).copy()
    return _encoding(scheme, rows, None if everything else valid, reach, granularity, axis)


def activation_levels(scheme: Scheme, low: float, high: float) -> LevelEncoding:
    """Return the levels of an activation from its calibrated range; both signs have the same levels."""
    reach = np.array([max(abs(low), abs(high))], np.float64)
    return _encoding(scheme, np.zeros((1, 1), np.float32), None, reach, TENSOR, None)


def level_codes(values: NDArray[np.floating], encoding: LevelEncoding) -> NDArray[np.int32]:
    """Return the index of the level each value takes, in the shape of the values; NaN takes the first."""
    x = np.asarray(values, np.float32)
    rows = _rows(x, encoding.granularity, encoding.axis)
    return _back(_indices(rows, encoding.bounds).astype(np.int32), x.shape, encoding)


def round_to_levels(values: NDArray[np.floating], encoding: LevelEncoding) -> NDArray[np.float32]:
    """Return each value's level, in the shape of the values; NaN stays NaN."""
    x = np.asarray(values, np.float32)
    rows = _rows(x, encoding.granularity, encoding.axis)
    count = encoding.levels.shape[1]
    row = np.arange(len(encoding.levels), dtype=np.intp)[:, None] * count
    found = encoding.levels.reshape(-1)[_indices(rows, encoding.bounds) + row]
    found = np.where(np.isnan(rows), rows, found)
    return _back(found, x.shape, encoding)


def _encoding(
    scheme: Scheme, rows: Rows, valid: Valid, reach: Reach, granularity: Granularity, axis: int | None
) -> LevelEncoding:
    found, _ = format_of(scheme.format)
    bits = found.width(scheme.bits)
    levels, bounds = cast("Builder", resolve(found.target))(rows, valid, reach, bits)
    fine = granularity.kind != "tensor"
    return LevelEncoding(levels, bounds, bits, scheme.format, granularity, axis if fine else None)


def _indices(rows: Rows, bounds: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return how many boundaries each value has reached.

    Few boundaries are compared with one after the other (40 ms for a million values and 16 levels); more are found by a
    binary search of all values at once.
    """
    flat, width = bounds.reshape(-1), bounds.shape[1]
    if width < _COMPARED:
        count = np.zeros(rows.shape, np.uint8)
        for i in range(width):
            count += rows >= bounds[:, i : i + 1]
        return count.astype(np.intp)
    offset = np.arange(len(bounds), dtype=np.intp)[:, None] * width
    found = np.zeros(rows.shape, np.intp)
    step = 1 << (width.bit_length() - 1)
    while step:
        probe = found + step
        reached = rows >= flat[offset + np.minimum(probe, width) - 1]
        np.copyto(found, probe, where=reached & (probe <= width))
        step >>= 1
    return found


def _rows(values: Rows, granularity: Granularity, axis: int | None) -> Rows:
    """Return a tensor as [R, N] rows that share levels."""
    groups = as_groups(values, granularity if axis is not None else TENSOR, axis or 0)
    return np.ascontiguousarray(groups.reshape(-1, groups.shape[-1]), np.float32)


def _back(rows: NDArray[Number], shape: tuple[int, ...], encoding: LevelEncoding) -> NDArray[Number]:
    """Undo `_rows`."""
    axis = encoding.axis
    if axis is None:
        return rows.reshape(shape)
    others = [n for i, n in enumerate(shape) if i != axis]
    flat = rows.reshape(shape[axis], -1)[:, : int(np.prod(others))]
    return np.ascontiguousarray(np.moveaxis(flat.reshape([shape[axis], *others]), 0, axis))


def _magnitudes(bits: int) -> int:
    """Return the largest code of a signed format without a negative zero."""
    return max((1 << (bits - 1)) - 1, 1)


def _mean(values: NDArray[np.floating], valid: Valid) -> NDArray[np.float64]:
    """Return [R] means of the real values, in float64."""
    if valid is None:
        return np.asarray(values.mean(axis=1, dtype=np.float64))
    return np.asarray(np.where(valid, values, 0.0).sum(axis=1, dtype=np.float64) / np.maximum(valid.sum(axis=1), 1))


def _positive(reach: Reach) -> Reach:
    return np.where(reach > 0, reach, 1.0)


def _float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)


def _nearest(levels: NDArray[np.float64]) -> Levels:
    """Return levels with the boundaries half-way between them; ties go up."""
    held = _float32(levels)
    exact = held.astype(np.float64)
    middle = (exact[:, :-1] + exact[:, 1:]) / 2
    return held, _at_least(middle, np.zeros(middle.shape[1], bool), np.zeros_like(middle))


def _rounded_codes(value: Callable[[NDArray[np.float64]], NDArray[np.float64]], count: int) -> Levels:
    """Return levels and boundaries of sign(x) clamp(round(f(|x|)), 0, count), half to even, from f's inverse."""
    codes = np.arange(1, count + 1, dtype=np.float64)
    return _signed(value(codes[None, :]), value(codes[None, :] - 0.5), codes % 2 == 0)


def _signed(magnitudes: NDArray[np.float64], edges: NDArray[np.float64], goes_up: NDArray[np.bool_]) -> Levels:
    """Return zero and both signs of [R, n] magnitudes; a magnitude on an edge takes the larger where it goes up."""
    zero = np.zeros((len(magnitudes), 1))
    levels = np.concatenate([-magnitudes[:, ::-1], zero, magnitudes], axis=1)
    below = _at_least(-edges[:, ::-1], goes_up[::-1], np.abs(edges[:, ::-1]))
    return _float32(levels), np.concatenate([below, _at_least(edges, ~goes_up, np.abs(edges))], axis=1)


def _at_least(edges: NDArray[np.float64], strict: NDArray[np.bool_], size: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the smallest float32 that is at least (strict: above) each edge.

    `size` is the magnitude of the terms an edge was computed from: a float32 within their rounding error, 1e-15 of
    it, is the edge itself. Edges closer than float32 can tell apart stay in order.
    """
    with np.errstate(over="ignore"):
        near = edges.astype(np.float32)
    with np.errstate(invalid="ignore"):
        equal = np.abs(near.astype(np.float64) - edges) <= 1e-15 * size
    raised = np.where(equal, strict, near.astype(np.float64) < edges)
    above = np.nextafter(near, np.float32(np.inf))
    return np.maximum.accumulate(np.where(raised, above, near), axis=1)
