"""What an engine process is sent while it is busy: only what outranks all that it has begun."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from qstudio.engine.client import Job
from qstudio.engine.inline import InlineEngine
from qstudio.engine.jobs import JOBS, register
from qstudio.engine.lane import Lane


@dataclass(frozen=True)
class Long:
    """Not waited for."""


@dataclass(frozen=True)
class Live:
    """Answers an edit."""


@dataclass(frozen=True)
class Quick:
    """Urgent."""


def answer(request: object, ctx: object) -> str:
    return type(request).__name__


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, urgent, live in ((Long, False, False), (Live, False, True), (Quick, True, False)):
        monkeypatch.setitem(JOBS, kind.__name__, None)  # so that it is gone afterwards
        register(kind, f"{__name__}:answer", "testing lanes", urgent=urgent, live=live)


def lane(*requests: object) -> Lane:
    made = Lane("inspect")
    made.waiting.extend(Job(number, request, "inspect") for number, request in zip(itertools.count(), requests))
    return made


def sent(of: Lane) -> list[str]:
    """Send all that may be sent now."""
    names = []
    while (job := of.take_next()) is not None:
        of.in_flight.append(job)
        names.append(type(job.request).__name__)
    return names


def test_the_highest_rank_goes_first_and_equals_in_their_order() -> None:
    busy = lane(Long(), Live(), Quick(), Live())
    order = []
    while (job := busy.take_next()) is not None:
        order.append(job.id)
    assert order == [2, 1, 3, 0]


def test_beside_a_job_goes_only_what_outranks_it() -> None:
    busy = lane(Long())
    assert sent(busy) == ["Long"]
    busy.waiting.extend(lane(Long(), Live(), Live()).waiting)
    assert sent(busy) == ["Live"], "one live job in between, the other waits for it"
    busy.waiting.extend(lane(Quick(), Quick()).waiting)
    assert sent(busy) == ["Quick"], "an urgent one interrupts both"
    busy.in_flight.pop()
    assert sent(busy) == ["Quick"]
    del busy.in_flight[1:]
    assert sent(busy) == ["Live"]
    del busy.in_flight[:]
    assert sent(busy) == ["Long"]


def test_nothing_goes_beside_an_urgent_job() -> None:
    busy = lane(Quick())
    assert sent(busy) == ["Quick"]
    busy.waiting.extend(lane(Long(), Live(), Quick()).waiting)
    assert sent(busy) == []


def test_the_inline_engine_keeps_the_same_order() -> None:
    engine = InlineEngine()
    order: list[str] = []
    for request in (Long(), Live(), Quick()):
        engine.submit(request, on_finished=lambda job: order.append(job.value))
    while len(order) < 3:
        engine.dispatch()
    engine.close()
    assert order == ["Quick", "Live", "Long"]
