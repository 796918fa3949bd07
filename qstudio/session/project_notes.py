"""What a person notes in a project: a text, pinned runs, texts of runs, and how the window is arranged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from qstudio.session.events import Event
from qstudio.session.store.state import Facts, Mark


class ProjectNotes:
    """Kept in the project's file; each change is written at once."""

    def __init__(self, save: Callable[[], None], check_run: Callable[[int], object]) -> None:
        """`save` writes the project; `check_run` raises KeyError for a number that no run has."""
        self._save = save
        self._check_run = check_run
        self.text = ""
        self.marks: Mapping[int, Mark] = {}
        """What was noted about runs, by number."""
        self.perspective = ""
        self.layout: dict[str, str] = {}
        """Opaque bytes of the window as base64, by name."""
        self.changed: Event[ProjectNotes] = Event()

    def load(self, facts: Facts, marks: Mapping[int, Mark]) -> None:
        """Take over what a file holds."""
        self.text, self.marks = facts.note, dict(marks)
        self.perspective, self.layout = facts.perspective, facts.layout
        self.changed.emit(self)

    def set_text(self, text: str) -> None:
        """Change the text that describes the project."""
        if text != self.text:
            self.text = text
            self._tell()

    def set_run_text(self, run: int, text: str) -> None:
        """Change the text that describes a run (KeyError when there is none of that number)."""
        self._mark(run, replace(self.mark(run), note=text))

    def pin(self, run: int, pinned: bool = True) -> None:
        """Make a run a baseline that others are compared with, or one no more (KeyError when there is none)."""
        self._mark(run, replace(self.mark(run), pinned=pinned))

    def mark(self, run: int) -> Mark:
        """Return what was noted about a run."""
        return self.marks.get(run, Mark())

    @property
    def pinned(self) -> tuple[int, ...]:
        """Numbers of the pinned runs."""
        return tuple(sorted(run for run, mark in self.marks.items() if mark.pinned))

    def set_layout(self, perspective: str, layout: dict[str, str]) -> None:
        """Keep how the window is arranged."""
        self.perspective, self.layout = perspective, layout
        self._save()

    def _mark(self, run: int, mark: Mark) -> None:
        self._check_run(run)
        if mark != self.mark(run):
            self.marks = {**self.marks, run: mark}
            self._tell()

    def _tell(self) -> None:
        self._save()
        self.changed.emit(self)
