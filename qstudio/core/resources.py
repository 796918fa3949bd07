"""Files that ship with the program: found inside the package first, beside it in a checkout second."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True)
class SampleModel:
    """A trained model that comes with the program."""

    path: Path
    title: str
    summary: str
    """One sentence: what it is and what is to be seen with it."""
    data: str = "digits"
    """Dataset it was trained on."""
    float_top1: float | None = None
    """Percent, as its model card says."""
    parameters: int | None = None


def shipped_directory(name: str) -> Path | None:
    """Return the directory `resources` or `sample_models`; None where neither the wheel nor the checkout has it."""
    package = Path(str(files("qstudio")))
    for candidate in (package / f"_{name}", package.parent / name):
        if candidate.is_dir():
            return candidate
    return None


def sample_models() -> tuple[SampleModel, ...]:
    """Return the sample models named in `sample_models/index.json` whose files exist; () where there is none."""
    directory = shipped_directory("sample_models")
    if directory is None:
        return ()
    try:
        entries = json.loads((directory / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    found = []
    for entry in entries["models"] if isinstance(entries, dict) else entries:
        path = directory / str(entry["file"])
        if path.exists():
            top1, parameters = entry.get("float_accuracy"), entry.get("parameters")
            found.append(
                SampleModel(
                    path,
                    str(entry.get("title", path.stem)),
                    str(entry.get("description", "")),
                    str(entry.get("dataset", "digits")),
                    None if top1 is None else float(top1),
                    None if parameters is None else int(parameters),
                )
            )
    return tuple(found)
