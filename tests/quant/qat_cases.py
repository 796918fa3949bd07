"""A short training on a small network and digits, here or in a process of its own that can be killed."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import torch
from onnx import helper
from quant_cases import model_of, small_cnn, weights

from qstudio.core.context import SilentContext
from qstudio.core.recipe import Recipe
from qstudio.core.training import Training
from qstudio.data.load import load_dataset
from qstudio.quant.ptq import PtqOptions
from qstudio.quant.qat.run import run_qat

SHORT = Training(epochs=4, samples=300, learning_rate=5e-3, distill=0.5, crop_padding=1, flip=True)
LIVE = Training(epochs=6, samples=300, progressive_bits=(4,), batchnorm="live", batchnorm_freeze=0.5, distill=0.5)
STAGED = Training(epochs=4, samples=300, method="lsq+", progressive_bits=(4,), optimizer="sgd")


def norm(channels, seed, prefix):
    """Return the parameters of a BatchNormalization; every fourth channel mirrors."""
    drawn = np.random.default_rng(seed)
    gamma = drawn.uniform(0.5, 1.5, channels) * np.where(np.arange(channels) % 4 == 3, -1, 1)
    values = {
        "gamma": gamma,
        "beta": 0.2 * drawn.normal(size=channels),
        "mean": 0.3 * drawn.normal(size=channels),
        "variance": drawn.uniform(0.3, 3.0, channels),
    }
    return {f"{prefix}_{name}": value.astype(np.float32) for name, value in values.items()}


def normed_cnn(classes=10):
    """Return a CNN with BatchNormalization behind a Conv (with bias), a depthwise one, a ConvTranspose and a Gemm."""
    constants = {"w1": weights(8, 1, 3, 3, seed=1), "b1": weights(8, seed=2), "w2": weights(8, 1, 3, 3, seed=3)}
    constants |= {"w3": weights(8, 8, 2, 2, seed=5, scale=0.15), "w4": weights(8, 12, seed=7)}
    constants |= {"b4": weights(12, seed=8), "w5": weights(classes, 12, seed=9), "b5": weights(classes, seed=10)}
    nodes = []

    def add(kind, inputs, output, name, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))

    def normalised(source, channels, number):
        constants.update(norm(channels, 20 + number, f"n{number}"))
        parts = [f"n{number}_{part}" for part in ("gamma", "beta", "mean", "variance")]
        add("BatchNormalization", [source, *parts], f"n{number}", f"norm{number}", epsilon=1e-3, momentum=0.8)
        add("Relu", [f"n{number}"], f"r{number}", f"relu{number}")

    add("Conv", ["x", "w1", "b1"], "c1", "conv1", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    normalised("c1", 8, 1)
    add("Conv", ["r1", "w2"], "c2", "conv2", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], group=8)
    normalised("c2", 8, 2)
    add("ConvTranspose", ["r2", "w3"], "c3", "up", kernel_shape=[2, 2], strides=[2, 2])
    normalised("c3", 8, 3)
    add("GlobalAveragePool", ["r3"], "g", "mean")
    add("Flatten", ["g"], "f", "flatten")
    add("Gemm", ["f", "w4", "b4"], "h", "hidden")
    normalised("h", 12, 4)
    add("Gemm", ["r4", "w5", "b5"], "y", "fc", transB=1)
    return model_of(nodes, constants, (None, 1, 8, 8))


def train(training=SHORT, bits=3, folder="", model=None, **chosen):
    """Return the result of a training of the small CNN on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run_qat(
            model or small_cnn(),
            load_dataset("digits"),
            Recipe().with_default(weight_bits=bits, activation_bits=bits),
            training,
            PtqOptions(calibration_samples=64, eval_samples=100, measure_latency=False, threads=1),
            checkpoints=folder,
            **chosen,
        )
    finally:
        torch.set_num_threads(before)


def same(first, second):
    """Assert that two trainings gave the same numbers, times apart."""
    assert len(first.curve) == len(second.curve)
    for a, b in zip(first.curve, second.curve, strict=True):
        assert (a.epoch, a.bits, a.loss, a.held_out_loss, a.quantized_top1, a.scales, a.learning_rate) == (
            (b.epoch, b.bits, b.loss, b.held_out_loss, b.quantized_top1, b.scales, b.learning_rate)
        )
    assert first.best_epoch == second.best_epoch
    assert first.run.simulated == second.run.simulated
    assert first.run.exported == second.run.exported
    assert first.run.layers == second.run.layers


class Dies(SilentContext):
    """Kills its process in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self._epoch = epoch

    def report(self, done, total, note=""):
        if f"epoch {self._epoch} " in note and done % 1 > 0.3:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    train(
        {"short": SHORT, "staged": STAGED, "live": LIVE}[sys.argv[2]],
        model=normed_cnn() if sys.argv[2] == "live" else None,
        folder=sys.argv[1],
        ctx=Dies(int(sys.argv[3])) if len(sys.argv) > 3 else None,
        on_point=lambda point: print(point.epoch, flush=True),
    )
