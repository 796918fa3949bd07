"""A short training on a small network and digits, here or in a process of its own that can be killed."""

from __future__ import annotations

import sys

import torch
from quant_cases import small_cnn

from qstudio.core.recipe import Recipe
from qstudio.core.training import Training
from qstudio.data.load import load_dataset
from qstudio.quant.ptq import PtqOptions
from qstudio.quant.qat.run import run_qat

SHORT = Training(epochs=4, samples=300, learning_rate=5e-3, distill=0.5, crop_padding=1, flip=True)
STAGED = Training(epochs=4, samples=300, method="lsq+", progressive_bits=(4,), optimizer="sgd")


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


if __name__ == "__main__":
    train(
        {"short": SHORT, "staged": STAGED}[sys.argv[2]],
        folder=sys.argv[1],
        on_point=lambda point: print(point.epoch, flush=True),
    )
