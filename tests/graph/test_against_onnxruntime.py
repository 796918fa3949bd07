"""Every sample and case model gives onnxruntime's outputs: as read, prepared, and translated."""

from __future__ import annotations

import onnx
import pytest
import torch
from graph_cases import CASES, feeds_for, loaded, model_files, relative_error, session, small_cnn

from qstudio.graph.prepare import prepare
from qstudio.graph.to_torch import run, to_torch

MODELS = model_files()


def test_the_case_models_are_among_them():
    if not (CASES / "models").is_dir():
        pytest.skip("the case models are not on this machine (set QSTUDIO_CASES)")
    names = {p.name for p in MODELS}
    assert {"resnet20_cifar10.onnx", "resnet20_cifar10.pt2", "kws_dscnn.pt2", "ultraface_rfb320.onnx"} <= names


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name)
def test_model_matches_onnxruntime(path):
    proto = loaded(path).proto
    before = proto.SerializeToString()
    original = session(proto)
    translations = [(to_torch(proto), None)]
    for fold in (True, False):
        prepared = prepare(proto, fold_batchnorm=fold)
        onnx.checker.check_model(prepared.proto, full_check=True)
        names = [n.name for n in prepared.proto.graph.node]
        assert len(set(names)) == len(names)
        assert all(names)
        translations.append((to_torch(prepared.proto), session(prepared.proto)))
    assert proto.SerializeToString() == before, "the model must stay as it was read"
    dynamic = any(not isinstance(i.shape[0], int) for i in original.get_inputs())
    for batch in (1, 3) if dynamic else (1,):
        feeds = feeds_for(original, batch)
        expected = dict(zip([o.name for o in original.get_outputs()], original.run(None, feeds), strict=True))
        for translated, prepared_session in translations:
            actual = run(translated, {k: torch.from_numpy(v) for k, v in feeds.items()})
            for name, value in expected.items():
                assert relative_error(actual[name].numpy(), value) < 1e-4
            if prepared_session is not None:
                for name, value in zip(expected, prepared_session.run(list(expected), feeds), strict=True):
                    assert relative_error(value, expected[name]) < 1e-4


@pytest.mark.parametrize("opset", range(7, 26))
def test_every_operator_set_from_7_to_25(opset):
    proto = small_cnn(opset)
    original = session(proto)
    feeds = feeds_for(original, 3)
    expected = original.run(None, feeds)[0]
    tensors = {k: torch.from_numpy(v) for k, v in feeds.items()}
    assert relative_error(run(to_torch(proto), tensors)["y"].numpy(), expected) < 1e-4
    prepared = prepare(proto)
    assert prepared.folded == (("bn", "conv"),)
    assert [n.name for n in prepared.proto.graph.node] == ["conv", "relu", "pool", "flatten", "fc"]
    assert relative_error(run(to_torch(prepared.proto), tensors)["y"].numpy(), expected) < 1e-4
    assert relative_error(session(prepared.proto).run(None, feeds)[0], expected) < 1e-4


@pytest.mark.skipif(
    not (CASES / "models").is_dir(), reason="the case models are not on this machine (set QSTUDIO_CASES)"
)
def test_the_pt2_keeps_its_batchnorms_names_and_dynamic_batch():
    proto = loaded(CASES / "models" / "resnet20_cifar10.pt2").proto
    kinds = [n.op_type for n in proto.graph.node]
    assert kinds.count("BatchNormalization") == kinds.count("Conv") == 19
    initializers = {t.name for t in proto.graph.initializer}
    assert {"conv1.weight", "bn1.running_var", "layer3.2.conv2.weight", "linear.bias"} <= initializers
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    prepared = prepare(proto)
    assert len(prepared.folded) == 19
    assert "GlobalAveragePool" in [n.op_type for n in prepared.proto.graph.node]
    assert "ReduceMean" not in [n.op_type for n in prepared.proto.graph.node]
