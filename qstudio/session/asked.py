"""What figures were measured with, so that they are never shown as those of something else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import FIELDS, Recipe
from qstudio.session.options import RunOptions

KEPT_FILES = 20
"""Files of measured figures that are kept, one for each model; the oldest goes when another is begun."""


@dataclass(frozen=True)
class Asked:
    """Everything that decides the figures of a sweep or a search."""

    model: str
    """Content hash."""
    data: tuple[str, str]
    """Content hash and reading."""
    options: tuple[Any, ...]
    """Run options that choose samples and device."""
    recipe: tuple[Any, ...]
    """What of the recipe matters: see `relevant`."""
    settings: Any
    """What was chosen about the sweep or the search itself."""

    def difference(self, now: Asked | None) -> str:
        """Return why figures asked for with this are not those of now, in words; empty when they are."""
        if now is None:
            return "The data has been closed since"
        for name, words in _DIFFERENCES.items():
            if getattr(self, name) != getattr(now, name):
                return words
        return ""


_DIFFERENCES = {
    "model": "The model has changed since",
    "data": "The data has changed since",
    "options": "Samples, seed or device have changed since",
    "recipe": "The recipe has changed since",
    "settings": "Other settings are chosen now than were measured",
}


def asked(
    model: ModelInfo, dataset: DatasetInfo, options: RunOptions, recipe: tuple[Any, ...], settings: Any, evaluated: bool
) -> Asked:
    """Return what figures depend on.

    Args:
        model: The open model.
        dataset: The open data.
        options: Of the run bar.
        recipe: What of the recipe matters.
        settings: Of the sweep or the search.
        evaluated: Whether the number of evaluation samples is taken from the options.
    """
    parts = (
        options.device,
        options.calibration_samples,
        options.calibration_choice,
        repr(options.calibration_data),
        options.seed,
        options.eval_samples if evaluated else None,
    )
    return Asked(model.sha256, (dataset.sha256, dataset.preprocess), parts, recipe, settings)


def relevant(recipe: Recipe, model: ModelInfo, free: Mapping[str, frozenset[str]]) -> tuple[Any, ...]:
    """Return what of a recipe matters where some fields of some layers are chosen by a sweep or a search.

    Args:
        recipe: Whole.
        model: Its layers are looked at.
        free: Layer -> fields whose values do not matter.
    """
    nothing: frozenset[str] = frozenset()
    rows = []
    for layer in model.layers:
        settings, left_out = recipe.settings(layer.name), free.get(layer.name, nothing)
        rows.append(tuple(None if name in left_out else getattr(settings, name) for name in FIELDS))
    return (recipe.refinements, tuple(rows))


def default_figures_root() -> str:
    """Return the folder of the system for what programs can make again, and in it ours for measured figures."""
    from platformdirs import user_cache_dir

    return str(Path(user_cache_dir("qstudio", appauthor=False)) / "figures")


def figures_file(root: str, model: ModelInfo) -> str:
    """Return where figures of a model are read from and written to; empty where no folder can be made.

    Each figure in it is known by a hash of all it depends on, so that nothing in it can be stale.
    """
    if not root:
        return ""
    folder = Path(root)
    target = folder / f"{model.sha256[:16]}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = sorted((file.stat().st_mtime, str(file)) for file in folder.glob("*.json") if file != target)
        for _, path in known[: max(len(known) - KEPT_FILES + 1, 0)]:
            os.unlink(path)
    except OSError:
        return ""
    return str(target)


def forget_figures(path: str) -> None:
    """Remove a file of figures that cannot be read; what cannot be removed stays."""
    try:
        os.unlink(path)
    except OSError:
        return
