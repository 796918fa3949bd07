"""One sample through the layers and weights as pictures, against plain runs of the simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from quant_cases import model_of, weights

from qstudio.core.affine import quantize
from qstudio.core.errors import JobCancelled, UserError
from qstudio.core.metrics import sqnr_db
from qstudio.core.model_info import LayerInfo, SiteInfo
from qstudio.core.recipe import Recipe
from qstudio.core.rounding import round_values
from qstudio.core.scheme import CHANNEL, FLOAT_BITS, Scheme
from qstudio.data.load import load_dataset
from qstudio.graph.load import load_model
from qstudio.quant import class_flips
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for
from qstudio.quant.evaluation.schemes import joined
from qstudio.quant.evaluator import FLOAT
from qstudio.quant.network import network_for
from qstudio.quant.sample_maps import LayerValues, MapSize, as_planes, maps_of
from qstudio.quant.simulate import SimulatedModel
from qstudio.quant.trace_sample import run_sample, sample_trace
from qstudio.quant.weight_pictures import averaged, weight_pictures
from qstudio.quant.weight_ranges import weight_encoding

DEFAULT = Recipe().default
COARSE = Recipe(replace(DEFAULT, weight_bits=2, activation_bits=2))
SAMPLES = 6
SAMPLE_MODELS = Path(__file__).parents[2] / "sample_models"


def with_lstm():
    """Return rows read by an LSTM whose last state is classified: the batch is no first axis inside."""
    hidden = 5
    constants = {
        "shape": np.array([-1, 8, 8], np.int64),
        "W": weights(1, 4 * hidden, 8, seed=3),
        "R": weights(1, 4 * hidden, hidden, seed=4),
        "B": weights(1, 8 * hidden, seed=5),
        "axis": np.array([0], np.int64),
        "w": weights(10, hidden, seed=7, scale=2.0),
        "b": np.zeros(10, np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["rows"], "rows"),
        helper.make_node("Transpose", ["rows"], ["steps"], "steps", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "W", "R", "B"], ["all", "last"], "lstm", hidden_size=hidden),
        helper.make_node("Squeeze", ["last", "axis"], ["h"], "squeeze"),
        helper.make_node("Gemm", ["h", "w", "b"], ["y"], "fc", transB=1),
    ]
    return model_of(nodes, constants, (None, 1, 8, 8))


class Case:
    """A network on digits with the encodings of a coarse recipe."""

    def __init__(self, model, recipe=COARSE):
        self.network = network_for(model)
        self.split = load_dataset("digits").test
        statistics = activation_statistics(self.network, self.split, np.arange(16), f"pictures {model.sha256}")
        self.encodings = encodings_for(self.network.layers, recipe, statistics, self.network.weights())

    def run(self, index, **options):
        return run_sample(self.network, self.encodings, self.split, index, **options)

    def observed(self, encodings, index):
        """Return every tensor of a plain run by name, the first output as [K] under ""."""
        seen = {}
        inputs = {self.network.inputs[0]: torch.from_numpy(self.split.batch([index]))}
        with self.network.executor.evaluating():
            outputs = SimulatedModel(self.network, encodings).run(
                inputs, observe=lambda tensor, value: seen.update({tensor: value.numpy().copy()})
            )
        return seen | {"": outputs[self.network.outputs[0]].numpy().reshape(-1).copy()}


def mobilenet():
    return load_model(str(SAMPLE_MODELS / "digits_mobilenet.onnx"))


@pytest.fixture(scope="module", params=[mobilenet, with_lstm])
def bench(request):
    return Case(request.param())


def test_maps_are_those_of_the_simulation(bench):
    traced = bench.run(3)
    for encodings, side in ((FLOAT, "float"), (bench.encodings, "quantized")):
        seen = bench.observed(encodings, 3)
        for row in traced.layers:
            assert np.array_equal(getattr(row, side).reshape(-1), seen[row.tensor].reshape(-1)), row.layer.name
        assert np.array_equal(getattr(traced, f"{side}_scores"), seen[""])
    floats, quantized = (bench.observed(encodings, 3) for encodings in (FLOAT, bench.encodings))
    for row in traced.layers:
        assert row.sqnr_db == sqnr_db(floats[row.tensor], quantized[row.tensor])
    assert [row.layer.name for row in traced.layers] == [layer.name for layer in bench.network.layers]


def test_the_flip_is_where_runs_of_partly_quantized_networks_find_it(bench):
    """Each layer's class anew, from a simulation of its own with the sites of this layer and those before it."""
    flipped = set()
    for index in range(SAMPLES):
        traced = bench.run(index)
        classes, sites = [], set()
        for layer in bench.network.layers:
            sites |= {site.id for site in (layer.weight, layer.activation) if site is not None}
            part = joined(FLOAT, bench.encodings, frozenset(sites))
            classes.append(int(bench.observed(part, index)[""].argmax()))
        before = int(bench.observed(FLOAT, index)[""].argmax())
        assert traced.flips.changed == tuple(found != before for found in classes)
        at = ""
        if classes[-1] != before:
            last = max((row for row, found in enumerate(classes) if found != classes[-1]), default=-1)
            at = bench.network.layers[last + 1].name
        assert traced.flips.at == at
        flipped.add(at)
    assert len(flipped) > 1, "no sample flips: the test shows nothing"


def test_a_deep_network_is_looked_at_here_and_there(bench, monkeypatch):
    whole = [bench.run(index) for index in range(SAMPLES)]
    monkeypatch.setattr(class_flips, "FLIP_LAYERS", 2)
    found = [bench.run(index) for index in range(SAMPLES)]
    assert any(traced.flips.at for traced in found)
    for full, part in zip(whole, found, strict=True):
        names = [row.layer.name for row in full.layers]
        assert part.notes[0].startswith("The class was looked at after ")
        assert bool(part.flips.at) == bool(full.flips.at)
        for name, exact, seen in zip(names, full.flips.changed, part.flips.changed, strict=True):
            assert exact or not seen, name
        if part.flips.at:
            # What is looked at there is exact; only layers that were passed over can be missed.
            place = names.index(part.flips.at)
            assert full.flips.changed[place]
            assert place <= names.index(full.flips.at)


def test_a_float_recipe_changes_nothing(bench):
    traced = run_sample(bench.network, FLOAT, bench.split, 0)
    assert all(np.isinf(row.sqnr_db) for row in traced.layers)
    assert traced.flips.at == ""
    assert not any(traced.flips.changed)


def test_a_trace_says_what_the_window_shows(bench):
    first = []
    traced = bench.run(2, on_values=first.append)
    assert [row.layer.name for row in first[0].layers] == [row.layer.name for row in traced.layers]
    assert first[0].flips is None
    trace = sample_trace(traced, bench.network, bench.split, 2, "hash", size=MapSize(3, 8), class_names=tuple("abc"))
    assert trace.index == 2
    assert trace.label == bench.split.labels[2]
    assert trace.stored.shape == (8, 8)
    assert trace.float_scores.sum() == pytest.approx(1.0)
    powers = np.exp(traced.quantized_scores.astype(np.float64))
    assert trace.quantized_scores == pytest.approx(powers / powers.sum(), rel=1e-6)
    assert trace.class_names == (), "three names for ten classes are not those of the classes"
    for maps, row in zip(trace.layers, traced.layers, strict=True):
        whole = as_planes(row.float, row.channel_axis)
        assert maps.channels == len(whole)
        assert np.array_equal(maps.float, whole[:3])
        assert np.array_equal(maps.quantized, as_planes(row.quantized, row.channel_axis)[:3])


def test_maps_beyond_the_budget_are_left_out_unless_asked_for(bench, monkeypatch):
    monkeypatch.setattr("qstudio.quant.trace_sample.MAPS_BYTES", 0)
    traced = bench.run(0)
    wanted = traced.layers[1].layer.name
    trace = sample_trace(traced, bench.network, bench.split, 0, "", wanted=(wanted,))
    assert [maps.layer for maps in trace.layers if maps.float.size] == [wanted]
    assert [maps.sqnr_db for maps in trace.layers] == [row.sqnr_db for row in traced.layers]


@pytest.mark.parametrize("index", [-1, 10_000])
def test_a_sample_that_is_not_there_is_refused(bench, index):
    with pytest.raises(UserError, match="there is no sample"):
        bench.run(index)


def test_looking_for_the_flip_can_be_stopped(bench):
    class Stop:
        def report(self, done, total, note=""):
            raise JobCancelled

        def check(self):
            pass

        partial = report

    with pytest.raises(JobCancelled):
        bench.run(0, ctx=Stop())


def test_planes_keep_channels_apart():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(as_planes(values, 0), values)
    assert np.array_equal(as_planes(values, 2)[1], values[..., 1])
    assert as_planes(values[:, :1, :1], 0).shape == (1, 1, 2)
    assert as_planes(values[:, 0], None).shape == (1, 2, 4)
    assert as_planes(values[None, None], None).shape == (2, 3, 4)
    assert as_planes(np.float32(3).reshape(()), None).shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((20, 120, 160), (4, 40, 54)), ((1, 1000, 10), (1, 63, 10)), ((5000,), (1, 1, 2500)), ((3, 64, 64), (3, 64, 64))],
)
def test_large_maps_keep_their_shape(shape, shown):
    values = np.random.default_rng(0).random(shape, np.float32)
    layer = LayerInfo("layer", "Conv", "")
    row = LayerValues(layer, "t", 0.0, values, values, 0 if len(shape) == 3 else None)
    maps = maps_of(row, MapSize(4, 64))
    assert maps.float.shape == shown
    assert maps.channels == (shape[0] if len(shape) == 3 else 1)


def test_averages_of_blocks_count_what_the_edges_hold():
    plane = np.arange(15, dtype=np.float32).reshape(3, 5)
    found = averaged(plane, 2, 2)
    assert found.shape == (2, 3)
    assert found[0, 0] == plane[:2, :2].mean()
    assert found[1, 2] == plane[2, 4]


# ---- weights


def site(shape, axis, name="w"):
    return SiteInfo(name, "weight", "layer", shape, axis)


def test_kernels_stand_as_in_the_file_with_their_codes():
    values, scheme = weights(5, 4, 3, 3), Scheme("weight", 4, True, CHANNEL)
    where = site(values.shape, 0)
    picture = weight_pictures(where, values, scheme)
    encoding = weight_encoding(scheme, where, values)
    assert picture.float.shape == (15, 12)
    assert picture.tile == (3, 3)
    assert picture.channel_side == 0
    for out, inner in ((0, 0), (4, 3), (2, 1)):
        cell = np.s_[3 * out : 3 * out + 3, 3 * inner : 3 * inner + 3]
        assert np.array_equal(picture.float[cell], values[out, inner])
        assert np.array_equal(picture.quantized[cell], round_values(values, encoding)[out, inner])
        assert np.array_equal(picture.codes[cell], quantize(values, encoding)[out, inner])
        difference = picture.quantized[cell] - picture.float[cell]
        assert picture.error[out, inner] == pytest.approx(np.sqrt(np.square(difference).mean()), rel=1e-6)


def test_depthwise_kernels_stand_in_reading_order():
    values = weights(7, 1, 3, 3)
    picture = weight_pictures(site(values.shape, 0), values, Scheme("weight", 8, True, CHANNEL))
    assert picture.channel_side is None
    assert picture.float.shape == (9, 9)
    assert np.array_equal(picture.float[3:6, 6:9], values[5, 0])
    assert not picture.float[6:, 3:].any()


@pytest.mark.parametrize(
    ("shape", "axis", "picture_shape", "side", "word"),
    [
        ((300, 200, 3, 3), 0, (510, 510), 0, "The first 170 of 300 rows"),
        ((6, 4, 5), 0, (6, 20), 0, ""),
        ((6, 4, 2, 2), 1, (12, 8), 1, ""),
        ((10, 32), 0, (10, 32), 0, ""),
        ((32, 10), 1, (32, 10), 1, ""),
        ((1500, 700), 1, (500, 234), 1, "mean of 3 x 3"),
        ((2, 6, 8), 2, (12, 8), 1, ""),
        ((9,), None, (1, 9), 1, ""),
        ((4, 2, 3, 3, 3), 0, (36, 6), 0, ""),
    ],
)
def test_every_weight_has_a_picture(shape, axis, picture_shape, side, word):
    values = weights(*shape)
    picture = weight_pictures(site(shape, axis), values, Scheme("weight", 8, True, CHANNEL))
    assert picture.float.shape == picture.quantized.shape == picture_shape
    assert picture.channel_side == side
    assert word in " ".join(picture.notes)
    assert (picture.codes is None) == (picture.step > 1)
    assert picture.error is not None
    assert picture.channels == (shape[axis] if axis is not None else 1)


def test_a_float_weight_and_a_codebook_have_pictures_too():
    values = weights(4, 8)
    picture = weight_pictures(site(values.shape, 0), values, Scheme("weight", FLOAT_BITS))
    assert np.array_equal(picture.float, picture.quantized)
    assert picture.notes == ("The weight stays in float",)
    assert picture.codes is None
    nf4 = weight_pictures(site(values.shape, 0), values, Scheme("weight", 4, True, CHANNEL, format="nf4"))
    assert nf4.codes is not None
    assert nf4.codes.max() <= 15
    assert not np.array_equal(nf4.float, nf4.quantized)
