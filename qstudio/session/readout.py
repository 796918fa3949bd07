"""What a layer's ranges cost, from cached statistics, fast enough to follow a drag. No Qt, no engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, encode, integer_range, is_symmetric
from qstudio.core.calibration import CALIBRATORS, calibrations
from qstudio.core.channel_error import capped, channel_range_error
from qstudio.core.encodings import FloatEncoding, LevelEncoding
from qstudio.core.errors import UserError
from qstudio.core.formats import format_of
from qstudio.core.model_info import SiteInfo
from qstudio.core.range_error import RangeError, range_error
from qstudio.core.scheme import TENSOR, Granularity, Scheme
from qstudio.core.statistics import SiteStatistics
from qstudio.engine.messages import WeightPreview
from qstudio.session.other_readout import estimate
from qstudio.session.ranges import channel_range_ends, channels_of, fill_tensor_ranges, tensor_range

if TYPE_CHECKING:
    from qstudio.session.session import Session

Side = Literal["weight", "activation"]
"""Which of a layer's two tensors is looked at."""

Edge = Literal["low", "high"]


@dataclass(frozen=True, eq=False)
class Readout:
    """What one scheme does to one site."""

    side: Side
    scheme: Scheme
    """As applied: what does not fit the site (channels of a vector) is resolved."""
    statistics: SiteStatistics
    clip: tuple[float, float]
    """The chosen range; with scales per channel, the extremes over channels."""
    encoding: Encoding | LevelEncoding | FloatEncoding
    """Of outliers that stay float and of a dynamic range: what the rest, or the calibration data, is rounded with."""
    error: RangeError
    """Estimated from histograms."""
    exact: WeightPreview | None = None
    """The same scheme applied to the real values; None until the engine has answered, and for activations."""
    note: str = ""
    """What is special about the range, in words."""
    fixed: bool = False
    """Whether the range cannot be dragged: mathematics fixes it, or the format has none."""
    drawn: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    """Values with the tensor's distribution, and the same rounded; for schemes that are not affine."""

    @property
    def per_channel(self) -> bool:
        """Whether there is more than one scale."""
        return isinstance(self.encoding, Encoding) and self.encoding.scale.ndim > 0

    @property
    def step(self) -> float | None:
        """Distance between neighbouring codes, in units of the tensor; None where it varies."""
        affine = isinstance(self.encoding, Encoding) and self.encoding.scale.ndim == 0
        return float(self.encoding.scale) if affine and isinstance(self.encoding, Encoding) else None

    @property
    def sqnr_db(self) -> float:
        """SQNR in dB, exact where known."""
        return self.exact.sqnr_db if self.exact is not None else self.error.sqnr_db

    @property
    def mse(self) -> float:
        """Mean squared error, exact where known (from the exact SQNR and the tensor's own mean square)."""
        if self.exact is None:
            return self.error.mse
        histogram = self.statistics.histogram
        signal = histogram.total_square / max(histogram.count, 1)
        return float(signal * 10.0 ** (-self.exact.sqnr_db / 10.0))

    @property
    def levels(self) -> NDArray[np.float64] | None:
        """[L] values the codes stand for; None where each channel has its own."""
        if isinstance(self.encoding, LevelEncoding):
            return np.asarray(self.encoding.levels[0], np.float64)
        if isinstance(self.encoding, FloatEncoding) or self.per_channel:
            return None
        codes = np.arange(self.encoding.qmin, self.encoding.qmax + 1, dtype=np.float64)
        return np.asarray((codes - float(self.encoding.zero_point)) * float(self.encoding.scale))


@dataclass(frozen=True)
class CalibratorReadout:
    """One row of the comparison of calibrators."""

    calibration: str
    """As written in a recipe, "percentile:99.99"."""
    title: str
    clip: tuple[float, float] | None
    error: RangeError | None
    """None where it cannot be estimated; `reason` says why."""
    reason: str = ""


# ---- from a session


def site_of(session: Session, layer: str, side: Side) -> SiteInfo | None:
    """Return a layer's site, None where the layer has none on that side (KeyError for an unknown layer)."""
    if session.model is None:
        return None
    info = session.model.layer(layer)
    return info.weight if side == "weight" else info.activation


def statistics_of(session: Session, layer: str, side: Side) -> SiteStatistics | None:
    """Return the statistics of a layer's site, None while there are none."""
    site = site_of(session, layer, side)
    known = session.weight_statistics if side == "weight" else session.activation_statistics
    return known.get(site.id) if site is not None else None


def scheme_of(session: Session, layer: str, side: Side, clip: tuple[float, float] | None = None) -> Scheme:
    """Return the scheme the current recipe gives a layer, with a trial clip where one is given."""
    settings = session.settings(layer)
    scheme = settings.weight_scheme() if side == "weight" else settings.activation_scheme()
    return scheme if clip is None else replace(scheme, calibration="manual", clip=clip)


def inspect(session: Session, layer: str, side: Side, clip: tuple[float, float] | None = None) -> Readout | None:
    """Return the read-out of a layer under the current recipe, or under a trial clip.

    None without statistics and where the site stays float.
    """
    site, statistics = site_of(session, layer, side), statistics_of(session, layer, side)
    if site is None or statistics is None:
        return None
    scheme = scheme_of(session, layer, side, clip)
    if scheme.is_float:
        return None
    preview = session.previews.get(layer) if side == "weight" else None
    return read(statistics, site, scheme, preview)


# ---- from statistics


def read(statistics: SiteStatistics, site: SiteInfo, scheme: Scheme, preview: WeightPreview | None = None) -> Readout:
    """Return what `scheme` does to a site (about 1 ms with a manual clip, up to 15 ms for a search not done before).

    Args:
        statistics: Of the site.
        site: Its channel axis and fixed range decide what applies.
        scheme: Not float.
        preview: Exact figures; used when they are of this very scheme.

    Raises:
        UserError: A plug-in calibrator failed.
    """
    side: Side = "weight" if site.kind == "weight" else "activation"
    applied, note = resolve_scheme(site, scheme)
    exact = preview if preview is not None and preview.scheme == scheme else None
    fixed = _fixed_encoding(site, applied)
    if fixed is not None:
        error = range_error(statistics.histogram, float(fixed.scale), int(fixed.zero_point), fixed.qmin, fixed.qmax)
        return Readout(side, applied, statistics, (error.low, error.high), fixed, error, exact, note, True)
    if not applied.is_affine:
        return _other(side, applied, statistics, exact, note)
    if applied.granularity.kind == "tensor":
        low, high = tensor_range(statistics, applied)
        encoding = encode(applied, low, high, None)
        scale, zero = float(encoding.scale), int(encoding.zero_point)
        error = range_error(statistics.histogram, scale, zero, encoding.qmin, encoding.qmax)
        if applied.symmetric:
            reach = max(-low, high)
            low, high = -reach, reach
        return Readout(side, applied, statistics, (low, high), encoding, error, exact, note)
    histograms = channels_of(statistics)
    ends = channel_range_ends(statistics, applied)
    if ends is None:
        ends = capped(histograms, None)
        note = "Entropy needs finer histograms than are kept per channel: min-max is shown until exact figures arrive"
    lows, highs = ends
    if exact is not None:
        note = ""
    if exact is not None and exact.low.shape == lows.shape and applied.calibration != "manual":
        lows, highs = np.minimum(exact.low, 0.0), np.maximum(exact.high, 0.0)
    encoding = encode(replace(applied, granularity=Granularity("channel")), lows, highs, site.channel_axis)
    histogram = statistics.histogram
    error = channel_range_error(histograms, applied, lows, highs, histogram.count, histogram.total_square)
    clip = (float(lows.min()), float(highs.max()))
    if applied.calibration == "manual" and applied.clip is not None:
        clip = applied.clip
    if applied.symmetric:
        reach = max(-clip[0], clip[1])
        clip = (-reach, reach)
    return Readout(side, applied, statistics, clip, encoding, error, exact, note)


def _other(side: Side, scheme: Scheme, statistics: SiteStatistics, exact: WeightPreview | None, note: str) -> Readout:
    number_format, _ = format_of(scheme.format)
    dynamic = scheme.dynamic and number_format.family == "affine"
    if dynamic:
        scheme = replace(scheme, calibration="minmax", clip=None)
        note = "Dynamic: each batch has its own range; shown is that of all calibration samples together"
    elif scheme.granularity.kind != "tensor" and exact is None and number_format.parameters:
        note = "Estimated with one set of levels for the tensor until exact figures arrive"
    if number_format.family != "affine":
        scheme = replace(scheme, symmetric=True)  # levels mirror around zero
    encoding, error, values, rounded = estimate(statistics.histogram, scheme)
    low, high = min(statistics.histogram.minimum, 0.0), max(statistics.histogram.maximum, 0.0)
    if number_format.uses_range:
        low, high = tensor_range(statistics, scheme)
        if scheme.symmetric:
            low, high = -max(-low, high), max(-low, high)
    if exact is not None:
        note = "" if not dynamic else note
    fixed = dynamic or not number_format.uses_range
    return Readout(side, scheme, statistics, (low, high), encoding, error, exact, note, fixed, (values, rounded))


def resolve_scheme(site: SiteInfo, scheme: Scheme) -> tuple[Scheme, str]:
    """Return the scheme as the engine applies it to a site, and what was changed, in words."""
    affine = format_of(scheme.format)[0].family == "affine"
    if site.kind == "activation" and site.fixed_range is not None and scheme.calibration != "manual" and affine:
        low, high = site.fixed_range
        return scheme, f"Mathematics fixes this range: {low:g} to {high:g}"
    if site.kind == "activation" and site.is_output and scheme.calibration not in ("manual", "minmax"):
        return replace(scheme, calibration="minmax"), "Outputs of the model keep their whole range (min-max)"
    if scheme.granularity.kind != "tensor" and (site.channel_axis is None or len(site.shape) < 2):
        return replace(scheme, granularity=TENSOR), "This weight has no channels: one scale for all of it"
    if scheme.granularity.kind == "group":
        return scheme, "Groups are estimated as channels until exact figures arrive"
    return scheme, ""


def _fixed_encoding(site: SiteInfo, scheme: Scheme) -> Encoding | None:
    """Return the encoding that mathematics fixes (Softmax, Sigmoid: s = 2^-bits, z = 0 as onnxruntime demands)."""
    if site.kind != "activation" or site.fixed_range is None or scheme.calibration == "manual":
        return None
    if format_of(scheme.format)[0].family != "affine":
        return None
    if is_symmetric(scheme):
        return encode(scheme, site.fixed_range[0], site.fixed_range[1], None)
    qmin, qmax = integer_range(scheme)
    return Encoding(np.asarray(2.0**-scheme.bits, np.float32), np.asarray(0, np.int32), qmin, qmax)


def calibration_title(calibration: str) -> str:
    """Return a calibration's name for people, "Percentile 99.99"."""
    name, _, parameter = calibration.partition(":")
    if name not in CALIBRATORS:
        return f"{name} {parameter}".strip()
    calibrator = CALIBRATORS[name]
    known = not calibrator.choices and parameter == f"{calibrator.default:.10g}" if parameter else True
    return calibrator.title if known else f"{calibrator.title} {parameter}"


def short_title(calibration: str) -> str:
    """Return a calibration's name for narrow places: a percentile's number, "99.99" or "Q 99.99", else its title."""
    name, _, parameter = calibration.partition(":")
    if name == "percentile":
        return parameter
    if name == "quantile":
        return f"Q {parameter}"
    return CALIBRATORS[name].title if name in CALIBRATORS else name


def compare(statistics: SiteStatistics, site: SiteInfo, scheme: Scheme) -> tuple[CalibratorReadout, ...]:
    """Return all calibrators side by side at the scheme's bits, symmetry and granularity (cached searches: ~5 ms)."""
    rows = []
    applied, _ = resolve_scheme(site, scheme)
    if applied.granularity.kind == "tensor":
        fill_tensor_ranges(statistics, applied)
    for calibration in calibrations():
        title = calibration_title(calibration)
        trial, _ = resolve_scheme(site, replace(scheme, calibration=calibration, clip=None))
        trial = replace(trial, calibration=calibration)
        try:
            if trial.granularity.kind != "tensor" and channel_range_ends(statistics, trial) is None:
                reason = "Needs finer histograms than are kept per channel: apply it to see exact figures"
                rows.append(CalibratorReadout(calibration, title, None, None, reason))
                continue
            plain = replace(site, fixed_range=None, is_output=False)
            readout = read(statistics, plain, trial)
        except UserError as error:
            rows.append(CalibratorReadout(calibration, title, None, None, error.sentence()))
            continue
        rows.append(CalibratorReadout(calibration, title, readout.clip, readout.error))
    return tuple(rows)
