"""Recipes, and the encodings of other tools, as JSON files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qstudio.core.errors import UserError
from qstudio.core.exchange import SiteEncodings, as_aimet, as_onnxruntime, looks_like_encodings, recipe_from
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe from a JSON file.

    Raises:
        UserError: The file cannot be read or is not a recipe.
    """
    data = _read_json(path)
    try:
        return Recipe.from_json(data)
    except UserError as error:
        inside = "" if error.where == "recipe" else f"{error.where}: "
        raise UserError(f"{inside}{error.what}", os.fspath(path), error.fix) from None


def read_encodings(path: str | os.PathLike[str]) -> Any:
    """Return the parsed encodings of another tool (see `qstudio.core.exchange`); None where the file holds none.

    Raises:
        UserError: The file cannot be read or is no JSON file.
    """
    data = _read_json(path)
    return data if looks_like_encodings(data) else None


def read_for_model(
    path: str | os.PathLike[str], model: ModelInfo | None, base: Recipe
) -> tuple[Recipe, tuple[str, ...]]:
    """Read a recipe, or the encodings of another tool as a recipe for a model, and what to know about it.

    Args:
        path: A JSON file.
        model: Whose tensors the encodings name; without one, recipes only.
        base: What encodings are laid over.

    Raises:
        UserError: The file cannot be read, is neither, or its encodings belong to another model.
    """
    data = read_encodings(path)
    if data is None or model is None:
        return read_recipe(path), ()
    try:
        return recipe_from(data, model.layers, base)
    except UserError as error:
        raise UserError(f"{error.where}: {error.what}", os.fspath(path), error.fix) from None


def _read_json(path: str | os.PathLike[str]) -> Any:
    name = os.fspath(path)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the file cannot be read ({error.strerror})", name, "Check the path") from None
    except (ValueError, RecursionError):
        raise UserError("this is not a JSON file", name, "Choose a recipe saved by QStudio") from None


def write_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write a recipe as JSON, to a temporary name first, so that a file is never left half-written.

    Raises:
        UserError: The file cannot be written.
    """
    _write(json.dumps(recipe.to_json(), indent=2), path, "recipe was")


def write_encodings(encodings: SiteEncodings | None, kind: str, path: str | os.PathLike[str]) -> None:
    """Write scale and zero point of every tensor of a run for another tool.

    Args:
        encodings: Of a run's result.
        kind: Of `qstudio.core.exchange_formats.FORMATS`.
        path: A JSON file, written to a temporary name first.

    Raises:
        UserError: The run has no encodings, the format cannot say them, or the file cannot be written.
    """
    if encodings is None:
        raise UserError("the run has not been exported, so there are no encodings", os.fspath(path), "Run PTQ first")
    data = as_aimet(encodings) if kind == "aimet" else as_onnxruntime(encodings)
    _write(json.dumps(data, indent=1), path, "encodings were")


def _write(text: str, path: str | os.PathLike[str], what: str) -> None:
    target = Path(path)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"the {what} not saved ({reason})", str(target), "Choose another folder") from None
