"""Cached evaluation against the full run, bit for bit, whatever is edited in whatever order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from quant_cases import case, model_of, small_cnn, weights

from qstudio.core.errors import JobCancelled
from qstudio.core.recipe import Recipe
from qstudio.data.load import load_dataset
from qstudio.graph.load import load_model
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for
from qstudio.quant.evaluate import predict
from qstudio.quant.evaluation.keys import digest, is_own
from qstudio.quant.evaluation.store import Store
from qstudio.quant.evaluator import FLOAT, CachedEvaluator
from qstudio.quant.network import network_for
from qstudio.quant.simulate import SimulatedModel

SAMPLE_MODELS = Path(__file__).parents[2] / "sample_models"
EDITS = [
    {"weight_bits": 8},
    {"weight_bits": 4},
    {"weight_bits": 2, "weight_granularity": "tensor"},
    {"weight_bits": "float"},
    {"activation_bits": 8},
    {"activation_bits": 4, "activation_calibration": "minmax"},
    {"activation_bits": "float"},
    {"activation_dynamic": True},
    {"activation_dynamic": False},
    {"weight_format": "nf4"},
    {"weight_format": "int"},
]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recurrent():
    """Return a model with an LSTM whose two outputs are both read, a branch beside it, and two model outputs."""
    hidden = 6
    constants = {
        "shape": np.array([-1, 8, 8], np.int64),
        "wc": weights(1, 1, 3, 3, seed=1),
        "bc": weights(1, seed=2),
        "W": weights(1, 4 * hidden, 8, seed=3),
        "R": weights(1, 4 * hidden, hidden, seed=4),
        "B": weights(1, 8 * hidden, seed=5),
        "axis": np.array([0], np.int64),
        "flat": np.array([-1, 64], np.int64),
        "w1": weights(64, hidden, seed=6, scale=0.1),
        "w2": weights(10, hidden, seed=7),
        "b2": weights(10, seed=8),
    }
    nodes = [
        helper.make_node("Conv", ["x", "wc", "bc"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Reshape", ["r", "shape"], ["rows"], "rows"),
        helper.make_node("Transpose", ["rows"], ["steps"], "steps", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "W", "R", "B"], ["all", "last"], "lstm", hidden_size=hidden),
        helper.make_node("Squeeze", ["last", "axis"], ["h"], "squeeze"),
        helper.make_node("Reshape", ["r", "flat"], ["flat_r"], "flatten"),
        helper.make_node("MatMul", ["flat_r", "w1"], ["side"], "side"),
        helper.make_node("Add", ["h", "side"], ["sum"], "add"),
        helper.make_node("Gemm", ["sum", "w2", "b2"], ["y"], "fc", transB=1),
        helper.make_node("Transpose", ["all"], ["trace"], "trace", perm=[2, 0, 1, 3]),
    ]
    return model_of(nodes, constants, (None, 1, 8, 8), outputs=("y", "trace"))


class Bench:
    """A network with its data, and the full run to compare with."""

    def __init__(self, model, split, count, budget=2**30):
        self.network, self.split = network_for(model), split
        self.indices = np.arange(count)
        self.statistics = activation_statistics(self.network, split, np.arange(32), f"evaluator {model.sha256}")
        self.weights = self.network.weights()
        self.evaluator = CachedEvaluator(self.network, split, self.indices, byte_budget=budget)
        self.layers = [layer.name for layer in self.network.layers]
        self.known = {}

    def encodings(self, recipe):
        return encodings_for(self.network.layers, recipe, self.statistics, self.weights)

    def full(self, recipe, weight_values=None):
        return predict(
            self.network,
            SimulatedModel(self.network, self.encodings(recipe), weight_values).run,
            self.split,
            self.indices,
        )

    def check(self, recipe):
        found = self.evaluator.scores(self.encodings(recipe))
        key = recipe.sha256()
        if key not in self.known:
            self.known[key] = self.full(recipe)
        assert found.tobytes() == self.known[key].tobytes()
        assert self.evaluator.store.size_bytes <= self.evaluator.store.byte_budget


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits").test


@pytest.fixture(scope="module")
def benches(digits):
    """Three networks; the budget of the mobilenet holds less than one pass."""
    return {
        "lstm": Bench(recurrent(), digits, 70),
        "mobilenet": Bench(load_model(str(SAMPLE_MODELS / "digits_mobilenet.onnx")), digits, 70, 2**20),
        "cnn": Bench(small_cnn(), digits, 70),
    }


@pytest.fixture(scope="module")
def resnet20():
    model = load_model(str(case("models/resnet20_cifar10.onnx")))
    return Bench(model, load_dataset(str(case("cifar10/cifar10_test_jpeg.npz"))).test, 8, 6 * 2**20)


def edited(bench, edits):
    """Evaluate after each edit; -1 takes the last edit back."""
    history = [Recipe()]
    bench.check(history[0])
    for layer, edit in edits:
        if layer < 0:
            history = history[:-1] or history
        else:
            history.append(history[-1].with_layers((bench.layers[layer % len(bench.layers)],), **EDITS[edit]))
        bench.check(history[-1])


sequences = st.lists(st.tuples(st.integers(-1, 40), st.integers(0, len(EDITS) - 1)), min_size=1, max_size=5)
quick = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "derandomize": True, "database": None}


@pytest.mark.parametrize("name", ["lstm", "mobilenet", "cnn"])
@settings(max_examples=4, **quick)
@given(edits=sequences)
def test_edits_give_the_bits_of_a_full_run(benches, name, edits):
    edited(benches[name], edits)


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["lstm", "mobilenet"])
@settings(max_examples=200, **quick)
@given(edits=sequences)
def test_200_edit_sequences(benches, name, edits):
    edited(benches[name], edits)


@pytest.mark.benchmark
@settings(max_examples=200, **quick)
@given(edits=sequences)
def test_200_edit_sequences_on_resnet20(resnet20, edits):
    edited(resnet20, edits)


def test_every_output_is_that_of_the_full_run(benches):
    bench = benches["lstm"]
    recipe = Recipe().with_layers(("side",), weight_bits=3)
    model = SimulatedModel(bench.network, bench.encodings(recipe))
    inputs = {"x": torch.from_numpy(bench.split.batch(np.arange(64)))}
    with bench.network.executor.evaluating():
        full = model.run(inputs)
    for _ in range(2):
        found = bench.evaluator.outputs(bench.encodings(recipe))
        assert list(found) == ["y", "trace"]
        for name, values in found.items():
            assert values[:64].tobytes() == full[name].reshape(64, -1).numpy().tobytes()


def test_only_what_depends_on_a_change_runs(benches, digits):
    bench = benches["cnn"]
    evaluator = CachedEvaluator(bench.network, digits, bench.indices)
    base = bench.encodings(Recipe())
    evaluator.scores(base)
    assert evaluator.work.found == 0
    evaluator.scores(base)
    assert evaluator.work.computed == 0
    run = {}
    for layer in ("conv1", "conv2", "conv3", "fc"):
        evaluator.scores(bench.encodings(Recipe().with_layers((layer,), weight_bits=4)), keep=False)
        run[layer] = evaluator.work.computed
    assert run["conv1"] > run["conv2"] > run["conv3"] > run["fc"] > 0
    # fc, its constants and what lies between the pooling and it, in two batches.
    assert run["fc"] <= 2 * 5


def test_layers_quantized_in_a_float_network_find_its_values(benches, digits):
    bench = benches["cnn"]
    run = {}
    for keep in (True, False):
        evaluator = CachedEvaluator(bench.network, digits, bench.indices)
        evaluator.float_scores(keep=keep)
        only_fc = Recipe().with_default(weight_bits="float", activation_bits="float")
        only_fc = only_fc.with_layers(("fc",), weight_bits=4)
        found = evaluator.scores(bench.encodings(only_fc), keep=False)
        assert found.tobytes() == bench.full(only_fc).tobytes()
        run[keep] = evaluator.work.computed
    assert run[True] < run[False] / 3


def test_a_change_tried_once_leaves_the_store_alone(benches, digits):
    bench = benches["cnn"]
    evaluator = CachedEvaluator(bench.network, digits, bench.indices)
    evaluator.scores(bench.encodings(Recipe()))
    before = len(evaluator.store), evaluator.store.size_bytes
    evaluator.scores(bench.encodings(Recipe().with_default(weight_bits=3)), keep=False)
    assert (len(evaluator.store), evaluator.store.size_bytes) == before


def test_a_branch_that_did_not_change_does_not_run(benches, digits):
    """The LSTM is by far the longest step; a change of the branch beside it does not touch it."""
    bench = benches["lstm"]
    evaluator = CachedEvaluator(bench.network, digits, bench.indices)
    evaluator.scores(bench.encodings(Recipe()))
    (lstm,) = (s.node for s in bench.network.executor.steps if s.onnx_node == "lstm" and s.node.op == "call_module")
    seen = []
    execute = bench.network.executor.execute

    def spy(step, values, parameters=None):
        seen.append(step.node)
        return execute(step, values, parameters)

    bench.network.executor.execute = spy
    try:
        evaluator.scores(bench.encodings(Recipe().with_layers(("side",), weight_bits=4)))
        assert seen
        assert lstm not in seen
        evaluator.scores(bench.encodings(Recipe().with_layers(("conv",), weight_bits=4)))
        assert lstm in seen
    finally:
        del bench.network.executor.execute


def test_weight_values_count_as_content(benches):
    bench = benches["cnn"]
    values = {"w2": weights(8, 8, 3, 3, seed=9, scale=0.2)}
    encodings = bench.encodings(Recipe())
    before = bench.evaluator.scores(encodings)
    found = bench.evaluator.scores(encodings, values)
    assert found.tobytes() == bench.full(Recipe(), values).tobytes()
    assert found.tobytes() != before.tobytes()
    values["w2"] *= np.float32(0.5)
    again = bench.evaluator.scores(encodings, values)
    assert again.tobytes() == bench.full(Recipe(), values).tobytes()


def test_a_stopped_evaluation_leaves_nothing_wrong(benches, digits):
    bench = benches["cnn"]
    evaluator = CachedEvaluator(bench.network, digits, bench.indices)

    def stop(done, total):
        if done:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        evaluator.scores(bench.encodings(Recipe()), report=stop)
    assert evaluator.scores(bench.encodings(Recipe())).tobytes() == bench.full(Recipe()).tobytes()


def test_metrics_are_those_of_the_scores(benches):
    bench = benches["cnn"]
    metrics = bench.evaluator.metrics(bench.encodings(Recipe().with_default(weight_bits=2)))
    scores, floats = bench.full(Recipe().with_default(weight_bits=2)), bench.evaluator.scores(FLOAT)
    assert metrics.samples == 70
    assert metrics.agreement == 100 * (scores.argmax(1) == floats.argmax(1)).mean()
    assert metrics.top1 == 100 * (scores.argmax(1) == bench.split.labels[:70]).mean()


def test_no_room_costs_time_only(benches, digits):
    bench = benches["cnn"]
    evaluator = CachedEvaluator(bench.network, digits, bench.indices, byte_budget=0)
    assert evaluator.scores(bench.encodings(Recipe())).tobytes() == bench.full(Recipe()).tobytes()
    assert len(evaluator.store) == 0


def test_the_store_lets_go_of_what_is_old_and_cheap():
    store = Store(100)
    assert store.put("old", 1, 40, 1, 9.0)
    assert store.put("cheap", 2, 40, 2, 1.0)
    assert store.put("dear", 3, 20, 2, 5.0)
    assert not store.put("too large", 4, 101, 2, 9.0)
    assert store.put("new", 5, 40, 2, 2.0), "in the place of what is older"
    assert "old" not in store
    assert not store.put("cheaper", 6, 40, 2, 0.5), "nothing of lower rank is there"
    assert store.put("dearest", 7, 40, 2, 9.0)
    assert "cheap" not in store
    store.touch("dear", 3)
    assert store.put("next", 8, 80, 3, 0.1)
    assert "dear" in store
    assert store.size_bytes == 100
    assert store["next"] == 8


def test_digests_tell_contents_apart():
    values = [
        np.float32([1, 2]),
        np.float64([1, 2]),
        np.float32([[1, 2]]),
        np.float32([1, -0.0]),
        np.float32([1, 0.0]),
        1,
        1.0,
        "1",
        (1, 2),
        ((1,), 2),
        None,
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest(np.float32([1, 2])) == digest(torch.tensor([1.0, 2.0]))


def test_only_memory_of_its_own_is_written_to():
    base = torch.zeros(4, 6)
    assert is_own(base + 1, [base])
    assert not is_own(base, [base]), "an identity"
    assert not is_own(base[1:], [base]), "a view"
    assert not is_own(base.reshape(6, 4), [(torch.ones(1), base)]), "a view of one of several values"
    assert not is_own((base + 1)[:2], [base]), "memory that something else may look at too"
    assert not is_own(torch.ones(1).expand(8), [base]), "one place read eight times"
    assert not is_own(3, [base])
