"""Undo and redo: labels, merged drags, bounds, speed."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from qstudio.core.recipe import Recipe
from qstudio.session.history import LIMIT, History


def recipe(bits: int, layer: str = "conv1") -> Recipe:
    return Recipe().with_layers((layer,), weight_bits=bits)


def test_labels_follow_the_cursor() -> None:
    history = History(Recipe())
    assert (history.undo_label, history.redo_label) == (None, None)
    history.push("four", recipe(4))
    history.push("three", recipe(3))
    assert (history.undo_label, history.redo_label) == ("three", None)
    assert history.undo() == "three"
    assert (history.undo_label, history.redo_label, history.recipe) == ("four", "three", recipe(4))
    assert history.undo() == "four"
    assert history.undo() is None
    assert history.recipe == Recipe()
    assert [history.redo(), history.redo(), history.redo()] == ["four", "three", None]
    assert history.recipe == recipe(3)


def test_an_edit_that_changes_nothing_is_no_step() -> None:
    history = History(Recipe())
    assert not history.push("nothing", Recipe())
    assert history.undo_label is None


def test_a_new_edit_cuts_off_what_was_undone() -> None:
    history = History(Recipe())
    history.push("four", recipe(4))
    history.undo()
    history.push("five", recipe(5))
    assert history.redo_label is None
    assert history.undo() == "five"
    assert history.recipe == Recipe()


def test_a_drag_is_one_step() -> None:
    history = History(recipe(8))
    for bits in (7, 6, 5):
        assert history.push(f"to {bits}", recipe(bits), "drag conv1")
    assert history.undo_label == "to 5"
    history.undo()
    assert history.recipe == recipe(8)
    assert history.undo_label is None


def test_a_drag_that_ends_where_it_began_leaves_no_step() -> None:
    history = History(recipe(8))
    history.push("first", recipe(7))
    history.push("drag", recipe(6), "drag")
    assert history.push("drag", recipe(7), "drag")
    assert (history.recipe, history.undo_label, history.redo_label) == (recipe(7), "first", None)
    history.push("drag", recipe(5), "drag")
    assert history.undo() == "drag"
    assert history.recipe == recipe(7)


def test_two_drags_of_one_handle_are_two_steps() -> None:
    history = History(recipe(8))
    history.push("drag", recipe(6), "drag")
    history.seal()
    history.push("drag", recipe(4), "drag")
    history.undo()
    assert history.recipe == recipe(6)


def test_an_undo_ends_a_drag_that_nobody_ended() -> None:
    history = History(recipe(8))
    history.push("drag", recipe(6), "drag")
    history.push("other", recipe(5))
    history.undo()
    history.push("drag", recipe(4), "drag")
    assert history.undo() == "drag"
    assert history.recipe == recipe(6)


def test_the_first_recipe_is_never_merged_away() -> None:
    history = History(Recipe())
    history.seal()
    history.push("drag", recipe(6), None)
    assert history.undo() == "drag"


def test_old_steps_are_dropped_at_the_limit() -> None:
    history = History(Recipe())
    for number in range(LIMIT + 20):
        history.push(str(number), recipe(2 + number % 8, f"layer{number}"))
    count = 0
    while history.undo() is not None:
        count += 1
    assert count == LIMIT


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["edit", "drag", "undo", "redo", "seal"]), st.integers(2, 6)), max_size=40))
def test_any_order_of_steps_keeps_undo_and_redo_inverse(steps: list[tuple[str, int]]) -> None:
    history = History(Recipe())
    for action, bits in steps:
        if action in ("edit", "drag"):
            history.push(action, recipe(bits), "drag" if action == "drag" else None)
            assert history.recipe == recipe(bits)
        else:
            getattr(history, action)()
    here, trail = history.recipe, 0
    while history.undo() is not None:
        trail += 1
    assert history.recipe == Recipe()
    for _ in range(trail):
        history.redo()
    assert history.recipe == here


def test_an_edit_of_a_large_model_is_quick() -> None:
    names = tuple(f"layer{number}" for number in range(2000))
    history = History(Recipe().with_layers(names, weight_bits=4))
    elapsed = []
    for bits in (3, 5, 6, 7, 2):
        begin = time.perf_counter()
        history.push("edit", history.recipe.with_layers((names[77],), weight_bits=bits))
        elapsed.append(time.perf_counter() - begin)
    assert min(elapsed) < 0.02, f"an edit of one of 2,000 layers took {1000 * min(elapsed):.1f} ms"
