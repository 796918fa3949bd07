"""Recipes as JSON files."""

from __future__ import annotations

import json
import os
from pathlib import Path

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe from a JSON file.

    Raises:
        UserError: The file cannot be read or is not a recipe.
    """
    name = os.fspath(path)
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the file cannot be read ({error.strerror})", name, "Check the path") from None
    except (ValueError, RecursionError):
        raise UserError("this is not a JSON file", name, "Choose a recipe saved by QStudio") from None
    try:
        return Recipe.from_json(data)
    except UserError as error:
        inside = "" if error.where == "recipe" else f"{error.where}: "
        raise UserError(f"{inside}{error.what}", name, error.fix) from None


def write_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write a recipe as JSON, to a temporary name first, so that a file is never left half-written.

    Raises:
        UserError: The file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        try:
            temporary.write_text(json.dumps(recipe.to_json(), indent=2) + "\n", encoding="utf-8")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"the recipe was not saved ({reason})", str(target), "Choose another folder") from None
