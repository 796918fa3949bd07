"""Rows of a project file: from values to rows, only those that changed, and back with every type checked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_type_hints

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe, make_values
from qstudio.core.results import RunResult
from qstudio.core.training import CurvePoint
from qstudio.engine.messages import JobState
from qstudio.session.history import Edit, Step
from qstudio.session.options import Run
from qstudio.session.store.codec import decode, dumps, loads, parse
from qstudio.session.store.state import Facts, Mark, ProjectState
from qstudio.session.training import TrainingRecord

MOST_ROWS = 100_000
"""Of a table: more are refused. A session keeps 2,000 edits and 500 steps."""


def damaged(what: str, where: str) -> UserError:
    """Return the error for a file whose rows do not fit together."""
    return UserError(f"the project is damaged ({what})", where, "Choose an older copy of it")


def rows(connection: sqlite3.Connection, query: str, where: str, *kinds: Any) -> list[tuple[Any, ...]]:
    """Return all rows of a query, their values of the types given (a tuple of types where several will do).

    Raises:
        UserError: A value has another type, or there are too many rows.
    """
    found = connection.execute(f"{query} LIMIT {MOST_ROWS + 1}").fetchall()
    if len(found) > MOST_ROWS:
        raise damaged(f"more than {MOST_ROWS:,} rows", where)
    for row in found:
        for value, kind in zip(row, kinds, strict=True):
            if not isinstance(value, kind):
                raise damaged(f"a value is of type {type(value).__name__}", where)
    return found


NONE_OR_TEXT = (str, type(None))
NONE_OR_NUMBER = (int, type(None))


# ---- facts


def write_facts(connection: sqlite3.Connection, before: Facts, after: Facts) -> bool:
    """Write the fields that changed; return whether any did."""
    if before == after:
        return False
    hints = get_type_hints(Facts)
    for field in fields(Facts):
        value = getattr(after, field.name)
        if value != getattr(before, field.name):
            connection.execute(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)", (field.name, dumps(hints[field.name], value, {}))
            )
    return True


def read_facts(connection: sqlite3.Connection, where: str) -> Facts:
    """Read what there is one of."""
    found = rows(connection, "SELECT name, value FROM facts", where, str, str)
    facts: Facts = decode(Facts, {name: parse(value, where) for name, value in found}, {}, where)
    return facts


# ---- history


def write_edits(connection: sqlite3.Connection, before: Mapping[int, Edit], after: Mapping[int, Edit]) -> bool:
    """Write the edits that are new or changed and remove those that are gone; return whether there were any."""
    gone = [number for number in before if number not in after]
    changed = [edit for edit in after.values() if before.get(edit.id) is not edit]
    connection.executemany("DELETE FROM edits WHERE id = ?", [(number,) for number in gone])
    for edit in changed:
        base = after.get(edit.parent) if edit.parent is not None else None
        connection.execute(
            "INSERT OR REPLACE INTO edits VALUES (?, ?, ?, ?, ?)",
            (edit.id, edit.parent, edit.label, recipe_text(edit.recipe, base.recipe if base else None), edit.time),
        )
    return bool(gone or changed)


def recipe_text(recipe: Recipe, base: Recipe | None) -> str:
    """Return a recipe as JSON: what differs from the one it was made from, where that is only layers; else all of it.

    A recipe of 2,000 layers takes 160 kB; an edit of one of them then 100 bytes.
    """
    if base is None or (base.default, base.rules, base.refinements) != (
        recipe.default,
        recipe.rules,
        recipe.refinements,
    ):
        return json.dumps(recipe.to_json(), separators=(",", ":"), allow_nan=False)
    old, new = dict(base.overrides), dict(recipe.overrides)
    changed = tuple(
        item for item in recipe.overrides if old.get(item[0]) is not item[1] and old.get(item[0]) != item[1]
    )
    gone = [layer for layer in old if layer not in new]
    plain = replace(recipe, overrides=changed).to_json()["layers"]
    return json.dumps({"changed": plain, "inherit": gone}, separators=(",", ":"), allow_nan=False)


def recipe_from(text: str, base: Recipe | None, where: str) -> Recipe:
    """Read what `recipe_text` wrote.

    Raises:
        UserError: It is damaged.
    """
    data = parse(text, where)
    if not isinstance(data, dict) or set(data) != {"changed", "inherit"}:
        return _recipe(data, where)
    changed, gone = data["changed"], data["inherit"]
    if base is None or not isinstance(changed, dict) or not isinstance(gone, list):
        raise damaged("an edit does not fit the one before", where)
    layers = dict(base.overrides)
    for layer in gone:
        layers.pop(str(layer), None)
    for layer, values in changed.items():
        try:
            layers[layer] = make_values(**values)
        except TypeError as error:
            raise damaged(str(error), where) from None
    return replace(base, overrides=tuple(sorted(layers.items())))


def _recipe(data: Any, where: str) -> Recipe:
    try:
        return Recipe.from_json(data)
    except UserError as error:
        raise UserError(f"the project has a recipe that cannot be read ({error.what})", where, error.fix) from None


def read_edits(connection: sqlite3.Connection, where: str) -> dict[int, Edit]:
    """Read the tree of edits."""
    query = "SELECT id, parent, label, recipe, time FROM edits ORDER BY id"
    edits: dict[int, Edit] = {}
    for number, parent, label, text, time in rows(connection, query, where, int, NONE_OR_NUMBER, str, str, float):
        base = edits.get(parent) if parent is not None else None
        if parent is not None and base is None:
            raise damaged("an edit is missing", where)
        edits[number] = Edit(number, parent, label, recipe_from(text, base.recipe if base else None, where), time)
    return edits


def write_line(connection: sqlite3.Connection, before: tuple[Step, ...], after: tuple[Step, ...]) -> bool:
    """Write the steps that changed; return whether any did. Positions go on counting when the oldest step goes."""
    plain = [(step.label, step.edit) for step in after]
    known = [(step.label, step.edit) for step in before]
    if plain == known:
        return False
    first = connection.execute("SELECT min(position) FROM steps").fetchone()[0] or 0
    shift = 1 if len(known) > 1 and plain and plain[0] == known[1] != known[0] else 0
    first, known = first + shift, known[shift:]
    same = next((n for n, (a, b) in enumerate(zip(plain, known, strict=False)) if a != b), min(len(plain), len(known)))
    connection.execute("DELETE FROM steps WHERE position < ? OR position >= ?", (first, first + same))
    added = [(first + n, label, edit) for n, (label, edit) in enumerate(plain) if n >= same]
    connection.executemany("INSERT INTO steps VALUES (?, ?, ?)", added)
    return True


def read_line(connection: sqlite3.Connection, where: str) -> tuple[Step, ...]:
    """Read the steps of undo and redo."""
    found = rows(connection, "SELECT label, edit FROM steps ORDER BY position", where, str, int)
    return tuple(Step(label, edit) for label, edit in found)


# ---- runs


def write_runs(
    connection: sqlite3.Connection, before: ProjectState, after: ProjectState, known: set[str]
) -> set[str] | None:
    """Write the runs that are new or changed; return the hashes of the recipes added, None when nothing changed.

    Progress is not kept. Of a training only the new points of its curve are written.
    """
    written = {run.id: run for run in before.runs}
    recipes: dict[str, Recipe] = {}
    changed = False
    for run in after.runs:
        old = written.get(run.id)
        still = replace(run, progress=old.progress) if old is not None and run.progress != old.progress else run
        if old is run or (old == still and before.run_edits.get(run.id) == after.run_edits.get(run.id)):
            continue
        changed = True
        _write_run(connection, old, run, after.run_edits.get(run.id), recipes)
    present = {run.id for run in after.runs}
    for number in written.keys() - present:
        changed = True
        connection.execute("DELETE FROM runs WHERE id = ?", (number,))
        connection.execute("DELETE FROM curve WHERE run = ?", (number,))
    new = {digest: recipe for digest, recipe in recipes.items() if digest not in known}
    for digest, recipe in new.items():
        text = json.dumps(recipe.to_json(), separators=(",", ":"), allow_nan=False)
        connection.execute("INSERT OR IGNORE INTO recipes VALUES (?, ?)", (digest, text))
    return set(new) if changed else None


def _write_run(
    connection: sqlite3.Connection, old: Run | None, run: Run, edit: int | None, recipes: dict[str, Recipe]
) -> None:
    if old is None:
        values = (run.id, edit, run.state.name, dumps(Run, _asked(run), recipes))
        connection.execute(
            "INSERT INTO runs (id, edit, state, asked, phase, error) VALUES (?, ?, ?, ?, '', '')", values
        )
    elif _asked(old) != _asked(run):
        connection.execute("UPDATE runs SET asked = ? WHERE id = ?", (dumps(Run, _asked(run), recipes), run.id))
    connection.execute(
        "UPDATE runs SET edit = ?, state = ?, phase = ?, error = ? WHERE id = ?",
        (edit, run.state.name, run.phase, run.error, run.id),
    )
    if run.result is not None and (old is None or old.result is not run.result):
        text = dumps(RunResult, run.result, recipes)
        connection.execute("UPDATE runs SET result = ? WHERE id = ?", (text, run.id))
    if run.training is None:
        return
    curve = old.training.curve if old is not None and old.training is not None else ()
    if old is None or old.training is None or _bare(old.training) != _bare(run.training):
        text = dumps(TrainingRecord, _bare(run.training), recipes)
        connection.execute("UPDATE runs SET training = ? WHERE id = ?", (text, run.id))
    if curve != run.training.curve:
        epochs = {point.epoch for point in run.training.curve}
        gone = [(run.id, point.epoch) for point in curve if point.epoch not in epochs]
        connection.executemany("DELETE FROM curve WHERE run = ? AND epoch = ?", gone)
        kept = {id(point) for point in curve}
        new = [
            (run.id, point.epoch, dumps(CurvePoint, point, recipes))
            for point in run.training.curve
            if id(point) not in kept
        ]
        connection.executemany("INSERT OR REPLACE INTO curve VALUES (?, ?, ?)", new)


def _asked(run: Run) -> Run:
    """Return a run without what comes in while it runs and has columns of its own."""
    return replace(run, state=JobState.QUEUED, phase="", progress=None, error="", result=None, training=None)


def _bare(training: TrainingRecord) -> TrainingRecord:
    """Return a record without the curve, whose points are rows of their own."""
    return replace(training, curve=()) if training.curve else training


def read_recipes(connection: sqlite3.Connection, where: str) -> dict[str, Recipe]:
    """Read the recipes that runs name."""
    found = rows(connection, "SELECT sha256, recipe FROM recipes", where, str, str)
    recipes = {digest: _recipe(parse(text, where), where) for digest, text in found}
    if any(recipe.sha256() != digest for digest, recipe in recipes.items()):
        raise damaged("a recipe is not the one that was run", where)
    return recipes


def read_runs(
    connection: sqlite3.Connection, recipes: dict[str, Recipe], where: str
) -> tuple[tuple[Run, ...], dict[int, int | None]]:
    """Read all runs, and the edit that each came from."""
    curves: dict[int, list[CurvePoint]] = {}
    for number, text in rows(connection, "SELECT run, point FROM curve ORDER BY run, epoch", where, int, str):
        curves.setdefault(number, []).append(loads(CurvePoint, text, recipes, where))
    query = "SELECT id, edit, state, asked, phase, error, result, training FROM runs ORDER BY id"
    kinds = (int, NONE_OR_NUMBER, str, str, str, str, NONE_OR_TEXT, NONE_OR_TEXT)
    runs: list[Run] = []
    edits: dict[int, int | None] = {}
    found = rows(connection, query, where, *kinds)
    if [row[0] for row in found] != list(range(1, len(found) + 1)):
        raise damaged("a run is missing", where)
    for number, edit, state, asked, phase, error, result, training in found:
        said = loads(Run, asked, recipes, where)
        record = loads(TrainingRecord, training, recipes, where) if training is not None else None
        if record is not None:
            record = replace(record, curve=tuple(curves.get(number, ())))
        runs.append(
            replace(
                said,
                id=number,
                state=decode(JobState, state, recipes, where),
                result=loads(RunResult, result, recipes, where) if result is not None else None,
                phase=phase,
                error=error,
                training=record,
            )
        )
        edits[number] = edit
    return tuple(runs), edits


# ---- marks


def write_marks(connection: sqlite3.Connection, before: Mapping[int, Mark], after: Mapping[int, Mark]) -> bool:
    """Write what was noted about runs, where it changed; return whether anything did."""
    gone = [(run,) for run in before if run not in after]
    changed = [(run, int(mark.pinned), mark.note) for run, mark in after.items() if before.get(run) != mark]
    connection.executemany("DELETE FROM marks WHERE run = ?", gone)
    connection.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", changed)
    return bool(gone or changed)


def read_marks(connection: sqlite3.Connection, where: str) -> dict[int, Mark]:
    """Read what was noted about runs."""
    found = rows(connection, "SELECT run, pinned, note FROM marks", where, int, int, str)
    return {run: Mark(bool(pinned), note) for run, pinned, note in found}
