"""Writing a model: completely or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from export_cases import run, small_cnn
from onnx import numpy_helper

from qstudio.backends import save
from qstudio.backends.save import save_model
from qstudio.core.errors import UserError


def test_a_model_is_written_and_replaced(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    size = save_model(small_cnn(), path)
    assert size == path.stat().st_size
    assert onnx.load(str(path)).SerializeToString() == small_cnn().SerializeToString()
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_large_models_keep_their_weights_beside_them(tmp_path):
    model = small_cnn()
    big = numpy_helper.from_array(np.arange(4096, dtype=np.float32).reshape(8, 512), "big")
    model.graph.initializer.append(big)
    path = tmp_path / "model.onnx"
    save_model(model, path, largest_bytes=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    restored = onnx.load(str(path))
    for before, after in zip(model.graph.initializer, restored.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(before), numpy_helper.to_array(after))
    assert restored.opset_import == model.opset_import
    assert [n.name for n in restored.graph.node] == [n.name for n in model.graph.node]
    x = np.ones((2, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(run(path, x)["y"], run(model, x)["y"])


@pytest.mark.parametrize("largest", [2**31, 1000], ids=["one file", "two files"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, largest):
    path = tmp_path / "model.onnx"
    path.write_text("old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(save.os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_model(small_cnn(), path, largest_bytes=largest)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a tmpfs")
def test_a_disk_that_is_really_full(tmp_path):
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("mounting a tmpfs needs more rights than this process has")
    try:
        with pytest.raises(UserError, match="the disk is full"):
            save_model(small_cnn_with_ballast(), tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def small_cnn_with_ballast():
    model = small_cnn()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 16, np.float32), "ballast"))
    return model


def test_folders_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="this is a folder"):
        save_model(small_cnn(), tmp_path)
    with pytest.raises(UserError, match="the folder does not exist"):
        save_model(small_cnn(), tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(UserError, match="file name is too long"):
        save_model(small_cnn(), tmp_path / ("m" * 240 + ".onnx"))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder(tmp_path):
    if not hasattr(os, "geteuid"):
        pytest.skip("Windows ignores the mode of folders")
    if os.geteuid() == 0:
        # Root writes anywhere but to the kernel's own folders.
        place = "/proc"
        if not os.path.isdir(place):
            pytest.skip("root can write to every folder here")
    else:
        place = str(tmp_path)
        tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot be written"):
        save_model(small_cnn(), os.path.join(place, "model.onnx"))
