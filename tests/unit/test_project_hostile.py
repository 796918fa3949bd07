"""Project files that are damaged or made to do harm: one sentence each, nothing is run, nothing else is touched."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_fakes import FakeEngine, dataset, model, result, statistics

from qstudio.core.errors import UserError
from qstudio.session.project_places import find
from qstudio.session.session import Session
from qstudio.session.store import embedding, schema
from qstudio.session.store.arrays import unpack


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a project with edits, runs, statistics and an embedded file."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "net.onnx").write_bytes(os.urandom(3000))
    engine = FakeEngine()
    session = Session(engine)
    session.open_model(str(folder / "net.onnx"))
    engine.finish(engine.one("OpenModel"), model(str(folder / "net.onnx")))
    engine.finish(engine.one("WeightStatistics"), tuple(statistics(f"{n}.weight") for n in ("conv1", "conv2", "fc")))
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    session.set_layers("four", ("conv1",), weight_bits=4)
    session.run_ptq()
    engine.finish(engine.one("RunPtq"), result(session.recipe, 90.0))
    session.project.save_as(folder / "work")
    session.project.files.embed()
    session.project.recorder.flush(5.0)
    session.close()
    return (folder / "work.qsproj").read_bytes()


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """Return a function that opens a project of given bytes and returns the sentence that refuses it, if any."""
    engine = FakeEngine()
    session = Session(engine)
    session.project.files.embedded_root = str(tmp_path / "cache")

    def open_bytes(data: bytes) -> str:
        path = tmp_path / "hostile.qsproj"
        for name in os.listdir(tmp_path):
            if name.startswith("hostile"):
                os.unlink(tmp_path / name)
        path.write_bytes(data)
        session.opening = ""
        try:
            session.project.open(path)
        except UserError as error:
            return error.sentence()
        session.opening = ""
        session.project.new()
        return ""

    yield open_bytes
    session.close()


def changed(good: bytes, tmp_path: Path, *statements: str, values: tuple[Any, ...] = ()) -> bytes:
    """Return the project's bytes after SQL statements."""
    path = tmp_path / "changed.db"
    path.write_bytes(good)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    for statement in statements:
        connection.execute(statement, values if "?" in statement else ())
    connection.commit()
    connection.close()
    return path.read_bytes()


def test_the_good_one_opens(opening: Callable[[bytes], str], good: bytes) -> None:
    assert opening(good) == ""


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 4096, b"SQLite format 3\0", b"PK\x03\x04" + b"\0" * 200, b"\x80\x05cos\nsystem\n."],
    ids=["empty", "zeros", "head only", "zip", "pickle"],
)
def test_what_is_no_project_is_refused(opening: Callable[[bytes], str], data: bytes) -> None:
    assert "this is not a QStudio project" in opening(data)


def test_another_program_s_database_is_refused(opening: Callable[[bytes], str], good: bytes, tmp_path: Path) -> None:
    assert "this is not a QStudio project" in opening(changed(good, tmp_path, "PRAGMA application_id = 1"))


def mutated(good: bytes, seed: int) -> bytes:
    """Return a project's bytes with some of them changed, and sometimes cut off."""
    draw = random.Random(seed)
    data = bytearray(good)
    for _ in range(draw.choice([1, 10, 300])):
        data[draw.randrange(100, len(data))] = draw.randrange(256)
    return bytes(data[: draw.choice([len(data), draw.randrange(100, len(data))])])


@pytest.mark.parametrize("seed", range(25))
def test_mutated_bytes_are_refused_in_one_sentence_or_open(
    opening: Callable[[bytes], str], good: bytes, seed: int
) -> None:
    assert "\n" not in opening(mutated(good, seed))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW more AS SELECT 1",
        "CREATE TRIGGER run AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
        "CREATE TABLE more (x)",
        "DROP TABLE marks",
        "ALTER TABLE runs ADD COLUMN more TEXT",
        "CREATE INDEX more ON runs(state)",
    ],
)
def test_other_tables_views_and_triggers_are_refused(
    opening: Callable[[bytes], str], good: bytes, tmp_path: Path, statement: str
) -> None:
    assert "its tables are not those of a QStudio project" in opening(changed(good, tmp_path, statement))


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("UPDATE edits SET recipe = ?", b"\0bytes"),
        ("UPDATE edits SET recipe = ?", "{"),
        ("UPDATE edits SET recipe = ?", "[" * 200_000),
        ("UPDATE edits SET recipe = ?", '{"qstudio_recipe": 99}'),
        ("UPDATE edits SET recipe = ?", '{"changed": {"a": {"weight_bits": 99}}, "inherit": []}'),
        ("UPDATE edits SET parent = ?", 77),
        ("UPDATE edits SET time = ?", "yesterday"),
        ("UPDATE steps SET edit = ?", 99),
        ("UPDATE facts SET value = ? WHERE name = 'at'", "-1"),
        ("INSERT OR REPLACE INTO facts VALUES ('options', ?)", '{"device": 5}'),
        ("INSERT OR REPLACE INTO facts VALUES ('options', ?)", '{"calibration_samples": -5}'),
        ("INSERT OR REPLACE INTO facts VALUES ('options', ?)", '{"__class__": "os.system"}'),
        ("INSERT INTO facts VALUES (?, '1')", "warp"),
        ("UPDATE runs SET state = ?", "WARPED"),
        ("UPDATE runs SET id = ?", 2**40),
        ("UPDATE runs SET asked = ?", "null"),
        ("UPDATE runs SET result = ?", '{"recipe": "nothing"}'),
        ("UPDATE recipes SET recipe = ?", '{"qstudio_recipe": 1}'),
        ("UPDATE recipes SET sha256 = ?", "0" * 64),
        ("INSERT INTO curve VALUES (1, 1, ?)", 5),
        ("INSERT INTO marks VALUES (1, 1, ?)", b"x"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_in_one_sentence(
    opening: Callable[[bytes], str], good: bytes, tmp_path: Path, statement: str, value: Any
) -> None:
    told = opening(changed(good, tmp_path, statement, values=(value,)))
    assert told
    assert "\n" not in told
    assert len(told) < 600


def test_hostile_statistics_are_measured_again(opening: Callable[[bytes], str], good: bytes, tmp_path: Path) -> None:
    assert opening(changed(good, tmp_path, "UPDATE statistics SET value = zeroblob(2000000)")) == ""
    with pytest.raises(UserError):
        unpack(b"\0" * 1000, "x")


@pytest.mark.parametrize(
    "name",
    ["../up.onnx", "/etc/up.onnx", "a/../../up.onnx", "C:\\up.onnx", "a//b.onnx", "a/ /b", "", ".", "a\0b", "a/.."],
)
def test_an_embedded_file_that_leads_elsewhere_is_refused(good: bytes, tmp_path: Path, name: str) -> None:
    path = tmp_path / "work.qsproj"
    path.write_bytes(changed(good, tmp_path, "UPDATE embedded SET path = ?", values=(name,)))
    connection = sqlite3.connect(path)
    with pytest.raises(UserError, match="leads elsewhere"):
        embedding.take_out(connection, "model", str(tmp_path / "cache"), "work.qsproj")
    connection.close()
    assert not (tmp_path / "cache").exists()


def test_an_embedded_file_with_other_content_is_refused(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "work.qsproj"
    for statement in (
        "UPDATE embedded_parts SET bytes = zeroblob(3000)",
        "UPDATE embedded_parts SET bytes = zeroblob(50000000)",
        "UPDATE embedded SET size_bytes = 4000000000",
    ):
        path.write_bytes(changed(good, tmp_path, statement))
        connection = sqlite3.connect(path)
        with pytest.raises(UserError, match="is damaged"):
            embedding.take_out(connection, "model", str(tmp_path / "cache"), "work.qsproj")
        connection.close()
        assert list((tmp_path / "cache").iterdir()) == []


def test_an_embedded_folder_comes_out_as_it_went_in(tmp_path: Path) -> None:
    data = tmp_path / "images"
    (data / "cat").mkdir(parents=True)
    (data / "cat" / "ä 1.png").write_bytes(b"1" * (embedding.PART_BYTES + 5))
    (data / "empty.txt").write_bytes(b"")
    (tmp_path / "images.dataset.json").write_text("{}")
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(connection, "memory")
    pieces = embedding.data_pieces(str(data))
    assert embedding.embed("data", pieces, lambda: False)(connection) == embedding.PART_BYTES + 7
    out = Path(embedding.take_out(connection, "data", str(tmp_path / "cache"), "x"))
    assert out.name == "images"
    assert (out / "cat" / "ä 1.png").read_bytes() == b"1" * (embedding.PART_BYTES + 5)
    assert (out.parent / "images.dataset.json").read_text() == "{}"
    before = out.stat().st_mtime_ns
    assert embedding.take_out(connection, "data", str(tmp_path / "cache"), "x") == str(out)
    assert out.stat().st_mtime_ns == before, "it is written once"
    connection.close()


def test_external_data_of_a_model_goes_in_with_it(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"...location\x12\x0bweights.bin...")
    for name in ("weights.bin", "unrelated.bin"):
        (tmp_path / name).write_bytes(b"w")
    assert [piece.path for piece in embedding.model_pieces(str(tmp_path / "net.onnx"))] == ["net.onnx", "weights.bin"]


@pytest.mark.parametrize(
    ("path", "relative"),
    [
        ("//server/share/net.onnx", ""),
        ("\\\\server\\share\\net.onnx", ""),
        ("net.onnx", ""),
        ("", "../secret"),
        ("", "/etc/hosts"),
    ],
)
def test_places_on_the_network_or_outside_the_folder_are_not_followed(tmp_path: Path, path: str, relative: str) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in").mkdir()
    assert find(path, relative, str(tmp_path / "in" / "work.qsproj")) == ""


def test_arrays_of_statistics_cannot_ask_for_memory_that_is_not_there() -> None:
    numbers = (
        "samples",
        "l1_norm",
        "low",
        "width",
        "zeros",
        "minimum",
        "maximum",
        "total",
        "total_square",
        "nonfinite",
    )
    plain = {"site": "a", "outliers": [], "arrays": [["counts", "uint8", [9_000_000_000]]], **dict.fromkeys(numbers, 0)}
    header = json.dumps(plain).encode()
    with pytest.raises(UserError, match="too large"):
        unpack(zlib.compress(struct.pack("<I", len(header)) + header + np.zeros(10, np.uint8).tobytes()), "x")


@pytest.mark.fuzz
def test_two_thousand_mutated_projects_are_refused_in_one_sentence_or_open(
    opening: Callable[[bytes], str], good: bytes
) -> None:
    opened = 0
    for seed in range(2000):
        told = opening(mutated(good, seed))
        assert "\n" not in told
        opened += not told
    print(f"2,000 mutated projects: {opened} opened, {2000 - opened} were refused in one sentence")
