"""Registries: how built-ins and plug-ins are found, through one door.

A registered item is a spec: a frozen value with an id, a title, words for people, its parameters with bounds and units,
and an import string. Nothing heavy is imported to list or show it; the import string is resolved at first use.

A plug-in is a package with an entry point in the registry's group, whose object is such a spec:

    [project.entry-points."qstudio.calibrators"]
    three_sigma = "my_package:THREE_SIGMA"

A plug-in that cannot be loaded is kept with its reason, so that a person can be told instead of wondering.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

ID = re.compile(r"[a-z][a-z0-9_]*")
"""What an id looks like: it is written in recipes and on the command line, where a colon starts the parameter."""


class Spec(Protocol):
    """What every registered item has."""

    @property
    def id(self) -> str:
        """Name in files and on the command line."""

    @property
    def title(self) -> str:
        """Name for people."""

    @property
    def target(self) -> str:
        """Import string "package.module:attribute" of what does the work."""


S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class BrokenPlugin:
    """A plug-in that is installed and cannot be used."""

    name: str
    """Name of its entry point."""
    package: str
    """The distribution it came with; empty when unknown."""
    reason: str
    """Why it cannot be used, in words, without a full stop."""


class Registry(Mapping[str, S], Generic[S]):
    """Items by id: built-ins first, then plug-ins by name.

    Plug-ins are looked for once, the first time something is asked for that is not built in (or all are listed), so
    that a program that uses built-ins only never pays for the search (about 10 ms, and 70 ms for Python's own module).
    """

    def __init__(self, group: str, kind: type[S], *builtins: S) -> None:
        self.group = group
        self._kind = kind
        self._items: dict[str, S] = {}
        self._broken: list[BrokenPlugin] = []
        self._searched = False
        for item in builtins:
            self.add(item)

    def add(self, item: S) -> None:
        """Register an item: the one door for built-ins, plug-ins and scripts.

        Raises:
            ValueError: It is not a spec of this registry's kind, its id is malformed, or the id is taken.
        """
        if not isinstance(item, self._kind):
            raise ValueError(f"it gives {type(item).__name__}, and {self._kind.__name__} is needed")
        if not ID.fullmatch(item.id):
            raise ValueError(f"its id '{item.id}' is not made of small letters, digits and underscores")
        if item.id in self._items:
            raise ValueError(f"the id '{item.id}' is taken")
        self._items[item.id] = item

    @property
    def broken(self) -> tuple[BrokenPlugin, ...]:
        """Plug-ins that are installed and cannot be used."""
        self._search()
        return tuple(self._broken)

    def why_missing(self, name: str) -> str:
        """Return why there is no usable item of that id, in words: a broken plug-in's reason, or empty."""
        return next((f"its plug-in is broken: {b.reason}" for b in self.broken if b.name == name), "")

    def __getitem__(self, name: str) -> S:
        if name not in self._items:
            self._search()
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._search()
        return iter(tuple(self._items))

    def __len__(self) -> int:
        self._search()
        return len(self._items)

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        from importlib.metadata import entry_points  # 70 ms that only programs with plug-ins need

        for point in sorted(entry_points(group=self.group), key=lambda p: p.name):
            try:
                self.add(point.load())
            except Exception as error:  # a plug-in may fail in any way, and none of them may stop the program
                package = point.dist.name if point.dist is not None else ""
                self._broken.append(BrokenPlugin(point.name, package, _reason(error)))


def resolve(target: str) -> Any:
    """Import what "package.module:attribute" names.

    Raises:
        ImportError: The module cannot be imported or has no such attribute.
    """
    from importlib import import_module

    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except AttributeError:
        raise ImportError(f"{module} has no '{attribute}'") from None


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if isinstance(error, ValueError) and text else f"{type(error).__name__}: {error}"
