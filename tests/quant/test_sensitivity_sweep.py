"""Sensitivity sweeps: every cell against an evaluation made by hand, the Hessian against the exact one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from quant_cases import Recorder, small_cnn

from qstudio.core.errors import JobCancelled, UserError
from qstudio.core.recipe import Recipe
from qstudio.core.sensitivity import (
    MEASURES,
    Candidate,
    Figures,
    SensitivityCell,
    SensitivityResult,
    kl_divergence,
    log_probabilities,
    make_candidates,
)
from qstudio.data.load import load_dataset
from qstudio.data.samples import choose_samples
from qstudio.quant import sensitivity
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for
from qstudio.quant.evaluate import predict
from qstudio.quant.evaluation.cells import CellBook
from qstudio.quant.evaluation.hessian import hessian_traces
from qstudio.quant.evaluation.sweep import figures_of
from qstudio.quant.network import network_for
from qstudio.quant.sensitivity import SensitivityOptions, measure_sensitivity
from qstudio.quant.simulate import SimulatedModel

FLOATS = {"weight_bits": "float", "activation_bits": "float"}
BASE = Recipe().with_default(activation_calibration="minmax")
FEW = {"calibration_samples": 32, "eval_samples": 70}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """One thread, and nothing known from other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(sensitivity, "known", CellBook())
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def model():
    return small_cnn()


def by_hand(model, dataset, recipe):
    """Return the figures of a recipe by a full run."""
    network = network_for(model)
    samples = choose_samples(dataset, 32, 70, 0)
    split, chosen = samples.evaluation, samples.evaluation_indices
    statistics = activation_statistics(network, samples.calibration, samples.calibration_indices)

    def scores(encodings):
        return predict(network, SimulatedModel(network, encodings).run, split, chosen)

    floats = scores(NOTHING)
    quantized = scores(encodings_for(network.layers, recipe, statistics, network.weights()))
    return figures_of(network, quantized, split, chosen, floats)


NOTHING = sensitivity.FLOAT


@pytest.mark.parametrize("side", ["weights", "activations", "both"])
def test_enable_quantizes_this_layer_only(model, digits, side):
    options = SensitivityOptions(make_candidates((8, 2), side), **FEW)
    result = measure_sensitivity(model, digits, BASE, options)
    rows = {"weights": 4, "activations": 7, "both": 7}[side]
    assert len(result.cells) == 2 * rows, result.layers
    assert result.computed == len(result.cells)
    for cell in result.cells[::3]:
        widths = {
            name: bits
            for name, bits in vars(cell.candidate).items()
            if bits is not None  # a layer without a weight has only its activation
        }
        recipe = BASE.with_default(**FLOATS).with_layers((cell.layer,), **widths)
        assert cell.figures == by_hand(model, digits, recipe), cell
    assert result.float.agreement == 100.0
    assert result.float.sqnr_db == np.inf
    assert dict(result.bases) == dict.fromkeys(options.candidates, result.float)


def test_disable_spares_this_layer_only(model, digits):
    options = SensitivityOptions(make_candidates((4, 2)), mode="disable", **FEW)
    result = measure_sensitivity(model, digits, BASE, options)
    for cell in result.cells[::3]:
        others = BASE.with_default(weight_bits=cell.candidate.weight_bits)
        recipe = others.with_layers((cell.layer,), weight_bits="float")
        assert cell.figures == by_hand(model, digits, recipe), cell
    for candidate, figures in result.bases:
        assert figures == by_hand(model, digits, BASE.with_default(weight_bits=candidate.weight_bits))


def test_change_leaves_the_rest_as_the_recipe_says(model, digits):
    recipe = BASE.with_layers(("conv2",), weight_bits=3)
    options = SensitivityOptions(make_candidates((8, 2), mode="change"), mode="change", **FEW)
    result = measure_sensitivity(model, digits, recipe, options)
    for cell in result.cells[::3]:
        changed = recipe.with_layers((cell.layer,), weight_bits=cell.candidate.weight_bits)
        assert cell.figures == by_hand(model, digits, changed), cell
    base = by_hand(model, digits, recipe)
    assert dict(result.bases) == dict.fromkeys(options.candidates, base)
    as_it_is = result.cell("conv1", Candidate(8))
    assert as_it_is.figures == base
    assert result.computed == len(result.cells) - 3, "three layers have 8 bits already"


def test_cells_are_streamed_and_progress_told(model, digits):
    told = []
    ctx = Recorder()
    result = measure_sensitivity(model, digits, BASE, SensitivityOptions(**FEW), ctx=ctx, on_cell=told.append)
    assert sorted(map(repr, told)) == sorted(map(repr, result.cells))
    shares = [done / total for done, total, _ in ctx.reports]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert any("conv2 W4" in note for _, _, note in ctx.reports)


def test_a_stopped_sweep_goes_on_from_its_file(model, digits, tmp_path, monkeypatch):
    file = tmp_path / "sweep.json"
    options = SensitivityOptions(resume=str(file), **FEW)
    told = []

    class Stopping(Recorder):
        def check(self):
            if len(told) >= 5:
                raise JobCancelled

    with pytest.raises(JobCancelled):
        measure_sensitivity(model, digits, BASE, options, ctx=Stopping(), on_cell=told.append)
    assert len(told) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]
    monkeypatch.setattr(sensitivity, "known", CellBook())
    rest = measure_sensitivity(model, digits, BASE, options)
    assert rest.computed == len(rest.cells) - 5
    monkeypatch.setattr(sensitivity, "known", CellBook())
    whole = measure_sensitivity(model, digits, BASE, replace(options, resume=""))
    assert whole.cells == rest.cells
    monkeypatch.setattr(sensitivity, "known", CellBook())
    again = measure_sensitivity(model, digits, BASE, options)
    assert again.computed == 0
    assert (again.cells, again.float, again.bases) == (whole.cells, whole.float, whole.bases)


def test_what_was_measured_is_known_and_never_stale(model, digits):
    options = SensitivityOptions(make_candidates((3,)), **FEW)
    first = measure_sensitivity(model, digits, BASE, options)
    assert measure_sensitivity(model, digits, BASE, options).computed == 0
    more = measure_sensitivity(model, digits, BASE, replace(options, candidates=make_candidates((3, 5))))
    assert more.computed == len(first.cells)
    other_recipe = measure_sensitivity(model, digits, BASE.with_default(weight_calibration="mse"), options)
    assert other_recipe.computed == len(first.cells)
    other_samples = measure_sensitivity(model, digits, BASE, replace(options, eval_samples=64))
    assert other_samples.computed == len(first.cells)
    changed = small_cnn()
    changed.proto.graph.initializer[0].raw_data = (
        np.frombuffer(changed.proto.graph.initializer[0].raw_data, np.float32) * np.float32(1.5)
    ).tobytes()
    other_model = measure_sensitivity(replace(changed, sha256="another"), digits, BASE, options)
    assert other_model.computed == len(first.cells)
    assert other_model.cells != first.cells


def exact_trace(network, inputs, site):
    """Return the trace of the Hessian of the mean cross entropy with the network's own probabilities."""
    x = {"x": torch.from_numpy(inputs)}
    start = torch.tensor(network.value(site))
    target = torch.softmax(network.executor.run(x)["y"].detach(), 1)

    def loss(weight):
        scores = network.executor.run(x, parameters={site: weight})["y"]
        return -(target * torch.log_softmax(scores, 1)).sum(1).mean()

    hessian = torch.autograd.functional.hessian(loss, start)
    return float(hessian.reshape(start.numel(), -1).trace())


@pytest.mark.parametrize("site", ["w1", "w4"])
def test_the_trace_is_that_of_the_exact_hessian(model, digits, site):
    network = network_for(model)
    chosen = np.arange(6)
    exact = exact_trace(network, digits.test.batch(chosen), site)
    found = hessian_traces(network, network.weight_sites, digits.test, chosen, probes=60)[site]
    assert found.parameters == network.value(site).size
    assert found.standard_error < 0.15 * exact
    assert abs(found.trace - exact) < 4 * found.standard_error


def test_one_class_at_a_time_gives_the_trace_exactly(model, digits):
    """With a single sample and the unit vectors in the place of signs, the sum over probes is the trace itself."""
    network = network_for(model)
    inputs = digits.test.batch(np.arange(1))
    weight = torch.tensor(network.value("w4"), requires_grad=True)
    scores = network.executor.run({"x": torch.from_numpy(inputs)}, parameters={"w4": weight})["y"]
    from qstudio.quant.evaluation.hessian import _root

    root = _root(scores.detach(), True)
    parts = [
        torch.autograd.grad(scores, weight, root(unit[None]), retain_graph=True)[0].double().square().sum()
        for unit in torch.eye(scores.shape[1])
    ]
    assert float(sum(parts)) == pytest.approx(exact_trace(network, inputs, "w4"), rel=1e-4)


def test_hessian_cells_follow_hawqs_formula(model, digits):
    options = SensitivityOptions(make_candidates((8, 4, 2)), measured=False, hessian=True, **FEW)
    told = []
    result = measure_sensitivity(model, digits, BASE, options, on_cell=told.append)
    assert tuple(told) == result.cells
    assert result.float is None
    assert all(cell.figures is None for cell in result.cells)
    traces = {trace.layer: trace for trace in result.traces}
    for cell in result.cells:
        network = network_for(model)
        layer = next(layer for layer in network.layers if layer.name == cell.layer)
        recipe = BASE.with_default(**FLOATS).with_layers((cell.layer,), weight_bits=cell.candidate.weight_bits)
        rounded = SimulatedModel(network, encodings_for(network.layers, recipe, {}, network.weights()))
        error = np.square(rounded.rounded_weight(layer.weight.id).astype(np.float64) - network.value(layer.weight.id))
        trace = traces[cell.layer]
        assert trace.parameters == error.size
        assert cell.hessian == pytest.approx(trace.trace / error.size * error.sum(), rel=1e-9)
    for layer in result.layers:
        by_bits = [result.cell(layer, candidate).hessian for candidate in result.candidates]
        assert by_bits == sorted(by_bits)
    again = measure_sensitivity(model, digits, BASE, options)
    assert again.traces == result.traces


def test_both_prediction_and_measurement_in_one_sweep(model, digits):
    options = SensitivityOptions(make_candidates((4,), "both"), hessian=True, **FEW)
    result = measure_sensitivity(model, digits, BASE, options)
    assert all(cell.figures is not None for cell in result.cells)
    assert {cell.layer for cell in result.cells if cell.hessian is not None} == {"conv1", "conv2", "conv3", "fc"}


def test_without_labels_there_is_neither_loss_nor_top1(model, tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (120, 8, 8), np.uint8)
    np.savez(tmp_path / "plain.npz", x=x)
    dataset = load_dataset(str(tmp_path / "plain.npz"))
    result = measure_sensitivity(model, dataset, BASE, SensitivityOptions(make_candidates((2,)), **FEW))
    for cell in result.cells:
        assert (cell.value("loss"), cell.value("top1")) == (None, None)
        assert cell.value("kl") > 0
        assert cell.value("sqnr") < 40
        assert 0 <= cell.value("agreement") <= 100


def test_only_the_layers_that_are_asked_for(model, digits):
    options = SensitivityOptions(make_candidates((4,)), layers=("fc", "conv2"), **FEW)
    assert measure_sensitivity(model, digits, BASE, options).layers == ("conv2", "fc")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": ("conv9",)}, "conv9: the model has no layer of this name"),
        ({"layers": ("add",)}, "no layer has what the candidates change"),
        ({"candidates": ()}, "no bit width to try"),
        ({"eval_samples": 0}, "0 samples are too few"),
    ],
)
def test_bad_options_are_refused_in_words(model, digits, options, words):
    with pytest.raises(UserError, match=words):
        measure_sensitivity(model, digits, BASE, SensitivityOptions(**{**FEW, **options}))


@pytest.mark.parametrize(
    "text",
    ["not json", "[]", "{}", '{"qstudio_sensitivity": 2, "entries": {}}', '{"qstudio_sensitivity": 1, "entries": []}']
    + [json.dumps({"qstudio_sensitivity": 1, "entries": {"k": entry}}) for entry in ({}, 3, {"trace": "x"})],
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, text):
    file = tmp_path / "cells.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"sensitivity sweep"):
        CellBook(str(file))
    assert file.read_text() == text
    with pytest.raises(UserError, match="the folder does not exist"):
        CellBook(str(tmp_path / "nowhere" / "cells.json"))


def test_the_book_keeps_what_is_not_finite(tmp_path):
    file = str(tmp_path / "cells.json")
    book = CellBook(file)
    figures = Figures(3, 100.0, np.inf, np.nan, 50.0, (1.0, 2.0), 0.5)
    book.put_figures("a", figures)
    book.save()
    found = CellBook(file).figures("a")
    assert repr(found) == repr(figures)
    assert book.trace("a") is None


def test_candidates():
    assert make_candidates(("8", 4, 4)) == (Candidate(8), Candidate(4))
    assert [c.text for c in make_candidates((4,), "both")] == ["W4A4"]
    assert [c.text for c in make_candidates((4, "float"), "activations", "change")] == ["A4", "Af"]
    for wrong in [((), "weights"), ((17,), "weights"), (("float",), "weights"), ((8,), "bias")]:
        with pytest.raises(UserError):
            make_candidates(*wrong)
    with pytest.raises(UserError, match="no mode"):
        make_candidates((8,), mode="half")


def test_kl_divergence():
    logits = np.float32([[2.0, 1.0, -1.0], [0.0, 0.5, 3.0]])
    p, q = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (logits.astype(float), logits[:, ::-1].astype(float)))
    assert kl_divergence(logits, logits) == 0.0
    assert kl_divergence(logits, logits[:, ::-1]) == pytest.approx((p * np.log(p / q)).sum(1).mean())
    assert kl_divergence(p, q) == pytest.approx((p * np.log(p / q)).sum(1).mean()), "the output of a Softmax"
    assert np.isfinite(kl_divergence(np.float32([[1, 0]]), np.float32([[0, 1]])))
    np.testing.assert_allclose(np.exp(log_probabilities(logits)), p)


def test_ranking_names_first_what_matters_most():
    candidate = Candidate(4)

    def result(mode, losses):
        figures = {name: Figures(10, 90.0, 100.0 - loss, loss, 80.0, None, loss) for name, loss in losses.items()}
        cells = tuple(SensitivityCell(name, candidate, found) for name, found in figures.items())
        return SensitivityResult(mode, (candidate,), cells, BASE, "m", "d", 0)

    losses = {"a": 1.0, "b": 3.0, "c": 2.0}
    for measure in ("loss", "kl", "sqnr"):
        assert result("enable", losses).ranking(measure, candidate) == ("b", "c", "a"), measure
        assert result("disable", losses).ranking(measure, candidate) == ("a", "c", "b"), measure
    assert result("enable", losses).ranking("hessian", candidate) == ()
    assert set(MEASURES) == {"loss", "kl", "sqnr", "agreement", "top1", "hessian"}
