"""One streaming pass against numpy on all the values, and its memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_cases import case, small_cnn

from qstudio.core.calibration import find_range
from qstudio.core.histogram import EMPTY, EXTREMES, extend
from qstudio.core.model_info import SiteInfo
from qstudio.core.scheme import Scheme
from qstudio.data.load import load_dataset
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.network import network_for
from qstudio.quant.statistics import SiteAccumulator, StatisticsCollector, nonfinite_notes, weight_statistics


def images(seed, *shape):
    return (np.random.default_rng(seed).normal(size=shape) * (seed + 1)).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), relu=st.booleans())
def test_streamed_statistics_equal_those_of_all_values_at_once(sizes, relu):
    accumulator = SiteAccumulator("t")
    parts, start, reference = [], 0, EMPTY
    for seed, size in enumerate(sizes):
        part = images(seed, size, 3, 4, 5)
        part = np.maximum(part, 0) if relu else part
        accumulator.add(torch.from_numpy(part), range(start, start + size))
        reference = extend(reference, part)
        parts.append(part)
        start += size
    everything = np.concatenate(parts)
    result = accumulator.finish()
    assert result.samples == len(everything)
    np.testing.assert_array_equal(result.histogram.counts, reference.counts)
    assert result.histogram.zeros == reference.zeros
    assert (result.histogram.minimum, result.histogram.maximum) == (everything.min(), everything.max())
    assert result.histogram.total == pytest.approx(float(everything.sum(dtype=np.float64)), rel=1e-5, abs=1e-3)
    square = float(np.square(everything.astype(np.float64)).sum())
    assert result.histogram.total_square == pytest.approx(square, rel=1e-5)
    np.testing.assert_array_equal(result.channel_min, everything.min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(result.channel_max, everything.max(axis=(0, 2, 3)))


def test_outliers_are_the_largest_with_their_sample_and_place():
    accumulator = SiteAccumulator("t")
    batches = [images(seed, 4, 2, 3, 3) for seed in range(5)]
    for i, batch in enumerate(batches):
        accumulator.add(torch.from_numpy(batch), range(100 + 4 * i, 104 + 4 * i))
    everything = np.concatenate(batches)
    outliers = accumulator.finish().outliers
    largest = np.sort(np.abs(everything).ravel())[::-1][:8]
    np.testing.assert_array_equal([abs(o.value) for o in outliers], largest)
    for outlier in outliers:
        assert everything[(outlier.sample - 100, *outlier.position)] == outlier.value


@pytest.mark.parametrize(("shape", "axis"), [((4, 6), 1), ((4, 5, 6), 2), ((4, 2, 3, 5), 3), ((4, 7), None)])
def test_any_channel_axis_works(shape, axis):
    values = images(1, *shape)
    accumulator = SiteAccumulator("t", axis)
    accumulator.add(torch.from_numpy(values), range(4))
    result = accumulator.finish()
    if axis is None:
        assert result.channel_max.tolist() == [values.max()]
    else:
        others = tuple(i for i in range(len(shape)) if i != axis)
        np.testing.assert_array_equal(result.channel_max, values.max(axis=others))
    for outlier in result.outliers:
        assert values[(outlier.sample, *outlier.position)] == outlier.value


def test_nan_and_infinity_are_reported_with_the_tensor_and_do_not_poison():
    values = images(0, 2, 3, 4, 4)
    broken = values.copy()
    broken[0, 1, 2, 3], broken[1, 0, 0, 0], broken[1, 2, 1, 1] = np.nan, np.inf, -np.inf
    accumulator = SiteAccumulator("layer3/out")
    accumulator.add(torch.from_numpy(broken), range(2))
    accumulator.add(torch.full((1, 3, 4, 4), float("nan")), [2])
    result = accumulator.finish()
    kept = broken[np.isfinite(broken)]
    assert result.histogram.nonfinite == 3 + 48
    assert result.histogram.count == len(kept)
    assert (result.histogram.minimum, result.histogram.maximum) == (kept.min(), kept.max())
    assert np.isfinite(result.channel_min).all()
    assert all(np.isfinite(o.value) for o in result.outliers)
    (note,) = nonfinite_notes([result])
    assert note.startswith("layer3/out: 51 values")


@pytest.mark.parametrize("sizes", [(1,) * 24, (7, 7, 7, 3), (24,)])
def test_extremes_of_samples_do_not_depend_on_the_batch(sizes):
    values = images(3, 24, 2, 3, 3)
    values[5] = np.nan
    values[9, 0, 0, 0] = np.inf
    accumulator, start = SiteAccumulator("t"), 0
    for size in sizes:
        for tensor, factor in (("a", 1.0), ("b", -2.0)):  # one site, two tensors
            part = torch.from_numpy(values[start : start + size] * np.float32(factor))
            accumulator.add(part, range(start, start + size), tensor)
        start += size
    both = np.concatenate([values, -2 * values], axis=1).reshape(24, -1)
    both = np.where(np.isfinite(both), both, np.nan)[[i for i in range(24) if i != 5]]
    expected = np.stack([np.nanmin(both, 1), np.nanmax(both, 1)], 1)
    np.testing.assert_array_equal(accumulator.finish().histogram.extremes, expected)


def test_only_the_last_extremes_are_kept():
    accumulator = SiteAccumulator("t")
    for start in range(0, 3 * EXTREMES, 512):
        accumulator.add(torch.arange(start, start + 512).float().reshape(-1, 1), range(start, start + 512))
    extremes = accumulator.finish().histogram.extremes
    np.testing.assert_array_equal(extremes[:, 0], np.arange(2 * EXTREMES, 3 * EXTREMES))


def test_the_moving_average_is_torchs_observer_shown_one_sample_at_a_time():
    from torch.ao.quantization import MovingAverageMinMaxObserver

    values = torch.from_numpy(images(4, 60, 2, 3, 3))
    accumulator, observer = SiteAccumulator("t"), MovingAverageMinMaxObserver(averaging_constant=0.05)
    accumulator.add(values, range(60))
    for sample in values:
        observer(sample[None])
    found = find_range(accumulator.finish().histogram, Scheme("activation", calibration="moving_average:0.05"))
    assert found == pytest.approx((float(observer.min_val), float(observer.max_val)), rel=1e-5)


def test_padding_of_a_batch_is_dropped():
    site = SiteInfo("t", "activation", "l", channel_axis=1, members=("t",), quantized_at=("t",))
    collector = StatisticsCollector([site])
    values = torch.from_numpy(images(0, 4, 2, 3, 3))
    collector.start_batch([7, 8], 4)
    collector.observe("t", values)
    collector.observe("elsewhere", values)
    statistics = collector.finish()["t"]
    assert statistics.samples == 2
    assert statistics.histogram.count == 2 * 2 * 3 * 3
    assert {o.sample for o in statistics.outliers} <= {7, 8}


def test_the_last_partial_batch_counts():
    network = network_for(small_cnn())
    split = load_dataset("digits").test
    indices = np.arange(64 + 5)
    statistics = activation_statistics(network, split, indices)
    inputs = split.batch(indices)
    assert statistics["x"].samples == 69
    assert statistics["x"].histogram.count == inputs.size
    assert statistics["x"].histogram.total == pytest.approx(float(inputs.sum(dtype=np.float64)), rel=1e-6)


def test_statistics_are_the_same_for_every_call_and_kept_by_content():
    network = network_for(small_cnn())
    split = load_dataset("digits").test
    first = activation_statistics(network, split, np.arange(40))
    second = activation_statistics(network, split, np.arange(40))
    for site in first:
        np.testing.assert_array_equal(first[site].histogram.counts, second[site].histogram.counts)
        assert first[site].histogram.total == second[site].histogram.total
    kept = activation_statistics(network, split, np.arange(40), "key of the data")
    assert activation_statistics(network, split, np.arange(40), "key of the data") is kept
    assert activation_statistics(network, split, np.arange(40), "another") is not kept


def test_weight_statistics_are_exact():
    values = images(2, 4, 3, 3, 3)
    site = SiteInfo("w", "weight", "conv", (4, 3, 3, 3), 0)
    statistics = weight_statistics(site, values)
    np.testing.assert_array_equal(statistics.channel_min, values.min(axis=(1, 2, 3)))
    np.testing.assert_array_equal(statistics.channel_max, values.max(axis=(1, 2, 3)))
    assert statistics.histogram.count == values.size
    assert statistics.samples == 0
    for outlier in statistics.outliers:
        assert outlier.sample == -1
        assert values[outlier.position] == outlier.value
    np.testing.assert_array_equal(
        [abs(o.value) for o in statistics.outliers], np.sort(np.abs(values).ravel())[::-1][:8]
    )


GROWTH = """
import json, sys, threading
import numpy as np, psutil, torch
torch.set_num_threads(2)
from qstudio.data.load import load_dataset
from qstudio.graph.load import load_model
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.network import network_for
model, data, norm, count = sys.argv[1:]
options = json.load(open(norm))
split = load_dataset(data, mean=options["mean"], std=options["std"]).test
network = network_for(load_model(model))
process = psutil.Process()
split.batch(np.arange(1))
before = peak = process.memory_info().rss
done = threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, process.memory_info().rss)
watcher = threading.Thread(target=watch)
watcher.start()
activation_statistics(network, split, np.arange(int(count)))
done.set()
watcher.join()
print(peak - before)
"""


def test_memory_of_calibration_is_bounded_and_does_not_grow_with_the_images():
    model = case("models/resnet20_cifar10.onnx")
    data, norm = case("cifar10/cifar10_train4000.npz"), case("cifar10/imagenet_norm.dataset.json")

    def growth(count):
        command = [sys.executable, "-c", GROWTH, str(model), str(data), str(norm), str(count)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 2**20

    few, many = growth(256), growth(1024)
    assert growth(512) < 150.0
    assert many < 150.0
    # Two runs with the same images differ by up to 16 MiB (allocator); kept activations would add 900 MiB.
    assert many - few < 32.0
