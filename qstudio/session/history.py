"""Undo and redo as a list of recipe snapshots."""

from __future__ import annotations

from dataclasses import dataclass

from qstudio.core.recipe import Recipe

LIMIT = 500
"""Steps that are kept: at 2,000 changed layers a snapshot takes about 0.1 MB."""


@dataclass(frozen=True)
class Edit:
    """One undoable step: what it was called and the recipe after it."""

    label: str
    recipe: Recipe
    merge_key: str | None = None


class History:
    """A line of snapshots with a cursor. A new edit cuts off what was undone.

    Snapshots share everything that did not change, so a step costs O(layers) pointers.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._edits: list[Edit] = [Edit("", recipe)]
        self._at = 0

    @property
    def recipe(self) -> Recipe:
        """The recipe at the cursor."""
        return self._edits[self._at].recipe

    @property
    def undo_label(self) -> str | None:
        """Name of the edit that undo takes back; None when there is none."""
        return self._edits[self._at].label if self._at else None

    @property
    def redo_label(self) -> str | None:
        """Name of the edit that redo brings back; None when there is none."""
        return self._edits[self._at + 1].label if self._at + 1 < len(self._edits) else None

    def push(self, label: str, recipe: Recipe, merge_key: str | None = None) -> bool:
        """Add a step; return whether anything changed.

        A step with the same merge_key as the one at the cursor replaces it: a drag is one step, however many moves,
        and none at all when it ends where it began.
        """
        if recipe == self.recipe:
            return False
        last = self._edits[self._at]
        del self._edits[self._at + 1 :]
        if merge_key is not None and last.merge_key == merge_key and self._at:
            if recipe == self._edits[self._at - 1].recipe:
                self._edits.pop()
                self._at -= 1
            else:
                self._edits[self._at] = Edit(label, recipe, merge_key)
            return True
        self._edits.append(Edit(label, recipe, merge_key))
        if len(self._edits) > LIMIT + 1:
            del self._edits[0]
        self._at = len(self._edits) - 1
        return True

    def seal(self) -> None:
        """End a merge: the next edit is a step of its own even with the same merge_key."""
        last = self._edits[self._at]
        self._edits[self._at] = Edit(last.label, last.recipe)

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
