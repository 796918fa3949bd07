"""A finding: what a rule saw, what to do, why, what it is predicted to bring, and the edit that does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from qstudio.core.recipe import Recipe, Values, make_values
from qstudio.core.refinement import REFINEMENTS, check_refinements
from qstudio.core.scheme import SiteKind

Severity = Literal["high", "medium", "low"]

SEVERITIES: dict[Severity, str] = {
    "high": "6 dB or more: at least a bit",
    "medium": "3 dB or more: at least half a bit",
    "low": "less than 3 dB, or something to save",
}
"""Severities, the worst first, and what they mean. A bit is 20 log10(2) = 6.02 dB of SQNR."""

UNITS: dict[str, str] = {
    "points": "points of accuracy",
    "dB": "dB of signal to quantization noise",
    "%": "percent",
    "KB": "KB saved",
}
"""Units of a gain, in the order in which findings are ranked."""


@dataclass(frozen=True)
class Gain:
    """What an edit is predicted, or was measured, to bring."""

    value: float
    """Positive is better."""
    unit: str
    """Of UNITS."""
    of: str
    """What is measured: "the weight", "the output of fc"."""
    estimated: bool = True

    def text(self) -> str:
        """Return "~+11.0 dB" or "9.0 KB saved"; the tilde says that the figure is estimated."""
        if self.unit == "KB":  # with a sign it would read as growth
            return f"{'~' if self.estimated else ''}{abs(self.value):,.1f} KB {'saved' if self.value >= 0 else 'more'}"
        sign = "+" if self.value >= 0 else "-"
        digits = 2 if self.unit == "points" else 1
        return f"{'~' if self.estimated else ''}{sign}{abs(self.value):,.{digits}f} {self.unit}"


@dataclass(frozen=True)
class Edit:
    """What applying a finding does to the recipe."""

    label: str
    """Name of the step in the history."""
    changes: tuple[tuple[tuple[str, ...], Values], ...] = ()
    """(layers, field values) pairs."""
    refinement: str = ""
    """Refinement that is switched on; empty for none."""

    def apply(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the edit made.

        Raises:
            UserError: A plug-in refinement is gone.
        """
        for layers, values in self.changes:
            recipe = recipe.with_layers(layers, **dict(values))
        if self.refinement:
            kept = [text for text in recipe.refinements if text.partition(":")[0] != self.refinement]
            if REFINEMENTS[self.refinement].rounds:
                kept = [text for text in kept if not REFINEMENTS[text.partition(":")[0]].rounds]
            recipe = replace(recipe, refinements=check_refinements([*kept, self.refinement]))
        return recipe


def change(label: str, layers: tuple[str, ...], **values: object) -> Edit:
    """Return an edit that sets fields of layers.

    Raises:
        UserError: A field does not exist or a value does not fit it.
    """
    return Edit(label, ((layers, make_values(**values)),))


@dataclass(frozen=True)
class Finding:
    """One thing that was found, with its evidence.

    Attributes:
        rule: Id of the rule.
        layer: Name of the layer; empty where the whole model is meant.
        side: Which of the layer's tensors; empty where neither is meant.
        severity: How much it matters.
        summary: What was seen, one sentence.
        action: What to do, one sentence.
        why: Why that helps, one or two sentences.
        gain: What the edit is predicted to bring; None where no figure can be given before trying.
        evidence: (what, number with its unit) pairs.
        edit: What applying does; None where it is nothing of the recipe.
        place: Id of the panel in which to act where there is no edit.
        others: How many other layers say the same, where one edit answers all of them.
    """

    rule: str
    layer: str
    side: SiteKind | Literal[""]
    severity: Severity
    summary: str
    action: str
    why: str
    gain: Gain | None
    evidence: tuple[tuple[str, str], ...] = ()
    edit: Edit | None = None
    place: str = ""
    others: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays the same while numbers change: rule, layer, side."""
        return (self.rule, self.layer, self.side)

    def text(self) -> str:
        """Return the finding as plain text, for copying."""
        where = self.layer or "model"
        lines = [f"{where}: {self.summary}", f"What to do: {self.action}", f"Why: {self.why}"]
        if self.gain is not None:
            lines.append(f"Predicted: {self.gain.text()} ({self.gain.of})")
        if self.others:
            lines.append(f"The same holds for {self.others} other {'layer' if self.others == 1 else 'layers'}.")
        lines += [f"{name}: {value}" for name, value in self.evidence]
        return "\n".join(lines)


def severity_of(gain_db: float) -> Severity:
    """Return how much a gain in dB matters: a bit or more is high, half a bit medium."""
    return "high" if gain_db >= 6.0 else "medium" if gain_db >= 3.0 else "low"


def rank(finding: Finding) -> tuple[int, float, str]:
    """Return the sort key: what needs no estimate first, then by unit, largest gain first, then by layer.

    A finding without a gain that is of high severity (the float model looks wrong) comes before everything else, any
    other one after everything else.
    """
    if finding.gain is None:
        return (-1 if finding.severity == "high" else len(UNITS), 0.0, finding.layer)
    return (list(UNITS).index(finding.gain.unit), -finding.gain.value, finding.layer)
