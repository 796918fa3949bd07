"""Data, tasks and networks for the tests of refinements."""

from __future__ import annotations

import numpy as np
import torch
from onnx import helper
from quant_cases import model_of, weights

from qstudio.core.context import SilentContext
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS, check_refinements
from qstudio.data.load import load_dataset
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for
from qstudio.quant.network import network_for
from qstudio.quant.refine.run import refine_network, refine_values, simulated
from qstudio.quant.refine.task import Refined, Task

CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def images(folder, shape, count=96, seed=0, alike=False):
    """Return a data set of random images in an .npz; alike: neighbours have similar values, as in photographs."""
    values = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    if alike:
        values = np.cumsum(np.cumsum(values, axis=-1), axis=-2) / 4
    path = folder / "images.npz"
    np.savez(path, x=values)
    return load_dataset(str(path))


def task(dataset, refinement="adaround", ctx=None, seed=0, **settings):
    """Return the task of a refinement on all samples."""
    chosen = {**REFINEMENTS[refinement].settings(refinement), **settings}
    return Task(dataset.test, np.arange(len(dataset.test)), seed, chosen, ctx or SilentContext())


def calibrated(network, dataset, **settings):
    """Return the starting point of refinements after calibration."""
    statistics = activation_statistics(network, dataset.test, np.arange(len(dataset.test)))
    recipe = Recipe().with_default(**settings)
    return Refined(encodings_for(network.layers, recipe, statistics, network.weights()), {})


def refined(model, dataset, names, seed=0, **settings):
    """Return (network, refined, simulation) of a recipe."""
    chosen = np.arange(len(dataset.test))
    recipe = Recipe(refinements=check_refinements(names)).with_default(**settings)
    network = refine_network(network_for(model), recipe, dataset.test, chosen, seed, SilentContext())
    statistics = activation_statistics(network, dataset.test, chosen)
    encodings = encodings_for(network.layers, recipe, statistics, network.weights())
    result = refine_values(network, recipe, encodings, dataset.test, chosen, seed, SilentContext())
    return network, result, simulated(network, result)


def outputs(network, dataset, run=None):
    """Return the first output for all samples."""
    x = torch.from_numpy(dataset.test.batch(np.arange(len(dataset.test))))
    with network.executor.evaluating():
        return (run or network.executor.run)({network.inputs[0]: x})[network.outputs[0]].numpy()


def error(network, dataset, simulation):
    """Return the squared error of a simulation's output relative to the float output's power."""
    exact = outputs(network, dataset).astype(np.float64)
    return float(((outputs(network, dataset, simulation.run) - exact) ** 2).sum() / (exact**2).sum())


def uneven(values, axis, seed, spread=20.0):
    """Return values whose channels differ in size by up to spread."""
    factors = np.exp(np.random.default_rng(seed).uniform(0, np.log(spread), values.shape[axis]))
    return (values * factors.reshape([-1 if i == axis else 1 for i in range(values.ndim)])).astype(np.float32)


def depthwise_chain(activation="Relu", bound=6.0, scale=1.0):
    """Return conv - depthwise - pointwise - pooling - Gemm with uneven channels."""
    constants = {
        "w1": uneven(weights(12, 3, 3, 3, seed=1), 0, 11) * np.float32(scale),
        "b1": weights(12, seed=2),
        "w2": uneven(weights(12, 1, 3, 3, seed=3), 0, 12),
        "b2": weights(12, seed=4),
        "w3": weights(10, 12, 1, 1, seed=5),
        "b3": weights(10, seed=6),
        "w4": weights(5, 10, seed=7),
        "b4": weights(5, seed=8),
        "slope": np.full((12, 1, 1), 0.25, np.float32),
        "low": np.float32(0.0),
        "high": np.float32(bound),
    }
    extra = {"PRelu": ["slope"], "Clip": ["low", "high"]}.get(activation, [])
    used = {name: value for name, value in constants.items() if name[0] in "wb" or name in extra}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv", **CONV),
        helper.make_node(activation, ["c1", *extra], ["r1"], "act1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", group=12, **CONV),
        helper.make_node(activation, ["c2", *extra], ["r2"], "act2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], "pointwise", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c3"], ["r3"], "act3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], "fc", transB=1),
    ]
    return model_of(nodes, used)
