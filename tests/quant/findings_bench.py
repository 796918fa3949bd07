"""Networks on which rules are true or false, and what is really measured on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import helper
from quant_cases import model_of, weights

from qstudio.core.affine import fake_quantize
from qstudio.core.context import SilentContext
from qstudio.core.findings.evidence import Evidence
from qstudio.core.findings.finding import Finding
from qstudio.core.findings.rules import RULES
from qstudio.core.inspection import DepthErrors, LayerNoise
from qstudio.core.metrics import sqnr_db
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import FLOAT_BITS
from qstudio.data.load import load_dataset
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for
from qstudio.quant.network import Network, network_for
from qstudio.quant.refine.run import refine_network, refine_values, simulated
from qstudio.quant.statistics import weight_statistics
from qstudio.quant.weight_ranges import weight_encoding
from qstudio.session.findings import estimate

CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


@dataclass(eq=False)
class Bench:
    """A network with its calibration data, and optionally other data it is evaluated on."""

    network: Network
    values: np.ndarray
    folder: Path
    evaluated: np.ndarray | None = None

    @cached_property
    def split(self) -> Any:
        return self._split(self.values, "calibration")

    def _split(self, values: np.ndarray, name: str) -> Any:
        path = self.folder / f"{name}.npz"
        np.savez(path, x=values.astype(np.float32))
        return load_dataset(str(path)).test

    @cached_property
    def own_statistics(self) -> Any:
        return activation_statistics(self.network, self.split, np.arange(len(self.values)))

    def statistics(self, network: Network | None = None) -> Any:
        if network is None or network is self.network:
            return self.own_statistics
        return activation_statistics(network, self.split, np.arange(len(self.values)))

    def evidence(self, recipe: Recipe, **more: Any) -> Evidence:
        network = self.network
        model = ModelInfo(
            "m", "", "onnx", "", 17, tuple(network.layers), network.description, (), (), (None, 1), 0, 0
        )  # fmt: skip
        seen = {}
        if self.evaluated is not None:
            split = self._split(self.evaluated, "evaluation")
            seen = activation_statistics(network, split, np.arange(len(self.evaluated)))
        return Evidence(
            model,
            recipe,
            estimate,
            {site.id: weight_statistics(site, network.value(site.id)) for site in network.weight_sites},
            self.statistics(),
            seen,
            **more,
        )

    def check(self, rule: str, layer: str, recipe: Recipe, **more: Any) -> tuple[Finding, ...]:
        evidence = self.evidence(recipe, **more)
        assert not RULES[rule].missing(evidence)
        return RULES[rule].check(evidence, evidence.model.layer(layer))

    def site(self, layer: str, side: str) -> Any:
        info = next(each for each in self.network.layers if each.name == layer)
        return info.weight if side == "weight" else info.activation

    def tensor(self, name: str, values: np.ndarray) -> np.ndarray:
        found: dict[str, np.ndarray] = {}

        def look(tensor: str, value: torch.Tensor) -> None:
            if tensor == name:
                found[name] = value.numpy().copy()

        with self.network.executor.evaluating():
            self.network.executor.run({self.network.inputs[0]: torch.from_numpy(values)}, observe=look)
        return found[name]

    def weight_db(self, recipe: Recipe, layer: str, network: Network | None = None) -> float:
        """Return the SQNR of a weight that is really quantized."""
        site = self.site(layer, "weight")
        values = (network or self.network).value(site.id)
        encoding = weight_encoding(recipe.settings(layer).weight_scheme(), site, values)
        return sqnr_db(values, fake_quantize(values, encoding))

    def activation_db(self, recipe: Recipe, layer: str, values: np.ndarray | None = None) -> float:
        """Return the SQNR of an activation that is really quantized, with the range that calibration gives it."""
        site = self.site(layer, "activation")
        encoding = encodings_for(self.network.layers, recipe, self.statistics(), self.network.weights()).activations[
            site.id
        ]
        real = self.tensor(site.id, self.values if values is None else values)
        return sqnr_db(real, fake_quantize(real, encoding))

    def output_db(self, recipe: Recipe, layer: str) -> float:
        """Return the SQNR of what a layer puts out, in the simulation, with the recipe's refinements."""
        chosen = np.arange(len(self.values))
        network = refine_network(self.network, recipe, self.split, chosen, 0, SilentContext())
        encodings = encodings_for(network.layers, recipe, self.statistics(network), network.weights())
        refined = refine_values(network, recipe, encodings, self.split, chosen, 0, SilentContext())
        model = simulated(network, refined)
        name = self.site(layer, "activation").id
        found: dict[str, np.ndarray] = {}

        def look(tensor: str, value: torch.Tensor) -> None:
            if tensor == name:
                found[name] = value.numpy().copy()

        with network.executor.evaluating():
            model.run({network.inputs[0]: torch.from_numpy(self.values)}, observe=look)
        return sqnr_db(self.tensor(name, self.values), found[name])

    def depth(self, recipe: Recipe) -> DepthErrors:
        """Return what each layer alone does to the output."""
        every = [layer.name for layer in self.network.layers]
        names, output = [layer.name for layer in self.network.layers if layer.weight is not None], every[-1]
        base = self.tensor(self.site(output, "activation").id, self.values)
        noises = []
        for name in names:
            others = tuple(other for other in every if other != name)
            alone = recipe.with_layers(others, weight_bits=FLOAT_BITS, activation_bits=FLOAT_BITS)
            lost = 10 ** (-self.output_db(alone, output) / 10)
            noises.append(LayerNoise(name, name, float((base**2).mean()), 0.0, 0.0, lost))
        return DepthErrors(recipe.sha256(), len(self.values), tuple(noises))


def uneven(values: np.ndarray, spread: float, seed: int = 0) -> np.ndarray:
    """Return a weight whose output channels differ in size by up to spread."""
    factors = np.exp(np.random.default_rng(seed).uniform(0, np.log(spread), len(values)))
    return (values * factors.reshape(-1, *([1] * (values.ndim - 1)))).astype(np.float32)


def images(count: int = 48, channels: int = 3, size: int = 8, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, channels, size, size)) + mean).astype(np.float32)


def chain(folder: Path, spread: float = 20.0, values: np.ndarray | None = None, even_bias: float = 0.3) -> Bench:
    """Return conv - depthwise - pointwise - pooling - Gemm."""
    constants = {
        "w1": uneven(weights(12, 3, 3, 3, seed=1), spread, 11),
        "b1": weights(12, seed=2, scale=even_bias),
        "w2": uneven(weights(12, 1, 3, 3, seed=3), spread, 12),
        "b2": weights(12, seed=4, scale=even_bias),
        "w3": uneven(weights(96, 12, 1, 1, seed=5), spread, 13),
        "b3": weights(96, seed=6, scale=even_bias),
        "w4": weights(24, 96, seed=7),
        "b4": weights(24, seed=8),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv", **CONV),
        helper.make_node("Relu", ["c1"], ["r1"], "act1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", group=12, **CONV),
        helper.make_node("Relu", ["c2"], ["r2"], "act2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], "pointwise", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c3"], ["r3"], "act3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], "fc", transB=1),
    ]
    return Bench(network_for(model_of(nodes, constants)), images() if values is None else values, folder)


def dense(folder: Path, weight: np.ndarray, values: np.ndarray, act: str = "Relu") -> Bench:
    """Return x -> Gemm -> act -> Gemm."""
    count = weight.shape[0]
    constants = {"w1": weight, "b1": weights(count, seed=2), "w2": weights(5, count, seed=3), "b2": weights(5, seed=4)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
        helper.make_node(act, ["h"], ["a"], "act"),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["y"], "last", transB=1),
    ]
    return Bench(network_for(model_of(nodes, constants, (None, weight.shape[1]))), values, folder)


def normalised(folder: Path, outlier: float, tokens: int = 0) -> Bench:
    """Return LayerNormalization with one channel of another size, and the product that reads it."""
    gains = np.ones(32, np.float32)
    gains[5] = outlier
    constants = {"gamma": gains, "beta": weights(32, seed=1, scale=0.1), "w": weights(32, 16, seed=2)}
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["n"], "norm", axis=-1),
        helper.make_node("MatMul", ["n", "w"], ["y"], "product"),
    ]
    shape = (None, tokens, 32) if tokens else (None, 32)
    values = np.random.default_rng(3).normal(size=(200, *shape[1:])).astype(np.float32)
    return Bench(network_for(model_of(nodes, constants, shape, opset=17)), values, folder)


def recipe(weight_bits: int = 8, **default: Any) -> Recipe:
    """Return a recipe with one setting for all layers."""
    return replace(Recipe(), refinements=("fold",)).with_default(weight_bits=weight_bits, **default)
