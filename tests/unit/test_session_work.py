"""Opening, measuring, losing processes: what a session asks of the engine and what it keeps."""

from __future__ import annotations

from typing import Any

import pytest
from session_fakes import FakeEngine, dataset, model, statistics

from qstudio.core.errors import UserError
from qstudio.core.results import Device, Metrics
from qstudio.engine.messages import (
    ActivationStatistics,
    DataSpec,
    FloatAccuracy,
    JobState,
    LayerPreview,
    LookAtSamples,
    OpenDataset,
    OpenModel,
    SamplePage,
)
from qstudio.session.session import Session


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def session(engine: FakeEngine) -> Session:
    return Session(engine)


def open_both(session: Session, engine: FakeEngine) -> None:
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    engine.finish(engine.one("WeightStatistics"), (statistics("conv1.weight"),))
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())


def notices(session: Session) -> list[str]:
    texts: list[str] = []
    session.notice_posted.connect(lambda notice: texts.append(notice.text))
    return texts


def log(session: Session, *names: str) -> list[tuple[str, Any]]:
    events: list[tuple[str, Any]] = []
    for name in names:
        getattr(session, name).connect(lambda value, name=name: events.append((name, value)))
    return events


def test_opening_a_model_selects_its_first_layer_and_reads_its_weights(session: Session, engine: FakeEngine) -> None:
    events = log(session, "model_changed", "recipe_changed", "selection_changed")
    session.open_model("model.onnx")
    assert session.opening == "model.onnx"
    assert session.model is None
    engine.finish(engine.one("OpenModel"), model())
    assert session.opening == ""
    assert [name for name, _ in events] == ["model_changed", "recipe_changed", "selection_changed"]
    assert session.selection == ("conv1",)
    assert session.current_layer is not None
    assert session.current_layer.name == "conv1"
    job = engine.one("WeightStatistics")
    changes = log(session, "statistics_changed")
    assert job.on_partial is not None
    job.on_partial(statistics("conv1.weight"))
    assert set(session.weight_statistics) == {"conv1.weight"}
    engine.finish(job, (statistics("conv1.weight"), statistics("fc.weight")))
    assert set(session.weight_statistics) == {"conv1.weight", "fc.weight"}
    assert changes == [("statistics_changed", "weights")] * 2


def test_a_model_that_cannot_be_opened_leaves_everything_as_it_was(session: Session, engine: FakeEngine) -> None:
    open_both(session, engine)
    session.set_layers("Bits", ("conv1",), weight_bits=4)
    recipe, texts = session.recipe, notices(session)
    session.open_model("bad.onnx")
    engine.fail(engine.one("OpenModel"), "the file is truncated")
    assert texts == ["The model was not opened. model.onnx: the file is truncated. Try another."]
    assert session.opening == ""
    assert session.model == model()
    assert session.dataset == dataset()
    assert (session.recipe, session.undo_label) == (recipe, "Bits")


def test_the_last_of_two_models_wins(session: Session, engine: FakeEngine) -> None:
    session.open_model("slow.onnx")
    session.open_model("quick.onnx")
    [job] = engine.pending("OpenModel")
    assert job.request == OpenModel("quick.onnx")
    assert session.opening == "quick.onnx"
    engine.finish(job, model("quick.onnx"))
    assert session.model is not None
    assert session.model.path == "quick.onnx"


def test_data_brings_samples_float_accuracy_and_statistics(session: Session, engine: FakeEngine) -> None:
    open_both(session, engine)
    data = DataSpec("digits")
    assert engine.one("LookAtSamples").request == LookAtSamples("model.onnx", data, tuple(range(24)))
    assert engine.one("FloatAccuracy").request == FloatAccuracy("model.onnx", data, 1000, 0)
    assert engine.one("ActivationStatistics").request == ActivationStatistics("model.onnx", data, None, 512, 0)
    page = SamplePage((0,), (), (), (), (), ())
    engine.finish(engine.one("LookAtSamples"), page)
    assert session.sample_page is page
    job = engine.one("FloatAccuracy")
    seen = log(session, "float_metrics_changed")
    assert job.on_partial is not None
    job.on_partial(Metrics(64, 90.0))
    engine.finish(job, Metrics(360, 97.0))
    assert seen == [("float_metrics_changed", Metrics(64, 90.0)), ("float_metrics_changed", Metrics(360, 97.0))]
    engine.finish(engine.one("ActivationStatistics"), (statistics("conv1.out"),))
    assert set(session.activation_statistics) == {"conv1.out"}
    assert session.work == ()


def test_other_data_that_cannot_be_read_leaves_the_data_that_is_open(session: Session, engine: FakeEngine) -> None:
    open_both(session, engine)
    engine.finish(engine.one("LookAtSamples"), SamplePage((0,), (), (), (), (), ()))
    engine.finish(engine.one("ActivationStatistics"), (statistics("conv1.out"),))
    running = engine.one("FloatAccuracy")
    engine.start(running)
    texts = notices(session)
    session.open_data("empty.npz")
    assert running.state is JobState.CANCELLING, "the old measurement makes room for the new data"
    engine.finish(running, None, JobState.CANCELLED)
    assert session.run_blocked == ""
    engine.fail(engine.one("OpenDataset"), "there are no samples")
    assert texts == ["The data was not opened. model.onnx: there are no samples. Try another."]
    assert (session.dataset, session.data_spec) == (dataset(), DataSpec("digits"))
    assert set(session.activation_statistics) == {"conv1.out"}
    assert [type(job.request).__name__ for job in engine.pending()] == ["FloatAccuracy"], "only what was interrupted"


def test_data_is_opened_again_for_the_next_model(session: Session, engine: FakeEngine) -> None:
    open_both(session, engine)
    session.open_model("next.onnx")
    engine.finish(engine.one("OpenModel"), model("next.onnx", "m2"))
    assert (session.dataset, session.data_spec) == (None, DataSpec("digits"))
    assert session.run_blocked == "The data is being opened"
    assert engine.one("OpenDataset").request == OpenDataset(DataSpec("digits"), "next.onnx")
    assert not engine.pending("FloatAccuracy"), "nothing of the closed model is measured any more"
    engine.fail(engine.one("OpenDataset"), "samples of 1x8x8 do not fit")
    assert (session.dataset, session.data_spec) == (None, None)
    assert session.run_blocked == "Choose a dataset first"


def test_data_chosen_while_the_model_is_being_read_is_opened_for_it(session: Session, engine: FakeEngine) -> None:
    session.open_model("model.onnx")
    session.open_data("digits")
    engine.finish(engine.one("OpenModel"), model())
    assert engine.one("OpenDataset").request == OpenDataset(DataSpec("digits"), "model.onnx")
    engine.finish(engine.one("OpenDataset"), dataset())
    assert (session.dataset, session.data_spec) == (dataset(), DataSpec("digits"))
    assert engine.pending("FloatAccuracy")


def test_a_model_for_looking_only_is_not_measured(session: Session, engine: FakeEngine) -> None:
    from dataclasses import replace

    session.open_model("odd.onnx")
    engine.finish(engine.one("OpenModel"), replace(model(), unsupported=(("n", "StringNormalizer", "texts"),)))
    engine.finish(engine.one("WeightStatistics"), ())
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    assert engine.pending() == []
    assert session.run_blocked == "The model has an operator that cannot run: StringNormalizer (n)"
    session.set_options(seed=3)
    assert engine.pending() == []


def test_options_measure_again_only_what_depends_on_them(session: Session, engine: FakeEngine) -> None:
    open_both(session, engine)
    for job in engine.pending():
        engine.cancel(job)

    def asked(**values: Any) -> set[str]:
        session.set_options(**values)
        kinds = {type(job.request).__name__ for job in engine.pending()}
        for job in engine.pending():
            engine.cancel(job)
        return kinds

    assert asked(eval_samples=100) == {"FloatAccuracy"}
    assert asked(eval_samples=100) == set()
    # What is drawn for calibration from data with one split is left out of the evaluation, so both depend on it.
    assert asked(calibration_samples=64) == {"FloatAccuracy", "ActivationStatistics"}
    assert asked(calibration_data=DataSpec("train.npz")) == {"FloatAccuracy", "ActivationStatistics"}
    assert asked(seed=1) == {"FloatAccuracy", "ActivationStatistics"}
    assert asked(threads=2, latency_batch=8, measure_latency=False, device="cuda:0") == set()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"calibration_samples": 0}, "calibration samples: 0 is too small. Choose 1 or more."),
        ({"eval_samples": 0}, "evaluation samples: 0 is too small. Choose 1 or more."),
        ({"seed": -1}, "seed: -1 is too small. Choose 0 or more."),
        ({"latency_batch": 0}, "latency batch: 0 is too small. Choose 1 or more."),
        ({"threads": -2}, "threads: -2 is too small. Choose 0 or more."),
    ],
)
def test_options_out_of_bounds_are_refused(session: Session, values: dict[str, int], sentence: str) -> None:
    before = session.options
    with pytest.raises(UserError) as caught:
        session.set_options(**values)
    assert caught.value.sentence() == sentence
    assert session.options == before


def test_a_preview_is_asked_once_for_a_scheme(session: Session, engine: FakeEngine) -> None:
    from qstudio.core.histogram import EMPTY
    from qstudio.engine.messages import WeightPreview

    open_both(session, engine)
    seen = log(session, "preview_changed")

    def preview_of(job: Any) -> WeightPreview:
        import numpy as np

        nothing = np.zeros(())
        return WeightPreview(job.request.layer, job.request.scheme, EMPTY, 40.0, 1.0, nothing, nothing, nothing)

    session.request_preview("conv1")
    engine.finish(engine.one("LayerPreview"), preview_of(engine.one("LayerPreview")))
    session.request_preview("conv1")
    assert not engine.pending("LayerPreview")
    session.set_layers("Bits", ("conv1",), weight_bits=4)
    session.request_preview("conv1")
    session.set_layers("Bits", ("conv1",), weight_bits=3)
    session.request_preview("conv1")
    request = engine.one("LayerPreview").request
    assert isinstance(request, LayerPreview)
    assert request.scheme.bits == 3, "the latest of a layer wins"
    engine.finish(engine.one("LayerPreview"), preview_of(engine.one("LayerPreview")))
    assert session.previews["conv1"].scheme.bits == 3
    session.set_layers("Float", ("conv1",), weight_bits="float")
    session.request_preview("conv1")
    assert not engine.pending("LayerPreview")
    assert seen == [("preview_changed", "conv1")] * 2
    session.request_preview("conv2")
    late = engine.one("LayerPreview")
    session.open_model("next.onnx")
    engine.finish(engine.one("OpenModel"), model("next.onnx", "m2"))
    engine.finish(late, preview_of(late))
    assert session.previews == {}, "a preview of the closed model is not shown for a layer of the same name"


def test_work_lost_with_its_process_is_asked_for_once_more(session: Session, engine: FakeEngine) -> None:
    open_both(session, engine)
    session.set_layers("Bits", ("conv1",), weight_bits=4)
    session.select(("conv2",))
    texts = notices(session)
    engine.die("inspect")
    assert texts == ["The inspect process ended by itself and was started again."]
    kinds = sorted(type(job.request).__name__ for job in engine.pending())
    assert kinds == ["ActivationStatistics", "FloatAccuracy", "LookAtSamples"]
    assert session.recipe.settings("conv1").weight_bits == 4
    assert (session.selection, session.undo_label) == (("conv2",), "Bits")
    assert (session.model, session.dataset) == (model(), dataset())
    engine.die("inspect")
    assert engine.pending() == [], "what kills its process twice is not tried a third time"
    assert "The float accuracy could not be measured: its process was ended." in texts


def test_a_model_that_kills_its_process_is_not_opened_again(session: Session, engine: FakeEngine) -> None:
    session.open_model("evil.onnx")
    texts = notices(session)
    engine.die("inspect")
    assert engine.pending() == []
    assert texts[0] == "The model was not opened: its process was ended."
    assert session.opening == ""


def test_work_that_is_stopped_by_force_is_not_repeated(session: Session, engine: FakeEngine) -> None:
    open_both(session, engine)
    stuck = engine.one("FloatAccuracy")
    engine.start(stuck)
    session.cancel_work()
    assert [job.state for job in session.work] == [JobState.CANCELLING]
    session.force_stop_work()
    assert stuck.state is JobState.KILLED
    assert session.work == ()


def test_devices_are_listed(session: Session, engine: FakeEngine) -> None:
    session.list_devices()
    devices = (Device("cpu", "CPU", True), Device("mps", "Apple GPU", False, "This is not a Mac"))
    engine.finish(engine.one("ListDevices"), devices)
    assert session.devices == devices


def test_nothing_can_be_asked_of_a_session_without_model_or_data(session: Session, engine: FakeEngine) -> None:
    assert session.run_blocked == "Open a model first"
    with pytest.raises(UserError, match="no model is open"):
        session.measure_float()
    session.request_preview("conv1")
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    with pytest.raises(UserError, match="no data is open"):
        session.collect_activations()
    with pytest.raises(UserError, match="no data is open"):
        session.as_python()


def test_wait_and_close(session: Session, engine: FakeEngine) -> None:
    session.wait(0.0)
    session.open_model("model.onnx")
    with pytest.raises(TimeoutError):
        session.wait(0.0)
    session.close()
    assert engine.closed


def test_a_listener_can_leave_while_it_is_called(session: Session) -> None:
    calls: list[str] = []
    leave = session.log_added.connect(lambda _line: (calls.append("first"), leave()))
    session.log_added.connect(lambda _line: calls.append("second"))
    session.log_added.emit("a")
    session.log_added.emit("b")
    leave()
    assert calls == ["first", "second", "second"]
