"""A sweep and a search asked by a session and done by the engine: cells, front, the verified run, what is kept."""

from __future__ import annotations

from pathlib import Path

from small_model import write_data, write_model

from qstudio.core.sensitivity import Candidate
from qstudio.engine.inline import InlineEngine
from qstudio.session.session import Session


def opened(folder: Path) -> Session:
    session = Session(InlineEngine())
    session.set_options(calibration_samples=40, eval_samples=60, measure_latency=False)
    session.open_model(str(write_model(folder / "small.onnx")))
    session.wait()
    session.open_data(str(write_data(folder / "small.npz")))
    session.wait()
    session.sensitivity.cache_root = session.search.cache_root = str(folder / "figures")
    return session


def test_sweep_and_search_end_to_end_and_again_from_what_is_kept(tmp_path: Path) -> None:
    session = opened(tmp_path)
    seen: list[int] = []
    session.sensitivity.changed.connect(
        lambda _running: seen.append(len(session.sensitivity.result.cells) if session.sensitivity.result else 0)
    )
    session.sensitivity.start(bits=(8, 3), samples=50, hessian=True)
    session.wait()
    sweep = session.sensitivity.result
    assert sweep is not None
    assert session.sensitivity.is_whole
    assert {1, 2, 3} <= set(seen), "cells arrived one by one"
    assert [trace.layer for trace in sweep.traces] == ["/conv", "/fc"]
    assert sweep.ranking("kl", Candidate(3))
    assert (tmp_path / "figures").is_dir()

    limits = (("average_bits", 4.0),)
    small = {"weight_bits": (8, 3), "damage_samples": 16, "front_samples": 40, "front_points": 3}
    session.search.start(limits=limits, **small)
    session.wait()
    found = session.search.result
    assert found is not None
    assert session.search.is_whole
    assert found.chosen is not None
    assert (found.chosen.amount("average_bits") or 9) <= 4.0
    [run] = session.runs
    assert run.result == found.run
    assert run.request is not None
    assert run.request.recipe == found.chosen.recipe
    session.search.take(found.chosen)
    assert session.is_current(run), "running PTQ now would only repeat it"
    assert session.search.stale == ""

    another = opened(tmp_path)
    another.search.start(limits=limits, **small)
    another.wait()
    assert another.search.result is not None
    assert another.search.result.computed == 0, "every candidate was known"
    for each in (session, another):
        each.close()
