"""A project from Python: the same runs with the same numbers, in a fresh session."""

from __future__ import annotations

from pathlib import Path

import pytest

import qstudio
from qstudio.core.resources import sample_models


def test_a_project_opens_with_the_same_runs_and_goes_on(tmp_path: Path) -> None:
    path = next(str(sample.path) for sample in sample_models() if sample.path.name == "digits_mlp.onnx")
    session = qstudio.Session()
    session.open_model(path)
    session.open_data("digits")
    session.wait(60)
    session.set_options(measure_latency=False, calibration_samples=64)
    session.set_layers("4 bits", tuple(layer.name for layer in session.model.weighted_layers), weight_bits=4)
    session.run_ptq()
    session.wait(60)
    first = session.runs[0].result
    assert first is not None
    session.project.save_as(tmp_path / "work")
    session.close()

    again = qstudio.open_project(tmp_path / "work.qsproj")
    assert again.runs[0].result == first, "at once, before the model is opened"
    again.wait(60)
    assert again.is_current(again.runs[0])
    assert again.undo_label == "4 bits"
    assert again.weight_statistics.keys() == session.weight_statistics.keys()
    again.set_layers("3 bits", ("fc1",), weight_bits=3)
    again.close()

    third = qstudio.open_project(tmp_path / "work.qsproj")
    assert [run.title for run in third.runs] == ["Run 1"]
    assert [node.label for node in third.timeline.nodes][-2:] == ["4 bits", "3 bits"]
    third.close()


def test_what_is_no_project_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(qstudio.UserError, match="is not there"):
        qstudio.open_project(tmp_path / "none.qsproj")
