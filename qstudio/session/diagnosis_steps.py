"""The questions of a diagnosis and what was measured for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["waiting", "running", "done", "skipped"]


@dataclass(frozen=True)
class Measured:
    """One recipe that a step has tried."""

    title: str
    score: float
    """Top-1, or agreement with the float model without labels; percent."""
    interval: tuple[float, float] | None
    """95 % Wilson interval."""
    difference: float
    """To the recipe that is diagnosed; points."""


@dataclass(frozen=True)
class Step:
    """One question of the diagnosis."""

    id: str
    question: str
    state: State = "waiting"
    conclusion: str = ""
    why: str = ""
    figures: tuple[Measured, ...] = ()

    def text(self) -> str:
        """Return the step as plain text, for copying."""
        lines = [self.question]
        for each in self.figures:
            around = f" [{each.interval[0]:.1f}, {each.interval[1]:.1f}]" if each.interval else ""
            lines.append(f"  {each.title}: {each.score:.2f} %{around} ({each.difference:+.2f})")
        return "\n".join([*lines, *(f"  {words}" for words in (self.conclusion, self.why) if words)])


STEPS: tuple[Step, ...] = (
    Step("float", "Is the float model right?"),
    Step("side", "Weights or activations?"),
    Step("layers", "Which layers?"),
    Step("repair", "Which repair?"),
    Step("outcome", "What does it bring?"),
)
