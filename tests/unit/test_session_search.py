"""The search of a session: limits, partial fronts, budgets as edits, the verified recipe as a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from session_fakes import FakeEngine, dataset, model, result

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.results import Metrics
from qstudio.core.search_result import GroupDamage, SearchPoint, SearchResult
from qstudio.core.search_settings import SearchSettings
from qstudio.engine.messages import JobState, SearchBits
from qstudio.session.options import Notice
from qstudio.session.session import Session

NAMES = ("conv1", "conv2", "fc")


def opened(engine: FakeEngine) -> Session:
    session = Session(engine)
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    return session


def point(recipe: Recipe, bits: tuple[int, ...], **changes: object) -> SearchPoint:
    for name, width in zip(NAMES, bits, strict=True):
        recipe = recipe.with_layers((name,), weight_bits=width)
    mean = sum(bits) / len(bits)
    rows = tuple((name, width, 8) for name, width in zip(NAMES, bits, strict=True))
    made = SearchPoint(recipe, rows, (("average_bits", mean),), 1 / mean, mean, measured=Metrics(360, 90 + mean))
    return replace(made, **changes)


def found(recipe: Recipe, **changes: object) -> SearchResult:
    groups = tuple(GroupDamage((name,), "weights", ((8, 0.1), (4, 0.2), (2, 0.4))) for name in NAMES)
    front = tuple(point(recipe, bits) for bits in ((2, 2, 2), (4, 2, 2), (4, 4, 4), (8, 8, 4), (8, 8, 8)))
    return replace(SearchResult(SearchSettings(), "kl", "average_bits", groups, 0.0, front), **changes)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def test_a_search_fills_and_its_recipe_becomes_a_run(engine):
    session = opened(engine)
    session.search.start("out.onnx", limits=(("average_bits", 4.0),), weight_bits=(8, 4, 2))
    job = engine.one("SearchBits")
    assert isinstance(job.request, SearchBits)
    assert job.request.search.weight_bits == (8, 4, 2)
    assert (job.request.run.export_path, job.request.runs) == ("out.onnx", True)
    with pytest.raises(UserError, match="search is in progress"):
        session.run_ptq()
    engine.start(job)
    partial = found(session.recipe)
    job.on_partial(partial)
    assert session.search.result is partial
    assert not session.search.is_whole
    chosen = partial.front[2]
    session.set_options(seed=9)  # of the next search
    final = replace(partial, chosen=chosen, run=result(chosen.recipe, 93.0))
    engine.finish(job, final)
    assert session.search.is_whole
    [run] = session.runs
    assert run.state is JobState.DONE
    assert run.request.recipe == chosen.recipe
    assert run.options.seed == run.request.seed == 0
    assert session.selected_run == session.search.run_number == run.id
    [node] = [node for node in session.timeline.nodes if run.id in node.run_ids]
    assert node.label == "Search"
    assert not node.is_current, "what a search finds branches off"
    session.restore_run(run.id)
    assert session.recipe == chosen.recipe
    assert session.timeline.current == node.id


def test_sliding_a_budget_is_one_undoable_step(engine):
    session = opened(engine)
    session.search.start()
    engine.finish(engine.one("SearchBits"), found(session.recipe))
    before = session.recipe
    assert session.search.budgets == (2.0, 8.0)
    assert session.search.slide(1.0) is None
    for budget in (2.0, 3.0, 5.5, 7.0):
        session.search.slide(budget)
    assert session.recipe.settings("conv1").weight_bits == 8
    assert session.search.point_of(session.recipe) is session.search.result.front[3]
    session.end_drag()
    assert session.undo_label == "Take the searched recipe of 6.67 bits"
    session.undo()
    assert session.recipe == before


def test_points_are_stale_where_they_would_be_others_now(engine):
    session = opened(engine)
    session.search.start()
    session.set_layers("in between", ("fc",), weight_granularity="tensor")
    engine.finish(engine.one("SearchBits"), found(Recipe()))
    assert "recipe" in session.search.stale, "edited while it was searched"
    session.undo()
    assert session.search.stale == ""
    session.search.take(session.search.result.front[0])
    assert session.search.stale == "", "bits are what is chosen"
    session.set_options(eval_samples=100)
    assert "Samples" in session.search.stale


def test_a_stopped_search_keeps_its_front_and_a_failed_one_says_why(engine):
    session = opened(engine)
    notices: list[Notice] = []
    session.notice_posted.connect(notices.append)
    session.search.start()
    job = engine.one("SearchBits")
    engine.start(job)
    job.on_partial(found(session.recipe))
    session.search.cancel()
    assert session.search.stopping
    engine.finish(job, None, JobState.CANCELLED)
    assert len(session.search.result.front) == 5
    assert not notices
    session.search.start()
    engine.fail(engine.one("SearchBits"), "no recipe keeps the limits")
    assert len(session.search.result.front) == 5, "the front that was known stays"
    assert "no recipe keeps the limits" in notices[-1].text


def test_what_cannot_be_searched_says_why(engine):
    session = opened(engine)
    with pytest.raises(UserError, match="Set a limit first"):
        session.search.start(limits=())
    with pytest.raises(UserError, match="matches 'nothing'"):
        session.search.start(limits=(("bops", 10.0),), keep_weights=("nothing",))
    with pytest.raises(UserError):
        session.search.choose(solver="luck")


def test_first_and_last_layer_are_kept_where_asked(engine):
    session = opened(engine)
    session.search.start(keep_ends=True, keep_weights=("conv2",))
    settings = engine.one("SearchBits").request.search
    assert set(settings.keep_weights) == set(NAMES)
    assert "fc" in settings.keep_activations
    assert session.search.settings.keep_weights == ("conv2",), "what was typed stays what it was"


def test_uniform_recipes_are_points_too(engine):
    session = opened(engine)
    session.search.start()
    uniform = point(session.recipe, (4, 4, 4), uniform=(4, None))
    engine.finish(engine.one("SearchBits"), found(session.recipe, uniforms=(uniform, point(session.recipe, (3, 3, 3)))))
    assert len(session.search.points) == 6, "equal recipes are one point"
    assert session.search.point_words(uniform) == "uniform W4"
