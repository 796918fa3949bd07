"""Opens mutated files one after the other and says how each ended; run as a process of its own.

    python fuzz_worker.py KIND FIRST COUNT FOLDER

prints one JSON line for each case that ended in anything but success or a UserError, and a last line with the counts.
An audit hook ends the process at once when anything is executed, unpickled or sent.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import resource
import signal
import sqlite3
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = Path(__file__).parents[2] / "sample_models"
LIMIT_S = 10
"""Longest time for one file, of the processor: others may use it too."""
GROWTH_BYTES = 2 * 10**9
"""Most that opening a file may add to the process's memory."""

FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo")
"""Audit events that no file may cause."""


def mutate(data: bytes, generator: random.Random, other: bytes = b"") -> bytes:
    """Change, cut, double, splice or truncate some places; lengths are set to extremes."""
    changed = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 2, 3, 8, 32])):
        if not changed:
            return b""
        size = len(changed)
        at = generator.randrange(size)
        if generator.random() < 0.5:  # structure stands at both ends, weights between
            near = generator.randrange(min(2000, size))
            at = near if generator.random() < 0.5 else size - 1 - near
        kind = generator.random()
        if kind < 0.4:
            changed[at] = generator.randrange(256)
        elif kind < 0.55:
            changed[at] ^= 1 << generator.randrange(8)
        elif kind < 0.65:
            extreme = generator.choice([0, 1, 0x7F, 0xFF, 0x80, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1])
            width = generator.choice([1, 2, 4, 8])
            changed[at : at + width] = struct.pack("<Q", extreme)[:width]
        elif kind < 0.73:
            del changed[at : at + generator.choice([1, 1, 4, 100])]
        elif kind < 0.81:
            changed[at:at] = generator.randbytes(generator.choice([1, 1, 4, 100]))
        elif kind < 0.88:
            piece = changed[at : at + generator.choice([4, 32, 400])]
            changed[generator.randrange(size) : 0] = piece
        elif kind < 0.95 and other:
            start = generator.randrange(len(other))
            piece = other[start : start + generator.choice([4, 64, 1000])]
            changed[at : at + len(piece)] = piece
        else:
            del changed[generator.randrange(size) :]
    return bytes(changed)


def mutate_file(name: str, data: bytes, generator: random.Random, other: bytes) -> bytes:
    """Change a file: its bytes, or what an archive, a compressed file or a JSON text holds inside a sound shell."""
    if generator.random() < 0.35:
        return mutate(data, generator, other)
    if data[:2] == b"PK":
        return _mutate_zip(data, generator)
    if data[:2] == b"\x1f\x8b":
        return gzip.compress(mutate(gzip.decompress(data), generator))
    if name.endswith(".qsproj"):
        return _mutate_sqlite(data, generator)
    if name.endswith(".json"):
        tree = json.loads(data)
        for _ in range(generator.choice([1, 1, 2, 4])):
            tree = _mutate_tree(tree, generator)
        return json.dumps(tree).encode()
    return mutate(data, generator, other)


def _mutate_zip(data: bytes, generator: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = generator.choice(names)
        for name in names:
            content = old.read(name)
            if name == chosen:
                if generator.random() < 0.1:
                    continue
                if generator.random() < 0.1:
                    name = generator.choice(["../../evil", "/etc/evil", name + "\0", "x" * 300, ".", name.upper()])
                is_json = content[:1] in (b"{", b"[") and generator.random() < 0.7
                if is_json:
                    content = json.dumps(_mutate_tree(json.loads(content), generator)).encode()
                else:
                    content = mutate(content, generator)
            new.writestr(name, content)
    return out.getvalue()


STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1,
    2**31, 2**63, -(2**63), 1e308, 1e-308, 0.5, "", "a", "\u0000", "../../x", "é" * 200, [], {},
    [[]], [0] * 50, {"a": 1}, "float", "minmax", "4", "NaN", "int", "channel", "group:0", "group:999999999",
)  # fmt: skip
"""Values that stand where others are expected."""


def _mutate_tree(tree: Any, generator: random.Random) -> Any:
    """Return a JSON value with one place of it replaced, removed, doubled or renamed."""
    if isinstance(tree, dict) and tree and generator.random() < 0.85:
        found = dict(tree)
        key = generator.choice(list(found))
        kind = generator.random()
        if kind < 0.7:
            found[key] = _mutate_tree(found[key], generator)
        elif kind < 0.8:
            del found[key]
        elif kind < 0.9:
            found[generator.choice(["", "a", f"{key}x", "__class__"])] = found[key]
        else:
            found[key] = generator.choice(STRANGE)
        return found
    if isinstance(tree, list) and tree and generator.random() < 0.85:
        items = list(tree)
        place = generator.randrange(len(items))
        kind = generator.random()
        if kind < 0.7:
            items[place] = _mutate_tree(items[place], generator)
        elif kind < 0.85:
            del items[place]
        else:
            items.insert(place, items[place])
        return items
    if isinstance(tree, (int, float)) and not isinstance(tree, bool) and generator.random() < 0.5:
        return generator.choice([tree + 1, -tree, tree * 1000, tree / 3, 0, 10**30])
    return generator.choice(STRANGE)


# ---- seeds: (name, bytes) of whole inputs, a list for each kind

Files = dict[str, bytes]


def _onnx() -> list[Files]:
    names = ("digits_mlp.onnx", "digits_cnn.onnx", "digits_mobilenet.onnx")
    return [{"m.onnx": (SAMPLES / name).read_bytes()} for name in names]


def _pt2() -> list[Files]:
    return [{"m.pt2": (SAMPLES / "digits_resnet.pt2").read_bytes()}]


def _npz() -> list[Files]:
    x, y = np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8), np.arange(40) % 10
    found = []
    for save in (np.savez, np.savez_compressed):
        for arrays in ({"x": x, "y": y}, {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9]}):
            out = io.BytesIO()
            save(out, **arrays)
            found.append({"d.npz": out.getvalue()})
    out = io.BytesIO()
    np.savez(out, x=x.astype(np.float32)[:, None], y=y.astype(np.int32))
    return [*found, {"d.npz": out.getvalue()}]


def _idx() -> list[Files]:
    images = struct.pack(">HBBIII", 0, 8, 3, 20, 8, 8) + bytes(range(64)) * 20
    labels = struct.pack(">HBBI", 0, 8, 1, 20) + bytes(i % 10 for i in range(20))
    names = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    plain = dict(zip(names, (images, labels), strict=True))
    return [plain, {f"{name}.gz": gzip.compress(data) for name, data in plain.items()}]


def _images() -> list[Files]:
    from PIL import Image

    found = []
    for ending in ("png", "jpeg", "bmp"):
        files = {}
        for number in range(6):
            picture = Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 12, 3), np.uint8))
            out = io.BytesIO()
            picture.save(out, ending)
            files[f"class{number % 2}/{number}.{ending}"] = out.getvalue()
        found.append(files)
    return found


def _cifar() -> list[Files]:
    record = bytes([3]) + bytes(i % 251 for i in range(3072))
    return [{"test_batch.bin": record * 8, "data_batch_1.bin": record * 8}]


def _recipe() -> list[Files]:
    from qstudio.core.recipe import Recipe

    recipe = Recipe(refinements=("fold", "brecq")).with_layers(("conv1", "fc"), weight_bits=4, weight_clip=(-1.0, 1.0))
    return [{"r.json": json.dumps(recipe.to_json(), indent=1).encode()}]


def _encodings() -> list[Files]:
    aimet = {
        "version": "1.0.0",
        "activation_encodings": [
            {
                "name": "x",
                "bw": 8,
                "dtype": "INT",
                "enc_type": "PER_TENSOR",
                "is_sym": False,
                "scale": [0.1],
                "offset": [-3],
            }
        ],
        "param_encodings": [],
    }
    overrides = {"x": [{"quant_type": "QUInt8", "scale": 0.1, "zero_point": 3}]}
    return [{"e.json": json.dumps(data).encode()} for data in (aimet, overrides)]


def _dataset_json() -> list[Files]:
    options = {"mean": [0.5], "std": [0.25], "size": [8, 8], "layout": "nhw", "split": "test", "scale": 255}
    return [{**files, "d.dataset.json": json.dumps(options).encode()} for files in _npz()[:1]]


def _qsproj() -> list[Files]:
    """A project with edits, statistics and an embedded model, made by the program itself."""
    from qstudio.engine.inline import InlineEngine
    from qstudio.session.session import Session

    session = Session(InlineEngine())
    with tempfile.TemporaryDirectory() as folder:
        session.open_model(SAMPLES / "digits_mlp.onnx")
        session.wait(60)
        layers = tuple(layer.name for layer in session.model.weighted_layers)  # type: ignore[union-attr]
        for bits in (4, 2, 8):
            session.set_layers(f"{bits} bits", layers[:1], weight_bits=bits)
        session.undo()
        session.project.save_as(Path(folder) / "p.qsproj")
        session.project.files.embed()
        session.project.recorder.flush(10.0)
        session.close()
        return [{"p.qsproj": (Path(folder) / "p.qsproj").read_bytes()}]


def _mutate_sqlite(data: bytes, generator: random.Random) -> bytes:
    """Change values inside a sound database."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.db"
        path.write_bytes(data)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode = DELETE")
        for _ in range(generator.choice([1, 1, 2, 5])):
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%WITHOUT ROWID%'"
            )
            names = [row[0] for row in tables]
            table = generator.choice(names)
            rows = connection.execute(f"SELECT rowid, * FROM '{table}'").fetchall()
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info('{table}')")]
            if not rows or not columns:
                continue
            row, column = generator.choice(rows), generator.randrange(len(columns))
            value = row[1 + column]
            if isinstance(value, str) and value[:1] in ("{", "["):
                value = json.dumps(_mutate_tree(json.loads(value), generator))
            elif isinstance(value, bytes) and generator.random() < 0.7:
                value = mutate(value, generator)
            else:
                strange = generator.choice(STRANGE)
                value = strange if isinstance(strange, (str, float, type(None))) else repr(strange)
            with contextlib.suppress(sqlite3.Error, OverflowError):
                connection.execute(f"UPDATE '{table}' SET '{columns[column]}' = ? WHERE rowid = ?", (value, row[0]))
        connection.commit()
        connection.close()
        return path.read_bytes()


# ---- how each kind is opened


def open_model(folder: Path) -> None:
    from qstudio.graph.describe import describe
    from qstudio.graph.load import load_model
    from qstudio.graph.prepare import prepare
    from qstudio.graph.to_torch import to_torch

    [path] = folder.iterdir()
    prepared = prepare(load_model(path).proto)
    describe(prepared.proto)
    to_torch(prepared.proto)


def open_data(folder: Path) -> None:
    from qstudio.data.load import load_dataset

    single = next(iter(folder.glob("*.npz")), folder)
    dataset = load_dataset(str(single))
    split = dataset.test
    split.batch(np.arange(min(4, len(split))))


def open_recipe(folder: Path) -> None:
    from qstudio.session.recipe_file import read_recipe

    read_recipe(folder / "r.json").settings("conv1").weight_scheme()


def open_encodings(folder: Path) -> None:
    from qstudio.core.exchange import recipe_from
    from qstudio.core.model_info import LayerInfo, SiteInfo
    from qstudio.core.recipe import Recipe

    layers = (LayerInfo("x", "Input", "", activation=SiteInfo("x", "activation", "x")),)
    from qstudio.core.errors import UserError

    try:
        data = json.loads((folder / "e.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError("this is not a JSON file") from None
    recipe_from(data, layers, Recipe())


_sessions: list[Any] = []


def open_project(folder: Path) -> None:
    """Open it as the window does, without asking the engine for anything."""
    from qstudio.session.session import Session

    if not _sessions:
        _sessions.append(Session(_NoEngine()))
    session = _sessions[0]
    session.project.files.embedded_root = str(folder / "cache")
    session.opening = ""
    session.project.open(folder / "p.qsproj")
    session.opening = ""
    session.project.new()


class _NoEngine:
    """Takes every request and answers none."""

    def __init__(self) -> None:
        self.on_log = self.on_process_died = None
        self._count = 0

    def submit(self, request: Any, *, slot: str = "", **_callbacks: Any) -> Any:
        from qstudio.engine.client import Job
        from qstudio.engine.messages import JobState

        self._count += 1
        return Job(self._count, request, "inspect", slot, state=JobState.CANCELLED)

    def cancel(self, _job: Any) -> None: ...

    def set_wake(self, _wake: Any) -> None: ...

    def close(self, timeout: float = 0.0) -> None: ...


KINDS: dict[str, tuple[Callable[[], list[Files]], Callable[[Path], None]]] = {
    "onnx": (_onnx, open_model),
    "pt2": (_pt2, open_model),
    "npz": (_npz, open_data),
    "idx": (_idx, open_data),
    "images": (_images, open_data),
    "cifar": (_cifar, open_data),
    "dataset_json": (_dataset_json, open_data),
    "recipe": (_recipe, open_recipe),
    "encodings": (_encodings, open_encodings),
    "qsproj": (_qsproj, open_project),
}
MUTATED = {"dataset_json": ".json"}
"""Kinds of which only files with this ending are changed."""


class HangError(BaseException):
    """A file took too long; not an Exception, so that nothing takes it for a fault of the file."""


def _on_alarm(_number: int, _frame: Any) -> None:
    raise HangError


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN):
        sys.stdout.write(json.dumps({"case": _current, "fault": f"{event} {arguments!r}"}) + "\n")
        sys.stdout.flush()
        os._exit(3)


_current = -1


def main(kind: str, first: int, count: int, folder: Path) -> None:
    """Open `count` cases from `first` on; each is made from its number alone."""
    global _current
    from qstudio.core.errors import UserError

    make_seeds, open_it = KINDS[kind]
    seeds = make_seeds()
    ending = MUTATED.get(kind, "")

    def write(files: Files, case: Path) -> None:
        for name, data in files.items():
            path = case / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    for number, files in enumerate(seeds):  # everything is imported, and every seed is sound
        write(files, folder / f"seed{number}")
        open_it(folder / f"seed{number}")
    sys.addaudithook(_watch)
    signal.signal(signal.SIGPROF, _on_alarm)
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    opened = refused = 0
    slowest, longest = 0.0, 0
    for _current in range(first, first + count):
        generator = random.Random(f"{kind} {_current}")
        files = dict(generator.choice(seeds))
        names = [name for name in files if name.endswith(ending)]
        for name in generator.sample(names, generator.randint(1, min(2, len(names)))):
            other = generator.choice(list(generator.choice(seeds).values()))
            files[name] = mutate_file(name, files[name], generator, other)
        case = folder / f"case{_current}"
        write(files, case)
        began, fault = time.process_time(), ""
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        try:
            open_it(case)
            opened += 1
        except UserError as error:
            refused += 1
            sentence = error.sentence()
            longest = max(longest, len(sentence))
            if "\n" in sentence or "Traceback" in sentence or len(sentence) > 600:
                fault = f"no single sentence: {sentence[:700]!r}"
        except HangError:
            fault = f"took more than {LIMIT_S} s"
        except BaseException:
            fault = traceback.format_exc(limit=-6)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - began
        slowest = max(slowest, seconds)
        if seconds > LIMIT_S and not fault:
            fault = f"took {seconds:.1f} s"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - baseline
        if grown > GROWTH_BYTES and not fault:
            fault = f"memory grew by {grown / 1e9:.1f} GB"
            baseline += grown
        if fault:
            print(json.dumps({"case": _current, "fault": fault}), flush=True)
        for path in sorted(case.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        case.rmdir()
    said = {"opened": opened, "refused": refused, "slowest_s": round(slowest, 2), "longest_sentence": longest}
    print(json.dumps({"done": count, **said}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
