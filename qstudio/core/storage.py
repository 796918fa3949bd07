"""How the exported file stores weights below 8 bits, and what either way costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qstudio.core.errors import UserError

INT8, PACKED = "int8", "packed"

STORAGES: dict[str, str] = {
    INT8: "one byte for each code of up to 8 bits; runs from operator set 13 on",
    PACKED: "codes of up to 4 bits in 4, of up to 2 bits in 2: smaller, needs operator set 21 or 25, and is "
    "unpacked when it is loaded (groups of a matrix: in every inference)",
}
"""Choices by id with what they mean (ONNX types int8; int4, uint4: operator set 21; int2, uint2: 25)."""


@dataclass(frozen=True)
class StorageFigures:
    """An exported file that stores its weights in one of the ways."""

    file_bytes: int
    latency_ms: float | None = None
    """Median of one inference, milliseconds; None where latency is not measured."""


@dataclass(frozen=True)
class StorageChoice:
    """What both ways cost; measured where some weight has codes of at most 4 bits, as else the files are equal."""

    int8: StorageFigures
    packed: StorageFigures
    chosen: str
    """The id of the exported file's."""

    def with_latency(self, chosen_ms: float, other_ms: float) -> StorageChoice:
        """Return the choice with the medians of both files."""
        int8_ms, packed_ms = (other_ms, chosen_ms) if self.chosen == PACKED else (chosen_ms, other_ms)
        return replace(
            self, int8=replace(self.int8, latency_ms=int8_ms), packed=replace(self.packed, latency_ms=packed_ms)
        )


def check_storage(text: str) -> str:
    """Return a storage's id.

    Raises:
        UserError: There is no such storage.
    """
    name = text.strip().lower()
    if name not in STORAGES:
        raise UserError(f"'{text}' is not a way to store weights", "storage", f"Choose {' or '.join(STORAGES)}")
    return name
