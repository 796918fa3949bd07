from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import qstudio
from qstudio.backends.devices import list_devices
from qstudio.core.errors import UserError
from qstudio.quant.network import check_device, compute_in_float32


@pytest.mark.parametrize("device", ["cuda:7", "onnxruntime:cpu", "toaster"])
def test_a_device_that_cannot_be_used_is_refused_in_words(device: str) -> None:
    with pytest.raises(UserError, match="cannot be used") as caught:
        check_device(device)
    assert caught.value.where == device
    assert "cpu" in caught.value.fix


def test_every_device_offered_for_runs_can_be_used() -> None:
    offered = [device.id for device in list_devices() if device.available and device.runs_simulation]
    assert "cpu" in offered
    for device in offered:
        check_device(device)


def test_a_gpu_is_asked_for_float32_and_the_same_sums_each_time() -> None:
    backends = torch.backends
    before = backends.cudnn.deterministic
    try:
        compute_in_float32()
        assert backends.cudnn.conv.fp32_precision == backends.cuda.matmul.fp32_precision == "ieee"
        assert backends.cudnn.deterministic
        assert not backends.cudnn.benchmark
    finally:
        backends.cudnn.deterministic = before


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: runs on it cannot be compared here")
MODEL = str(Path(__file__).parents[2] / "sample_models" / "digits_mobilenet.onnx")


@CUDA
@pytest.mark.parametrize("refinements", [("fold",), ("fold", "brecq:20")])
def test_ptq_on_a_gpu_agrees_with_the_cpu(refinements: tuple[str, ...]) -> None:
    """Scales to 1e-4 of their value, classes on 99 %: float32 sums in another order move a code now and then."""
    recipe = qstudio.Recipe(refinements=refinements).with_default(weight_bits=4)
    results = [
        qstudio.quantize(MODEL, "digits", recipe, eval_samples=300, measure_latency=False, device=device)
        for device in ("cpu", "cuda:0")
    ]
    first, second = (result.encodings for result in results)
    assert first is not None
    assert second is not None
    assert set(first.activations) == set(second.activations)
    if refinements == ("fold",):
        for name, encoding in first.activations.items():
            np.testing.assert_allclose(second.activations[name].scale, encoding.scale, rtol=1e-4, err_msg=name)
    a, b = (result.predictions for result in results)
    assert a is not None
    assert b is not None
    equal = float((a.quantized_class == b.quantized_class).mean())
    assert equal >= (0.99 if refinements == ("fold",) else 0.97)


@CUDA
def test_training_on_a_gpu_agrees_with_the_cpu() -> None:
    """After an epoch of the same batches the held-out accuracy differs by 3 points at most: training amplifies sums."""
    recipe = qstudio.Recipe().with_default(weight_bits=4, activation_bits=4)
    runs = [
        qstudio.train(
            MODEL, "digits", recipe, qstudio.Training(epochs=2), eval_samples=300, measure_latency=False, device=device
        ).run
        for device in ("cpu", "cuda:0")
    ]
    top1 = [run.simulated.top1 for run in runs if run.simulated is not None]
    assert top1[0] == pytest.approx(top1[1], abs=3.0)
    assert all(run.parity is not None and run.parity.agreement >= 99.95 for run in runs)
