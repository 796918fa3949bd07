"""Values within a byte budget: what was used longest ago goes first, and of that what is cheapest to compute again."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any


@dataclass
class _Entry:
    value: Any
    size_bytes: int
    generation: int
    density: float


class Store:
    """Values by key, never more than `byte_budget` bytes of them.

    A value's rank is (generation in which it was last used, seconds to compute it again per byte). A new value goes in
    only in the place of values of lower rank: so a pass over samples that do not all fit keeps the first of them and
    does not turn over the whole store, as a plain LRU does.
    """

    def __init__(self, byte_budget: int) -> None:
        self.byte_budget = byte_budget
        self.size_bytes = 0
        self._entries: dict[Hashable, _Entry] = {}
        self._ranks: list[tuple[int, float, int, Hashable]] = []
        """A heap; a rank may be older than its entry's, and is renewed when it comes up."""
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def __getitem__(self, key: Hashable) -> Any:
        return self._entries[key].value

    def touch(self, key: Hashable, generation: int) -> None:
        """Note that a value, if it is there, belongs to what is used now."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.generation = generation

    def put(self, key: Hashable, value: Any, size_bytes: int, generation: int, density: float) -> bool:
        """Keep a value if there is room, or room can be made; return whether it is kept.

        Args:
            key: Stands for the value's content.
            value: What is kept.
            size_bytes: Memory it holds.
            generation: Number of the evaluation that uses it.
            density: Seconds to compute it again, per byte.
        """
        if key in self._entries:
            self.touch(key, generation)
            return True
        if size_bytes > self.byte_budget:
            return False
        while self.size_bytes + size_bytes > self.byte_budget:
            lowest = self._lowest()
            if lowest[:2] >= (generation, density):
                return False
            heapq.heappop(self._ranks)
            self.size_bytes -= self._entries.pop(lowest[3]).size_bytes
        self._entries[key] = _Entry(value, size_bytes, generation, density)
        self.size_bytes += size_bytes
        self._push(key, generation, density)
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._ranks.clear()
        self.size_bytes = 0

    def _lowest(self) -> tuple[int, float, int, Hashable]:
        """Return the present lowest rank, which stands at the top of the heap."""
        while True:
            rank = self._ranks[0]
            entry = self._entries[rank[3]]
            if entry.generation == rank[0]:
                return rank
            heapq.heappop(self._ranks)
            self._push(rank[3], entry.generation, entry.density)

    def _push(self, key: Hashable, generation: int, density: float) -> None:
        self._pushed += 1
        heapq.heappush(self._ranks, (generation, density, self._pushed, key))
