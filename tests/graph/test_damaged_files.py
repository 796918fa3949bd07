"""Damaged, hostile and foreign files end in one sentence; nothing crashes and nothing in them is run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import time
import zipfile

import numpy as np
import onnx
import pytest
import torch
from graph_cases import SAMPLES, build, small_cnn
from onnx import TensorProto, helper, numpy_helper

from qstudio.core.errors import UserError
from qstudio.graph.describe import describe
from qstudio.graph.load import load_model
from qstudio.graph.prepare import prepare
from qstudio.graph.to_torch import to_torch


def refused(path) -> UserError:
    with pytest.raises(UserError) as caught:
        load_model(path)
    sentence = caught.value.sentence()
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return caught.value


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Change, cut out, double or truncate a few places."""
    changed = bytearray(data)
    for _ in range(generator.choice([1, 1, 2, 4, 16])):
        at = generator.randrange(len(changed))
        # Structure sits between the weights' bytes: half of the changes go to the first and last kilobytes.
        if generator.random() < 0.5:
            at = generator.choice(
                [generator.randrange(min(1500, len(changed))), -1 - generator.randrange(min(1500, len(changed)))]
            )
        kind = generator.random()
        if kind < 0.6:
            changed[at] = generator.randrange(256)
        elif kind < 0.75:
            changed[at] ^= 1 << generator.randrange(8)
        elif kind < 0.85:
            del changed[at]
        elif kind < 0.93:
            changed.insert(at, generator.randrange(256))
        else:
            del changed[generator.randrange(len(changed)) :]
            if not changed:
                return b"\0"
    return bytes(changed)


def test_a_thousand_mutated_models_load_or_say_why(tmp_path):
    sample = SAMPLES / "digits_cnn.onnx"
    data = sample.read_bytes() if sample.is_file() else small_cnn().SerializeToString()
    generator = random.Random(20240607)
    path = tmp_path / "mutated.onnx"
    loaded = translated = 0
    slowest = 0.0
    sentences: list[str] = []
    for _ in range(1000):
        path.write_bytes(mutated(data, generator))
        started = time.perf_counter()
        try:
            model = load_model(path)
            loaded += 1
            prepared = prepare(model.proto)
            describe(prepared.proto)
            to_torch(prepared.proto)
            translated += 1
        except UserError as error:
            sentences.append(error.sentence())
        slowest = max(slowest, time.perf_counter() - started)
    assert 0 < translated <= loaded < 1000
    assert slowest < 10
    assert sentences
    assert not [s for s in sentences if "\n" in s]


def test_random_bytes_empty_files_folders_and_missing_files(tmp_path):
    path = tmp_path / "m.onnx"
    for size in (1, 10, 1000, 100_000):
        path.write_bytes(random.Random(size).randbytes(size))
        refused(path)
    path.write_bytes(b"")
    assert "empty" in refused(path).what
    assert "folder" in refused(tmp_path).what
    assert "no such file" in refused(tmp_path / "other.onnx").what


def test_every_truncation_of_a_model_is_refused_or_loads(tmp_path):
    data = small_cnn().SerializeToString()
    path = tmp_path / "m.onnx"
    for cut in range(1, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:cut])
        refused(path)


def test_an_unknown_ending_is_told_by_content(tmp_path):
    path = tmp_path / "model.weights"
    path.write_bytes(small_cnn().SerializeToString())
    assert load_model(path).format == "onnx"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the super user")
def test_an_unreadable_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(small_cnn().SerializeToString())
    path.chmod(0)
    assert "cannot be read" in refused(path).what


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self):
        return (open, (self.mark, "w"))


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.pkl", "a.bin", "a.onnx", "a.pt2"])
@pytest.mark.parametrize("legacy", [True, False])
def test_pickled_checkpoints_are_refused_without_being_read(tmp_path, name, legacy):
    mark = tmp_path / "mark"
    path = tmp_path / name
    if legacy:
        path.write_bytes(pickle.dumps(Bomb(str(mark))))
    else:
        torch.save({"state": Bomb(str(mark))}, path)
    mark.unlink(missing_ok=True)
    error = refused(path)
    assert "pickle" in error.what
    assert "torch.export.export" in error.fix
    assert "torch.export.save" in error.fix
    assert not mark.exists()


class TinyNet(torch.nn.Module):
    """A convolution and a batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3)
        self.bn = torch.nn.BatchNorm2d(2)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


@pytest.fixture(scope="module")
def tiny_pt2() -> bytes:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(TinyNet().eval(), (torch.zeros(2, 1, 5, 5),), dynamic_shapes={"x": {0: batch}})
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def rewritten(data: bytes, change) -> bytes:
    """Rebuild a .pt2 with some of its records changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        records = {n: old.read(n) for n in old.namelist()}
        root = next(iter(records)).split("/")[0]
        change(records, root)
        for name, content in records.items():
            new.writestr(name, content)
    return out.getvalue()


def test_a_pt2_is_read_quietly_and_keeps_its_batchnorm(tmp_path, tiny_pt2, capfd):
    path = tmp_path / "tiny.pt2"
    path.write_bytes(tiny_pt2)
    model = load_model(path)
    assert model.format == "pt2"
    assert "BatchNormalization" in [n.op_type for n in model.proto.graph.node]
    assert capfd.readouterr() == ("", "")
    assert load_model(path).sha256 == model.sha256


def test_a_pt2_captured_in_training_mode_is_refused(tmp_path):
    path = tmp_path / "train.pt2"
    torch.export.save(torch.export.export(TinyNet().train(), (torch.zeros(2, 1, 5, 5),)), path)
    assert "training mode" in refused(path).what


def hostile_sample_inputs(records, root, mark):
    records[f"{root}/data/sample_inputs/model.pt"] = saved(Bomb(mark))


def hostile_weight(records, root, mark):
    name = f"{root}/data/weights/model_weights_config.json"
    config = json.loads(records[name])
    config["config"]["conv.weight"].update(use_pickle=True)
    records[name] = json.dumps(config).encode()
    records[f"{root}/data/weights/weight_0"] = saved(Bomb(mark))


def hostile_constant(records, root, mark):
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    records[f"{root}/data/constants/model_constants_config.json"] = json.dumps({"config": {"c": entry}}).encode()
    records[f"{root}/data/constants/opaque_obj_0"] = pickle.dumps(Bomb(mark))


def hostile_target(records, root, mark):
    name = f"{root}/models/model.json"
    text = records[name].decode()
    assert "torch.ops.aten.relu.default" in text
    records[name] = text.replace("torch.ops.aten.relu.default", "torch.serialization.os.system").encode()


def hostile_size(records, root, mark):
    name = f"{root}/models/model.json"
    program = json.loads(records[name])

    def change(value):
        if isinstance(value, dict):
            if "expr_str" in value:
                value["expr_str"] = f"__import__('builtins').open({mark!r}, 'w')"
            for item in value.values():
                change(item)
        elif isinstance(value, list):
            for item in value:
                change(item)

    change(program)
    assert mark in json.dumps(program)
    records[name] = json.dumps(program).encode()


def hostile_library(records, root, mark):
    records[f"{root}/data/aotinductor/model/model.so"] = b"\x7fELF"


def saved(value) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "change",
    [hostile_sample_inputs, hostile_weight, hostile_constant, hostile_target, hostile_size, hostile_library],
    ids=lambda f: f.__name__,
)
def test_a_hostile_pt2_is_refused_and_runs_nothing(tmp_path, tiny_pt2, change):
    mark = tmp_path / "mark"
    path = tmp_path / "hostile.pt2"
    path.write_bytes(rewritten(tiny_pt2, lambda records, root: change(records, root, str(mark))))
    mark.unlink(missing_ok=True)
    refused(path)
    assert not mark.exists()


def test_truncated_and_mutated_pt2_files_are_refused_or_load(tmp_path, tiny_pt2):
    path = tmp_path / "m.pt2"
    generator = random.Random(3)
    for cut in range(5, len(tiny_pt2), len(tiny_pt2) // 20):
        path.write_bytes(tiny_pt2[:cut])
        refused(path)
    for _ in range(30):
        path.write_bytes(mutated(tiny_pt2, generator))
        with contextlib.suppress(UserError):
            load_model(path)


def with_external(folder, location, *, offset=0, length=None):
    weight = np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3)
    proto = build(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")], {"x": [1, 3, 5, 5]}, {"y": [1, 4, 3, 3]}, {"w": weight}
    )
    tensor = proto.graph.initializer[0]
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length or len(raw)))):
        tensor.external_data.add(key=key, value=value)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return weight, raw


def test_external_data_is_taken_into_memory(tmp_path):
    weight, raw = with_external(tmp_path, "weights.bin", offset=16)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 16 + raw)
    model = load_model(tmp_path / "m.onnx")
    (tmp_path / "weights.bin").unlink()
    assert np.array_equal(numpy_helper.to_array(model.proto.graph.initializer[0]), weight)
    assert to_torch(prepare(model.proto).proto).parameter_of == {"w": "conv.weight"}


def test_missing_and_short_external_data_is_named(tmp_path):
    _, raw = with_external(tmp_path, "weights.bin")
    assert "'weights.bin' is missing" in refused(tmp_path / "m.onnx").what
    (tmp_path / "weights.bin").write_bytes(raw[:-4])
    assert "too short" in refused(tmp_path / "m.onnx").what


def test_external_data_outside_the_folder_is_not_followed(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    _, raw = with_external(folder, "../secret.bin")
    (tmp_path / "secret.bin").write_bytes(raw)
    assert "outside" in refused(folder / "m.onnx").what
    with_external(folder, str(tmp_path / "secret.bin"))
    assert "outside" in refused(folder / "m.onnx").what
    with_external(folder, "link.bin")
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    assert "outside" in refused(folder / "m.onnx").what


def damaged(tmp_path, proto: onnx.ModelProto) -> UserError:
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return refused(path)


def test_a_cycle_a_missing_tensor_and_a_name_written_twice(tmp_path):
    relu = helper.make_node("Relu", ["b"], ["a"], "first")
    back = helper.make_node("Relu", ["a"], ["b"], "second")
    assert "cycle" in damaged(tmp_path, build([relu, back], {"x": [1]}, {"a": [1]})).what
    lost = helper.make_node("Add", ["x", "ghost"], ["y"], "adder")
    error = damaged(tmp_path, build([lost], {"x": [1]}, {"y": [1]}))
    assert "'ghost'" in error.what
    assert error.where == "adder"
    twice = [helper.make_node("Relu", ["x"], ["y"], "one"), helper.make_node("Relu", ["x"], ["y"], "two")]
    assert "written twice" in damaged(tmp_path, build(twice, {"x": [1]}, {"y": [1]})).what


def test_sizes_are_compared_with_the_bytes_before_anything_is_allocated(tmp_path):
    proto = small_cnn()
    proto.graph.initializer[0].dims[:] = [2**40, 2**20]
    assert "bytes" in damaged(tmp_path, proto).what
    proto.graph.initializer[0].dims[:] = [-1, 3]
    assert "impossible shape" in damaged(tmp_path, proto).what


@pytest.mark.parametrize(("opset", "fine"), [(6, False), (7, True), (25, True), (26, False)])
def test_operator_sets_outside_7_to_25_are_named(tmp_path, opset, fine):
    proto = small_cnn(18)
    proto.opset_import[0].version = opset
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    if fine:
        assert load_model(path).format == "onnx"
    else:
        assert f"operator set {opset}" in refused(path).what


def test_a_huge_constant_is_not_computed_while_preparing():
    shape = np.array([1 << 14, 1 << 14, 1 << 6], dtype=np.int64)
    fill = helper.make_node("ConstantOfShape", ["s"], ["big"], "fill")
    proto = build([fill, helper.make_node("ReduceMax", ["big"], ["y"], "max", keepdims=0)], {}, {"y": []}, {"s": shape})
    assert "fill" in [n.name for n in prepare(proto).proto.graph.node]
