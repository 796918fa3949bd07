"""Undo and redo as a line of recipe snapshots, and the tree of everything that was ever tried."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from qstudio.core.recipe import Recipe

LIMIT = 500
"""Steps that are kept: at 2,000 changed layers a snapshot takes about 0.1 MB."""

KEPT_EDITS = 2000
"""Edits that the tree keeps; beyond it the oldest go that no run was made with and no undo leads to."""


@dataclass(frozen=True)
class Edit:
    """A node of the tree: a recipe, what made it, and the edit it was made from."""

    id: int
    parent: int | None
    """None where a history begins: a model was opened."""
    label: str
    recipe: Recipe
    time: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Step:
    """One undoable step: what it is called and the edit it leads to; restoring an old recipe leads to an old edit."""

    label: str
    edit: int
    merge_key: str | None = None


class History:
    """A line of steps with a cursor, through a tree of edits.

    A new edit cuts off what was undone: the line forgets it, the tree keeps it as a branch. An edit made after an old
    recipe was restored branches off where that recipe stands. Snapshots share everything that did not change, so a
    step costs O(layers) pointers.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._edits: dict[int, Edit] = {}
        self._held: set[int] = set()
        self._next = 1
        self._line: list[Step] = []
        self._at = 0
        self.begin(recipe)

    def begin(self, recipe: Recipe, label: str = "") -> None:
        """Begin a new line with a new root of the tree; a root that nothing was done with goes."""
        if len(self._line) == 1 and self._is_bare(self._line[0].edit):
            del self._edits[self._line[0].edit]
        self._line = [Step(label, self._add(None, label, recipe))]
        self._at = 0

    def load(self, edits: Iterable[Edit], line: Iterable[Step], at: int) -> None:
        """Take over a history that was kept; nothing merges with what was there.

        Raises:
            ValueError: The line is empty, leads to an edit that there is not, or the cursor is beside it.
        """
        known, steps = {edit.id: edit for edit in edits}, list(line)
        if not 0 <= at < len(steps) or any(step.edit not in known for step in steps):
            raise ValueError("the line of steps and the edits do not fit")
        self._edits, self._line, self._at = known, steps, at
        self._held = set()
        self._next = max(known) + 1

    def _is_bare(self, edit: int) -> bool:
        return edit not in self._held and all(other.parent != edit for other in self._edits.values())

    def _add(self, parent: int | None, label: str, recipe: Recipe) -> int:
        number = self._next
        self._next += 1
        self._edits[number] = Edit(number, parent, label, recipe, time.time())
        if len(self._edits) > KEPT_EDITS:
            self._drop_oldest(number)
        return number

    def _drop_oldest(self, newest: int) -> None:
        kept = self._held | {step.edit for step in self._line} | {newest}
        oldest = next((number for number in self._edits if number not in kept), None)
        if oldest is None:
            return
        gone = self._edits.pop(oldest)
        for edit in tuple(self._edits.values()):
            if edit.parent == oldest:
                self._edits[edit.id] = replace(edit, parent=gone.parent)

    @property
    def edits(self) -> Mapping[int, Edit]:
        """All edits by id, oldest first."""
        return self._edits

    @property
    def line(self) -> tuple[Step, ...]:
        """The steps that undo and redo go through; the first is the beginning."""
        return tuple(self._line)

    @property
    def at(self) -> int:
        """Position of the cursor on the line."""
        return self._at

    @property
    def current(self) -> int:
        """Id of the edit at the cursor."""
        return self._line[self._at].edit

    @property
    def recipe(self) -> Recipe:
        """The recipe at the cursor."""
        return self._edits[self.current].recipe

    @property
    def undo_label(self) -> str | None:
        """Name of the edit that undo takes back; None when there is none."""
        return self._line[self._at].label if self._at else None

    @property
    def redo_label(self) -> str | None:
        """Name of the edit that redo brings back; None when there is none."""
        return self._line[self._at + 1].label if self._at + 1 < len(self._line) else None

    def hold(self, edit: int) -> None:
        """Keep an edit for good, as it is: a run was made with it."""
        if edit in self._edits:
            self._held.add(edit)
            if edit == self.current:
                self.seal()

    def push(self, label: str, recipe: Recipe, merge_key: str | None = None, source: int | None = None) -> bool:
        """Add a step; return whether anything changed.

        A step with the same merge_key as the one at the cursor replaces it: a drag is one step, however many moves,
        and none at all when it ends where it began.

        Args:
            label: What the step is called.
            recipe: The recipe after it.
            merge_key: Names the drag that the step is part of.
            source: The edit whose recipe is restored: what follows branches off there.
        """
        if recipe == self.recipe:
            return False
        last = self._line[self._at]
        del self._line[self._at + 1 :]
        if merge_key is not None and last.merge_key == merge_key and self._at:
            if recipe == self._edits[self._line[self._at - 1].edit].recipe:
                self._line.pop()
                self._at -= 1
                del self._edits[last.edit]
            else:
                self._line[self._at] = Step(label, last.edit, merge_key)
                self._edits[last.edit] = replace(self._edits[last.edit], label=label, recipe=recipe, time=time.time())
            return True
        kept = self._edits.get(source) if source is not None else None
        number = kept.id if kept and kept.recipe == recipe else self._add(last.edit, label, recipe)
        self._line.append(Step(label, number, merge_key))
        if len(self._line) > LIMIT + 1:
            del self._line[0]
        self._at = len(self._line) - 1
        return True

    def branch(self, label: str, recipe: Recipe) -> int:
        """Add an edit made from the current one to the tree, without going there; return its id."""
        return self._add(self.current, label, recipe)

    def seal(self) -> None:
        """End a merge: the next edit is a step of its own even with the same merge_key."""
        last = self._line[self._at]
        self._line[self._at] = Step(last.label, last.edit)

    def undo(self) -> str | None:
        """Step back; return the label of what was taken back, None at the beginning."""
        label = self.undo_label
        if label is not None:
            self._at -= 1
            self.seal()
        return label

    def redo(self) -> str | None:
        """Step forward; return the label of what was brought back, None at the end."""
        label = self.redo_label
        if label is not None:
            self._at += 1
            self.seal()
        return label
