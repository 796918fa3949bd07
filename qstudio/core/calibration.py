"""Calibrators: a range from a histogram, for any bit width, in milliseconds.

Every calibrator is a function of the cached histogram only, so that the window can show all of them at once. What they
compute is in `qstudio.core.calibrators`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import numpy as np

from qstudio.core.calibrators.direct import Range, hold_zero
from qstudio.core.calibrators.entropy import entropy_bins, entropy_levels
from qstudio.core.errors import UserError
from qstudio.core.histogram import Histogram
from qstudio.core.registry import Registry, resolve
from qstudio.core.scheme import Scheme

__all__ = [
    "CALIBRATORS",
    "Calibrator",
    "Range",
    "all_ranges",
    "calibrations",
    "check_calibration",
    "entropy_bins",
    "entropy_levels",
    "find_range",
]


@dataclass(frozen=True)
class Calibrator:
    """How to find a range, and what a person is told about it."""

    id: str
    title: str
    summary: str
    """One sentence: what it does and when to use it."""
    source: str
    """Where the method comes from."""
    target: str
    """Import string of a function (histogram, scheme, parameter) -> range; numpy only, as the window calls it live."""
    parameter: str = ""
    """Name and unit of the parameter after the colon; empty when there is none."""
    default: float | None = None
    bounds: tuple[float, float] | None = None
    formula: str = ""
    """The range, in the symbols of its source."""
    choices: tuple[float, ...] = ()
    """Parameters that are compared side by side; empty = the default only."""
    uses_bits: bool = True
    """Whether the range depends on the bit width."""
    many: str = ""
    """Import string of a function (histogram, schemes, parameter) -> ranges that shares work between bit widths and
    gives what `target` gives one by one; empty = there is none."""

    @property
    def words(self) -> str:
        """Everything a person is told where the calibrator is chosen: what and when, formula, source; one line each."""
        lines = [self.summary]
        lines += [f"Range: {self.formula}"] if self.formula else []
        lines += [f"Parameter: {self.parameter}, {self.default:g} by default"] if self.parameter else []
        lines += [f"Source: {self.source}"] if self.source else []
        return "\n".join(lines)

    def find(self, histogram: Histogram, scheme: Scheme, parameter: float | None = None) -> Range:
        """Return the range for a histogram under a scheme, (low, high) with low <= 0 <= high.

        Raises:
            UserError: A plug-in failed or gave something that is not a range.
        """
        try:
            low, high = map(float, _function(self.target)(histogram, scheme, parameter))
        except Exception as error:
            if self.target.startswith("qstudio."):
                raise  # a fault of ours is reported as one; a plug-in may fail in any way
            raise UserError(f"it failed ({error})", f"calibration {self.id}", "Choose another calibration") from error
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UserError(f"it gave {low}..{high}", f"calibration {self.id}", "Choose another calibration")
        return hold_zero(low, high)

    def find_many(self, histogram: Histogram, schemes: Sequence[Scheme], parameter: float | None = None) -> list[Range]:
        """Return what `find` returns for each of several schemes that differ in their bits only.

        Raises:
            UserError: As `find`.
        """
        if not self.uses_bits:
            return [self.find(histogram, schemes[0], parameter)] * len(schemes)
        if self.many:
            return _many(self.many)(histogram, schemes, parameter)
        return [self.find(histogram, scheme, parameter) for scheme in schemes]


@cache
def _function(target: str) -> Callable[[Histogram, Scheme, float | None], Range]:
    return cast("Callable[[Histogram, Scheme, float | None], Range]", resolve(target))


@cache
def _many(target: str) -> Callable[[Histogram, Sequence[Scheme], float | None], list[Range]]:
    return cast("Callable[[Histogram, Sequence[Scheme], float | None], list[Range]]", resolve(target))


_SHARES = (99.9, 99.99, 99.999, 99.9999)
_TARGET = "qstudio.core.calibrators."

CALIBRATORS: Registry[Calibrator] = Registry(
    "qstudio.calibrators",
    Calibrator,
    Calibrator(
        "minmax",
        "Min-max",
        "Keep every value: no clipping, the coarsest step. Right for weights at 8 bits.",
        "Jacob et al., 2018",
        _TARGET + "direct:minmax",
        formula="[min x, max x]",
        uses_bits=False,
    ),
    Calibrator(
        "moving_average",
        "Moving average",
        "Average the samples' extremes, the latest weigh most: one odd sample hardly moves the range. Right for"
        " activations with rare outliers; a weight, seen once, keeps its extremes.",
        "torch.ao MovingAverageMinMaxObserver, c = 0.01; one step is one calibration sample, whatever the batch",
        _TARGET + "direct:moving_average",
        "averaging constant",
        0.01,
        (0.01, 1.0),
        formula="m_1 = min x_1, m_t = m_(t-1) + c (min x_t - m_(t-1)) over samples t; the same for max",
        uses_bits=False,
    ),
    Calibrator(
        "percentile",
        "Percentile",
        "Cut a fixed share of the largest values. Right when a few outliers set the scale.",
        "Wu et al., 2020; onnxruntime",
        _TARGET + "direct:percentile",
        "percent kept",
        99.99,
        (50.0, 100.0),
        formula="[Q(1 - p/2), Q(p/2)] with p/2 = 1 - (1 - p) / 2 where values lie on both sides of 0, else [0, Q(p)]",
        choices=_SHARES,
        uses_bits=False,
    ),
    Calibrator(
        "quantile",
        "Quantiles",
        "Cut the same share from each tail on its own. Right when both tails hold outliers and differ in length.",
        "PPQ and NNCF quantile calibration",
        _TARGET + "direct:quantile",
        "percent kept by each tail",
        99.99,
        (50.0, 100.0),
        formula="[Q(1 - p), Q(p)]",
        choices=_SHARES,
        uses_bits=False,
    ),
    Calibrator(
        "mse",
        "MSE",
        "Least mean squared error of rounding and clipping together. The safest single choice for activations.",
        "Banner et al., 2019",
        _TARGET + "mse:mse",
        formula="argmin over ranges of E (x - Q(x))^2: 100 shrunk ranges, then finer ones, each end on its own",
        many=_TARGET + "mse:mse_ranges",
    ),
    Calibrator(
        "entropy",
        "Entropy",
        "Least information lost (Kullback-Leibler divergence). Classic for 8-bit activations of CNNs.",
        "Migacz, GTC 2017",
        _TARGET + "entropy:entropy",
        formula="argmin over thresholds T of sum p log(p / q): p = |x| cut at T in 2,048 bins, q = p in 2^(b-1) levels",
    ),
    Calibrator(
        "mean_std",
        "Mean ± k std",
        "Keep k standard deviations around the mean. Right for bell-shaped values, weights above all; too narrow for"
        " activations with many zeros.",
        "Bhalgat et al., LSQ+, 2020 (k = 3)",
        _TARGET + "direct:mean_std",
        "standard deviations kept",
        3.0,
        (0.5, 20.0),
        formula="[mean - k std, mean + k std], no wider than [min x, max x]",
        uses_bits=False,
    ),
    Calibrator(
        "lsq",
        "LSQ start",
        "The step that learned step size quantization starts from. Right before training at 2 to 4 bits; at 8 bits it"
        " reaches far beyond the values.",
        "Esser et al., LSQ, 2020, section 2.1",
        _TARGET + "direct:lsq",
        formula="s0 = 2 E|x| / sqrt(Qp), range = s0 [-Qn, Qp]",
    ),
    Calibrator(
        "manual",
        "Manual",
        "The clip range you set by hand.",
        "",
        _TARGET + "direct:manual",
        formula="[low, high] as set",
        uses_bits=False,
    ),
)
"""Calibrators by id: built-ins, and the plug-ins of the entry-point group "qstudio.calibrators"."""


def calibrations() -> tuple[str, ...]:
    """Return the calibrations that are compared side by side: all but manual, each with its choices of parameter."""
    found = []
    for name, calibrator in CALIBRATORS.items():
        if name != "manual":
            found += [check_calibration(f"{name}:{choice}") for choice in calibrator.choices] or [
                check_calibration(name)
            ]
    return tuple(found)


def check_calibration(text: str) -> str:
    """Return a calibration id in canonical form ("percentile" -> "percentile:99.99").

    Raises:
        UserError: There is no such calibrator, or its parameter is missing or out of bounds.
    """
    name, _, parameter = text.strip().lower().partition(":")
    calibrator = CALIBRATORS.get(name)
    if calibrator is None:
        what = CALIBRATORS.why_missing(name) or "there is no such calibration"
        raise UserError(f"'{text}': {what}", "calibration", f"Choose one of {', '.join(CALIBRATORS)}")
    if calibrator.bounds is None:
        if parameter:
            raise UserError(f"{name} takes no parameter", "calibration", f"Write {name}")
        return name
    low, high = calibrator.bounds
    try:
        value = float(parameter) if parameter else float(calibrator.default or 0.0)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UserError(f"'{parameter}' is not a {calibrator.parameter}", name, f"Choose {low:g} to {high:g}")
    return f"{name}:{value:.10g}"


def find_range(histogram: Histogram, scheme: Scheme) -> Range:
    """Return the range the scheme's calibrator chooses (always holding zero)."""
    name, _, parameter = scheme.calibration.partition(":")
    calibrator = CALIBRATORS[name]
    return calibrator.find(histogram, scheme, float(parameter) if parameter else calibrator.default)


def all_ranges(
    histogram: Histogram, scheme: Scheme, bits: Iterable[int] = range(2, 9), methods: Iterable[str] | None = None
) -> dict[tuple[str, int], Range]:
    """Return the ranges of many calibrations at many bit widths, the same ones `find_range` gives one by one.

    All of one tensor at 2 to 8 bits take under 5 ms: the running sums of the histogram are made once, and what does not
    depend on the width is computed once.

    Args:
        histogram: Of the tensor.
        scheme: Symmetry, kind and format; its own bits, calibration and clip do not matter.
        bits: Widths.
        methods: Calibrations as in a recipe, "percentile:99.9"; None = `calibrations()`.

    Raises:
        UserError: A plug-in calibrator failed.
    """
    widths = tuple(bits)
    schemes = [replace(scheme, bits=width, clip=None) for width in widths]
    found: dict[tuple[str, int], Range] = {}
    for method in (calibrations() if methods is None else methods) if widths else ():
        name, _, parameter = method.partition(":")
        calibrator = CALIBRATORS[name]
        ranges = calibrator.find_many(histogram, schemes, float(parameter) if parameter else calibrator.default)
        found.update({(method, width): each for width, each in zip(widths, ranges, strict=True)})
    return found
