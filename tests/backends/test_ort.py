"""Sessions, batches, inner tensors, and onnxruntime's refusals in words."""

from __future__ import annotations

import numpy as np
import pytest
from export_cases import model_of, node, small_cnn

from qstudio.backends.ort import check_finite, make_session, run_batches, with_outputs
from qstudio.core.errors import JobCancelled, UserError


def images(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 3, 8, 8)).astype(np.float32)


def fixed_batch(size):
    model = small_cnn()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    return model


def test_batches_are_yielded_in_order():
    session, x = make_session(small_cnn()), images(10)
    parts = list(run_batches(session, [x[:4], x[4:8], x[8:]]))
    assert [len(p["y"]) for p in parts] == [4, 4, 2]
    whole = next(run_batches(session, [x]))["y"]
    np.testing.assert_allclose(np.concatenate([p["y"] for p in parts]), whole, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4])
def test_a_fixed_batch_is_not_seen_by_the_caller(size):
    x = images(7)
    expected = next(run_batches(make_session(small_cnn()), [x]))["y"]
    got = next(run_batches(make_session(fixed_batch(size)), [x]))["y"]
    assert got.shape == (7, 5)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_inner_tensors_by_name():
    model = with_outputs(small_cnn(), ["r1", "y", "k"])
    values = next(run_batches(make_session(model, optimize=False), [images(2)]))
    assert list(values) == ["y", "r1", "k"]
    assert values["r1"].shape == (2, 8, 8, 8)
    assert values["r1"].min() >= 0
    only = next(run_batches(make_session(model), [images(2)], outputs=["k"]))
    assert list(only) == ["k"]
    with pytest.raises(UserError, match="no tensor 'nowhere'"):
        with_outputs(model, ["nowhere"])


def test_cancel_stops_between_pieces():
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 3:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        list(run_batches(make_session(fixed_batch(1)), [images(8)], check))
    assert len(calls) == 3


def test_integers_are_cast_to_the_models_type():
    x = np.arange(2 * 192, dtype=np.uint8).reshape(2, 3, 8, 8)
    session = make_session(small_cnn())
    expected = next(run_batches(session, [x.astype(np.float32)]))["y"]
    np.testing.assert_array_equal(next(run_batches(session, [x]))["y"], expected)


def test_refusals_are_sentences(tmp_path):
    with pytest.raises(UserError, match="cannot load the model"):
        make_session(b"this is not a model")
    with pytest.raises(UserError) as caught:
        make_session(tmp_path / "absent.onnx")
    assert "absent.onnx" in caught.value.sentence()
    with pytest.raises(UserError, match="cannot run on data of shape"):
        next(run_batches(make_session(small_cnn()), [np.zeros((2, 5, 8, 8), np.float32)]))
    two = model_of([node("Add", "a b", "y")], {}, {"a": [2], "b": [2]}, {"y": [2]})
    with pytest.raises(UserError, match=r"2 inputs \(a, b\)"):
        next(run_batches(make_session(two), [np.zeros(2)]))


def test_an_operator_that_nobody_knows_is_named():
    model = small_cnn()
    model.graph.node[1].op_type = "Rheloo"
    with pytest.raises(UserError, match="Rheloo"):
        make_session(model)


def test_nan_and_infinity_are_found_by_name():
    check_finite({"y": np.ones(3, np.float32), "codes": np.ones(3, np.uint8)})
    with pytest.raises(UserError, match=r"conv1: 2 of 3 values are NaN or infinite"):
        check_finite({"y": np.ones(3), "conv1": np.float32([1, np.nan, np.inf])})
