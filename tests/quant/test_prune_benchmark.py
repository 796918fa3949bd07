"""What pruning costs and what short training brings back, on the models that come with the program and on the cases."""

import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from quant_cases import case

from qstudio.core.recipe import Recipe
from qstudio.core.resources import shipped_directory
from qstudio.core.training import Training
from qstudio.data.load import load_dataset
from qstudio.graph.load import load_model
from qstudio.quant.network import network_for
from qstudio.quant.prune.run import prune_model
from qstudio.quant.ptq import PtqOptions, run_ptq
from qstudio.quant.qat.run import run_qat

CASES = ("resnet20_cifar10.pt2", "resnet8_cifar10.onnx", "kws_dscnn.pt2", "mnist_cntk.onnx", "ultraface_rfb320.onnx")


def parameters(proto):
    return sum(int(np.prod(tensor.dims)) for tensor in proto.graph.initializer)


@pytest.mark.benchmark
@pytest.mark.parametrize("name", CASES)
def test_real_models_lose_filters_and_still_run_everywhere(name):
    model = load_model(str(case(f"models/{name}")))
    before = hashlib.sha256(model.proto.SerializeToString()).hexdigest()
    pruned = prune_model(model, Recipe().with_default(pruning="l1_filter:30")).model
    assert hashlib.sha256(model.proto.SerializeToString()).hexdigest() == before, "the opened model is untouched"
    onnx.checker.check_model(pruned.proto, full_check=True)
    assert parameters(pruned.proto) < 0.7 * parameters(model.proto)
    session = onnxruntime.InferenceSession(pruned.proto.SerializeToString())
    given = session.get_inputs()[0]
    x = np.random.default_rng(0).normal(size=[d if isinstance(d, int) else 2 for d in given.shape]).astype(np.float32)
    outputs = network_for(pruned).executor.run({given.name: torch.from_numpy(x)})
    for output, wanted in zip(session.get_outputs(), session.run(None, {given.name: x}), strict=True):
        np.testing.assert_allclose(outputs[output.name].detach().numpy(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["digits_resnet.pt2", "digits_mobilenet.onnx"])
@pytest.mark.parametrize(
    ("text", "drop", "weights"),
    [
        ("l1_filter:30", 1.5, 0.6),
        ("taylor_filter:30:global", 1.5, 0.6),
        ("taylor_filter:50:global", 2.5, 0.35),
        ("magnitude:50", 1.0, 1.0),
        ("taylor:50:global", 1.0, 1.0),
    ],
)
def test_six_epochs_bring_back_what_pruning_cost(name, text, drop, weights):
    model = load_model(str(shipped_directory("sample_models") / name))
    recipe, options = Recipe().with_default(pruning=text), PtqOptions(measure_latency=False, threads=1)
    data = load_dataset("digits")
    whole = run_ptq(model, data, Recipe(), options)
    training = Training(epochs=6, distill=0.5, learning_rate=2e-3)
    result = run_qat(model, data, recipe, training, options).run
    print(name, text, run_ptq(model, data, recipe, options).simulated.top1, result.simulated.top1, result.size_bytes)
    assert result.simulated.top1 > result.float.top1 - drop
    assert result.size_bytes.quantized <= weights * whole.size_bytes.quantized
    assert result.parity.agreement == 100.0
