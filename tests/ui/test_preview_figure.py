"""The strip's figure of the present recipe: it arrives, is greyed while it is another's, and nothing moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ui_fakes import RecordedEngine, make_accuracy

from qstudio.core.results import Metrics
from qstudio.engine.client import Job
from qstudio.engine.messages import Failure, JobState, PreviewAccuracy
from qstudio.ui.accuracy_strip import AccuracyStrip


class HoldingEngine(RecordedEngine):
    """Keeps previews until the test answers them."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Job] = []

    def submit(self, request: Any, *, slot: str = "", **callbacks: Any) -> Job:
        job = super().submit(request, slot=slot, **callbacks)
        if isinstance(request, PreviewAccuracy):
            self._queue.remove(job)
            self.held.append(job)
        return job

    def answer_preview(self, top1: float) -> None:
        job = self.held.pop()
        self.finish(job, make_accuracy(job.request, top1))


@pytest.fixture
def studio(make_studio: Callable[..., Any]) -> Any:
    return make_studio(HoldingEngine())


def shown(studio: Any, width: int = 1900) -> AccuracyStrip:
    strip = AccuracyStrip(studio.session, studio.bridge)
    studio.show(strip, width, 48)
    return strip


def places(strip: AccuracyStrip) -> list[int]:
    now = strip.now_figure
    return [w.mapTo(strip, w.rect().topLeft()).x() for w in (now._value, now._note, now.samples, strip.size_figure)]


def test_the_figure_arrives_and_is_greyed_after_an_edit(studio: Any) -> None:
    strip = shown(studio)
    now = strip.now_figure
    assert "no data" in now.text
    studio.open()
    assert "being evaluated" in now.text
    studio.engine.answer_preview(96.5)
    studio.settle()
    assert now.text == "~96.5 % (-0.4 ±0.5) 1,000 samples simulated preview"
    assert not now.is_stale
    assert now.accessibleName() == f"Accuracy now {now.text}"
    before = places(strip)
    studio.session.set_layers("four", ("block0.conv",), weight_bits=4)
    studio.settle()
    assert now.is_stale
    assert now.text.startswith("~96.5 %")
    assert "earlier recipe" in now.toolTip()
    job = studio.engine.held[-1]
    job.on_partial(replace(make_accuracy(job.request, 88.0), done=False, metrics=Metrics(64, 88.0)))
    assert "64 samples so far" in now.text
    assert not now.is_stale
    studio.engine.answer_preview(8.0)
    studio.settle()
    assert now.text == "~8.0 % (-88.9 ±0.5) 1,000 samples simulated preview"
    assert places(strip) == before, "nothing moves"
    studio.session.undo()
    assert now.text.startswith("~96.5 %")
    assert not now.is_stale, "known: there at once"


def test_what_is_left_out_and_what_failed_is_told(studio: Any) -> None:
    now = shown(studio).now_figure
    studio.open()
    job = studio.engine.held.pop()
    studio.engine.finish(job, replace(make_accuracy(job.request), notes=("AdaRound is left out",)))
    assert "AdaRound is left out" in now.toolTip()
    studio.session.set_layers("four", ("block0.conv",), weight_bits=4)
    studio.engine.finish(studio.engine.held.pop(), None, JobState.FAILED, Failure("it cannot be simulated"))
    assert "no preview" in now.text
    assert "it cannot be simulated" in now.toolTip()
    assert not studio.notices, "an edit that cannot be previewed is no alarm"


def test_without_labels_it_is_agreement(studio: Any) -> None:
    now = shown(studio).now_figure
    studio.open()
    job = studio.engine.held.pop()
    metrics = Metrics(1000, agreement=99.1, top1_interval=(98.5, 99.6))
    studio.engine.finish(job, replace(make_accuracy(job.request), metrics=metrics, float=Metrics(1000, agreement=100)))
    assert now.text.startswith("~99.1 %")
    assert "agreement" in now.text


def test_the_number_of_samples_is_chosen_beside_it(studio: Any) -> None:
    now = shown(studio).now_figure
    studio.open()
    studio.engine.answer_preview(96.5)
    now._fill_menu()
    offered = {action.data(): action for action in now._menu.actions()}
    assert list(offered) == [100], "there are 60 samples"
    offered[100].trigger()
    assert studio.session.preview.samples == 100
    assert studio.engine.held[-1].request.samples == 100


def test_a_narrow_strip_cuts_the_notes_and_keeps_the_figures(studio: Any) -> None:
    strip = shown(studio, 1280)
    studio.open()
    studio.engine.answer_preview(96.5)
    studio.settle()
    right = strip.latency_figure.mapTo(strip, strip.latency_figure.rect().topRight()).x()
    assert right <= strip.width()
    for label in (strip.now_figure._value, strip.now_figure._note, strip.size_figure._value, strip.run_figure._value):
        assert label.width() >= label.sizeHint().width()


def test_a_pinned_recipe_shows_what_has_changed_since(studio: Any) -> None:
    strip = shown(studio)
    pinned = strip.pinned_figure
    assert not pinned.isEnabled()
    studio.open()
    studio.engine.answer_preview(96.5)
    assert pinned.text() == "pin"
    pinned.click()
    assert pinned.text() == "to pinned 0.0, 0 B"
    studio.session.set_layers("two", ("block0.conv",), weight_bits=2)
    assert pinned.text().startswith("to pinned –, -")
    studio.engine.answer_preview(90.0)
    studio.settle()
    assert pinned.text().startswith("to pinned -6.5, -")
    before = places(strip)
    studio.session.undo()
    assert pinned.text() == "to pinned 0.0, 0 B"
    assert places(strip) == before
    pinned.click()
    assert pinned.text() == "pin"


def test_a_preview_that_was_stopped_says_how_to_get_it(studio: Any) -> None:
    now = shown(studio).now_figure
    studio.open()
    job = studio.engine.held.pop()
    studio.engine.finish(job, None, JobState.CANCELLED)
    studio.settle()
    assert now.text.endswith("stopped")
    assert "evaluates anew" in now.toolTip()
    now._fill_menu()
    now._menu.actions()[0].trigger()
    assert studio.engine.held, "choosing the samples again asks again"
    assert "being evaluated" in now.text
