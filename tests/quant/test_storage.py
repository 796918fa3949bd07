"""Weights below 8 bits stored packed or in int8: both files, their sizes and latencies, and the choice."""

from __future__ import annotations

import dataclasses
import json

import onnx
import pytest
from quant_cases import small_cnn

from qstudio.cli.plain import plain
from qstudio.cli.quantizing import _storage
from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.storage import INT8, PACKED, StorageChoice, StorageFigures, check_storage
from qstudio.data.load import load_dataset
from qstudio.quant.outcome import PtqOptions
from qstudio.quant.ptq import run_ptq
from qstudio.session.options import RunOptions
from qstudio.ui.runs.figures import storage_words

OPTIONS = PtqOptions(calibration_samples=32, eval_samples=32, threads=1)
BOTH = StorageChoice(StorageFigures(2000, 1.5), StorageFigures(1000, 1.6), INT8)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_both_storages_are_measured_and_the_chosen_one_is_kept(digits, tmp_path):
    recipe = Recipe().with_default(weight_bits=4)
    found = {}
    for storage in (INT8, PACKED):
        path = tmp_path / f"{storage}.onnx"
        options = dataclasses.replace(
            OPTIONS, storage=storage, export_path=str(path), measure_latency=storage == PACKED
        )
        result = run_ptq(small_cnn(), digits, recipe, options)
        assert result.storage is not None
        assert result.storage.chosen == storage
        assert getattr(result.storage, storage).file_bytes == path.stat().st_size == result.size_bytes.file
        assert (result.parity.max_lsb, result.parity.agreement) == (0, 100.0)
        types = {t.data_type for t in onnx.load(str(path)).graph.initializer}
        assert (onnx.TensorProto.INT4 in types) == (storage == PACKED)
        found[storage] = result
    assert found[INT8].storage.int8.file_bytes == found[PACKED].storage.int8.file_bytes
    assert found[INT8].storage.packed.file_bytes == found[PACKED].storage.packed.file_bytes
    assert found[INT8].storage.packed.file_bytes < found[INT8].storage.int8.file_bytes
    assert found[INT8].storage.int8.latency_ms is None, "nothing is timed when timing is not wanted"
    timed = found[PACKED]
    assert timed.storage.packed.latency_ms == timed.latency_ms.exported.median
    assert timed.storage.int8.latency_ms > 0
    assert found[INT8].exported == found[PACKED].exported, "the two files compute the same"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["int8.onnx", "packed.onnx"], "the other file is not kept"


def test_with_8_bits_there_is_nothing_to_choose(digits):
    result = run_ptq(small_cnn(), digits, Recipe(), dataclasses.replace(OPTIONS, measure_latency=False))
    assert result.storage is None


def test_the_figures_are_told_everywhere():
    assert json.loads(json.dumps(plain(BOTH))) == {
        "int8": {"file_bytes": 2000, "latency_ms": 1.5},
        "packed": {"file_bytes": 1000, "latency_ms": 1.6},
        "chosen": "int8",
    }
    lines = _storage(BOTH)
    assert "1.5" in lines[0]
    assert "(this file)" in lines[0]
    assert "packed" in lines[1]
    assert _storage(None) == []
    words = storage_words(BOTH)
    assert "1.50 ms (this file)" in words
    assert "1.60 ms" in words
    assert storage_words(None) == ""
    untimed = dataclasses.replace(BOTH, packed=StorageFigures(1000))
    assert storage_words(untimed).count(" ms") == 1


def test_other_words_are_refused():
    assert check_storage(" Packed ") == PACKED
    with pytest.raises(UserError, match="Choose int8 or packed"):
        check_storage("zip")
    with pytest.raises(UserError, match="storage"):
        RunOptions(storage="zip")
    assert RunOptions(storage=PACKED).request("m", None, Recipe()).storage == PACKED
