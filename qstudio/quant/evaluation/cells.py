"""Figures that were measured before, known by the content of all they depend on, in memory and in a file."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from qstudio.core.errors import UserError
from qstudio.core.sensitivity import Figures, HessianTrace

VERSION = 1
_MOST = 20_000
"""Entries in memory; each takes some hundred bytes."""


class CellBook:
    """Figures by key. A key is a hash of all that figures depend on, so that nothing in here can be stale.

    That is the network, the samples, the encodings, the device, torch's version and its number of threads.

    Args:
        path: A JSON file to read at the start and to write with `save`; empty = memory only. It may hold figures of
            other models and data, which stay.
        memory: Another book that is asked too and told everything.

    Raises:
        UserError: The file is there and is not such a file, or cannot be read.
    """

    def __init__(self, path: str = "", memory: CellBook | None = None) -> None:
        self.path = path
        self._memory = memory
        self._entries: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._changed = False
        if path and Path(path).exists():
            self._entries.update(_read(path))
        elif path and not Path(path).absolute().parent.is_dir():
            raise UserError("the folder does not exist", str(Path(path).parent), "Make it first, or choose another")

    def __len__(self) -> int:
        return len(self._entries)

    def figures(self, key: str) -> Figures | None:
        """Return the figures of a key, or None."""
        entry = self._get(key)
        if entry is None or "agreement" not in entry:
            return None
        interval = entry["top1_interval"]
        found = {name: _number(value) for name, value in entry.items() if name != "top1_interval"}
        return Figures(**found, top1_interval=None if interval is None else (interval[0], interval[1]))

    def put_figures(self, key: str, figures: Figures) -> None:
        """Remember figures."""
        self._put(key, {name: _plain(value) for name, value in vars(figures).items()})

    def trace(self, key: str) -> HessianTrace | None:
        """Return the trace of a key, or None."""
        entry = self._get(key)
        if entry is None or "trace" not in entry:
            return None
        return HessianTrace(**{name: value if name == "layer" else _number(value) for name, value in entry.items()})

    def put_trace(self, key: str, trace: HessianTrace) -> None:
        """Remember a trace."""
        self._put(key, {name: _plain(value) for name, value in vars(trace).items()})

    def save(self) -> None:
        """Write the file anew, if there is one and something has changed, so that it is never half-written.

        Raises:
            UserError: It cannot be written.
        """
        if not self.path or not self._changed:
            return
        target = Path(self.path)
        text = json.dumps({"qstudio_sensitivity": VERSION, "entries": self._entries}, allow_nan=False)
        try:
            handle, temporary = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(text)
                os.replace(temporary, target)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise UserError(
                f"the file cannot be written ({error.strerror})", self.path, "Choose another file"
            ) from error
        self._changed = False

    def _get(self, key: str) -> dict[str, Any] | None:
        entry = self._entries.get(key)
        if entry is None and self._memory is not None:
            entry = self._memory._get(key)
            if entry is not None:
                self._put(key, entry)
        return entry

    def _put(self, key: str, entry: dict[str, Any]) -> None:
        if self._entries.get(key) != entry:
            self._entries[key] = entry
            self._changed = True
        while len(self._entries) > _MOST:
            self._entries.popitem(last=False)
        if self._memory is not None:
            self._memory._put(key, entry)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: what is not finite as text."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _read(path: str) -> dict[str, dict[str, Any]]:
    fix = "Choose a file that a sweep has written, or the name of a new one"
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the file cannot be read ({error.strerror})", path, fix) from error
    except ValueError as error:
        raise UserError("this is not a file of a sensitivity sweep", path, fix) from error
    if not isinstance(data, dict) or data.get("qstudio_sensitivity") != VERSION:
        raise UserError("this is not a file of a sensitivity sweep", path, fix)
    entries = data.get("entries")
    if not isinstance(entries, dict) or not all(_is_entry(entry) for entry in entries.values()):
        raise UserError("the file of the sensitivity sweep is damaged", path, fix)
    return entries


_NUMBER = (int, float)
_MAYBE = (int, float, type(None))
_FIGURES: dict[str, tuple[type, ...]] = {
    "samples": (int,),
    "agreement": _NUMBER,
    "sqnr_db": _NUMBER,
    "kl": _MAYBE,
    "top1": _MAYBE,
    "top1_interval": (list, tuple, type(None)),
    "loss": _MAYBE,
}
_TRACE: dict[str, tuple[type, ...]] = {
    "layer": (str,),
    "trace": _NUMBER,
    "standard_error": _NUMBER,
    "parameters": (int,),
}


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    wanted = _TRACE if "trace" in entry else _FIGURES
    if set(entry) != set(wanted):
        return False
    for name, kinds in wanted.items():
        value = entry[name]
        if value in ("inf", "-inf", "nan") and float in kinds:
            continue
        if not isinstance(value, kinds):
            return False
    interval = entry.get("top1_interval")
    return interval is None or (len(interval) == 2 and all(isinstance(end, _NUMBER) for end in interval))
