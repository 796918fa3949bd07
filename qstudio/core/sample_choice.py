"""How calibration samples are chosen, and noise that can take their place: words for people, no data."""

from __future__ import annotations

from qstudio.core.errors import UserError

CHOICES = {
    "random": "drawn by seed from all samples: the usual choice",
    "first": "the first ones as they are stored: what quick scripts do; wrong where the data is sorted by class",
    "balanced": "drawn by seed, equally many of each class: needs labels; steadier with few samples",
}
"""Choices of calibration samples by id, and what each does."""

NOISES = {"gaussian": "Gaussian noise", "uniform": "Uniform noise"}
"""Kinds of noise by id; written "noise" (Gaussian), "noise:gaussian" or "noise:uniform" where data is named."""


def check_choice(choice: str) -> str:
    """Return a choice of calibration samples.

    Raises:
        UserError: There is no such choice.
    """
    if choice not in CHOICES:
        raise UserError(
            f"'{choice}' is not a choice of samples", "--calibration-choice", f"Choose one of {', '.join(CHOICES)}"
        )
    return choice


def is_noise(source: str) -> bool:
    """Return whether a name of data means noise."""
    return source == "noise" or source.startswith("noise:")


def noise_kind(source: str) -> str:
    """Return "gaussian" or "uniform".

    Raises:
        UserError: There is no such noise.
    """
    kind = source.partition(":")[2] or "gaussian"
    if kind not in NOISES:
        raise UserError(f"'{source}' is no noise", "--calibration-data", "Choose noise:gaussian or noise:uniform")
    return kind
