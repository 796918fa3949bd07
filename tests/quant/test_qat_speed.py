"""Speed of training and simulation with quantizers, as ratios to float within one run."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from quant_cases import case

from qstudio.core.recipe import Recipe
from qstudio.core.training import Training
from qstudio.data.load import load_dataset
from qstudio.graph.load import load_model
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.network import network_for
from qstudio.quant.qat.batchnorm import file_norms
from qstudio.quant.qat.schedule import Stepper
from qstudio.quant.qat.starting import starting_encodings
from qstudio.quant.qat.student import Student

pytestmark = pytest.mark.benchmark

BATCH = 64


def setup(network, split, recipe, training, norms=None):
    statistics_of = activation_statistics(network, split, np.arange(64))
    student = Student(network, starting_encodings(network, recipe, statistics_of, {}, training), {}, training, norms)
    return student, Stepper(student, training)


def ratio(first, second, turns):
    """Return the shortest time of `second` over that of `first`, both measured in turns: other work only adds time."""
    times = ([], [])
    for turn in range(turns + 2):
        for work, measured in zip((first, second), times, strict=True):
            start = time.perf_counter()
            work()
            if turn >= 2:
                measured.append(time.perf_counter() - start)
    return min(times[1]) / min(times[0])


@pytest.fixture
def resnet20():
    network = network_for(load_model(str(case("models/resnet20_cifar10.onnx"))))
    split = load_dataset(str(case("cifar10/cifar10_train4000.npz"))).test
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a second thread waits for whatever else runs on the machine
    yield network, split
    torch.set_num_threads(before)


def test_an_lsq_step_costs_little_more_than_a_float_step(resnet20):
    network, split = resnet20
    training = Training(method="lsq")
    inputs = {network.inputs[0]: torch.from_numpy(split.batch(np.arange(BATCH)))}
    labels = torch.from_numpy(split.labels[:BATCH])

    def step_of(bits):
        recipe = Recipe().with_default(weight_bits=bits, activation_bits=bits)
        student, stepper = setup(network, split, recipe, training)

        def step():
            scores = student.run(inputs)[network.outputs[0]]
            stepper.zero_grad()
            torch.nn.functional.cross_entropy(scores, labels).backward()
            stepper.step(1e-3)
            student.hold()

        return step

    found = ratio(step_of("float"), step_of(4), 12)
    print(f"LSQ W4A4 training step, batch {BATCH}: {found:.3f} of float's")
    assert found <= 1.30


def test_live_batchnorm_adds_little_more_to_an_lsq_step_than_to_a_float_step(resnet20):
    _, split = resnet20
    model = load_model(str(case("models/resnet20_cifar10.pt2")))
    network = network_for(model)
    norms, _ = file_norms(model.proto, network)
    assert len(norms) == 19
    training = Training(batchnorm="live")
    inputs = {network.inputs[0]: torch.from_numpy(split.batch(np.arange(BATCH)))}
    labels = torch.from_numpy(split.labels[:BATCH])

    def step_of(bits, kept):
        recipe = Recipe().with_default(weight_bits=bits, activation_bits=bits)
        student, stepper = setup(network, split, recipe, training, norms if kept else None)

        def step():
            scores = (student.run_live if kept else student.run)(inputs)[network.outputs[0]]
            stepper.zero_grad()
            torch.nn.functional.cross_entropy(scores, labels).backward()
            stepper.step(1e-3)
            student.hold()

        return step

    found = ratio(step_of("float", True), step_of(4, True), 8)
    folded = ratio(step_of(4, False), step_of(4, True), 8)
    print(f"LSQ W4A4 step with live BatchNorm: {found:.3f} of a float one with it, {folded:.3f} of a folded one")
    assert found <= 1.30


def test_simulation_in_training_costs_little_more_than_float(resnet20):
    network, split = resnet20
    recipe = Recipe().with_default(weight_bits=4, activation_bits=4)
    student, _ = setup(network, split, recipe, Training(method="lsq"))
    inputs = {network.inputs[0]: torch.from_numpy(split.batch(np.arange(BATCH)))}

    def quantized():
        with network.executor.evaluating():
            student.run(inputs)

    def plain():
        with network.executor.evaluating():
            network.executor.run(inputs)

    found = ratio(plain, quantized, 20)
    print(f"LSQ W4A4 forward, batch {BATCH}: {found:.3f} of float's")
    assert found <= 1.25
