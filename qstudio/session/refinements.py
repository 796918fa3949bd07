"""Choosing refinements: each choice is a label and a recipe, ready for `Session.edit`."""

from __future__ import annotations

from dataclasses import replace

from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS, check_refinements


def chosen_refinements(recipe: Recipe) -> dict[str, str]:
    """Return the refinements of a recipe: id -> text with its parameters."""
    return {text.partition(":")[0]: text for text in recipe.refinements}


def switched(recipe: Recipe, name: str, on: bool) -> tuple[str, Recipe]:
    """Return (label, recipe) with a refinement on or off.

    One that chooses how weights are rounded takes the place of another that does; all others need "fold", which is
    then on as well, and cannot be switched off alone.

    Raises:
        UserError: There is no such refinement.
    """
    chosen = chosen_refinements(recipe)
    title = REFINEMENTS[name].title if name in REFINEMENTS else name
    if not on:
        chosen.pop(name, None)
        return f"{title} off", replace(recipe, refinements=check_refinements(chosen.values()))
    label = f"{title} on"
    if name in REFINEMENTS and REFINEMENTS[name].rounds:
        for other in [other for other in chosen if other != name and REFINEMENTS[other].rounds]:
            del chosen[other]
            label = f"{title} instead of {REFINEMENTS[other].title}"
    chosen.setdefault(name, name)
    return label, replace(recipe, refinements=check_refinements(chosen.values()))


def with_parameter(recipe: Recipe, name: str, parameter: str, value: float) -> tuple[str, Recipe]:
    """Return (label, recipe) with a parameter of a chosen refinement set; at its default it is left out of the text.

    Raises:
        KeyError: The recipe does not have the refinement, or the refinement no such parameter.
        UserError: The value is out of bounds.
    """
    refinement = REFINEMENTS[name]
    spec = next((known for known in refinement.parameters if known.name == parameter), None)
    if spec is None:
        raise KeyError(parameter)
    chosen = chosen_refinements(recipe)
    values = {**refinement.settings(chosen[name]), parameter: value}
    chosen[name] = ":".join((name, *(f"{key}={number:.10g}" for key, number in values.items())))
    label = f"{refinement.title}: {spec.title.lower()} {value:g}"
    return label, replace(recipe, refinements=check_refinements(chosen.values()))
