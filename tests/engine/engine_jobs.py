"""Jobs for the contract suite. Imported by the tests and, when a request arrives there, by the engine's process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qstudio.core.errors import UserError
from qstudio.engine.jobs import register


@dataclass(frozen=True)
class Echo:
    """Answer with the value."""

    value: Any = None


@dataclass(frozen=True)
class Count:
    """Report `steps` steps and stream each, then answer with their number."""

    steps: int
    pause_s: float = 0.0


@dataclass(frozen=True)
class Patient:
    """Report until `path` exists or the job is cancelled."""

    path: str = ""


@dataclass(frozen=True)
class Raise:
    """Raise an exception of the kind."""

    kind: str


@dataclass(frozen=True)
class Big:
    """Answer with an array of so many bytes."""

    size_bytes: int


@dataclass(frozen=True)
class Print:
    """Print to stdout in Python and to stderr in C."""

    text: str


@dataclass(frozen=True)
class Crash:
    """Die by a real memory fault."""


@dataclass(frozen=True)
class Exit:
    """Leave with a code, without a word to anybody."""

    code: int


@dataclass(frozen=True)
class ExitUrgent(Exit):
    """The same, urgent."""


@dataclass(frozen=True)
class Stuck:
    """Never report, never end, ignore polite signals; stream once so that the test knows that it is on."""


@dataclass(frozen=True)
class Busy:
    """Compute in torch for minutes, never in Python."""


@dataclass(frozen=True)
class About:
    """Answer with facts about the process."""


@dataclass(frozen=True)
class AboutUrgent(About):
    """The same, urgent."""


@dataclass(frozen=True)
class KeepFile:
    """Make a temporary file, stream its path and never end."""


@dataclass(frozen=True)
class InRun:
    """Answer with the value, in the run process."""

    value: int = 0


@dataclass(frozen=True)
class BadAnswer:
    """Answer with what cannot be sent, or cannot be read."""

    kind: str


class Treacherous:
    """A value that can be sent and not be read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_refuse, ())


def _refuse() -> None:
    raise ValueError("not on this side")


@dataclass(frozen=True)
class Unread:
    """A request that can be sent and not be read."""

    value: Treacherous


def echo(request: Echo, ctx: Any) -> Any:
    return request.value


def count(request: Count, ctx: Any) -> int:
    for step in range(request.steps):
        ctx.report(step, request.steps, f"step {step}")
        ctx.partial(step)
        until = time.monotonic() + request.pause_s
        while time.monotonic() < until:
            ctx.check()
    return request.steps


def patient(request: Patient, ctx: Any) -> str:
    step = 0
    ctx.partial("on")
    while not (request.path and Path(request.path).exists()):
        ctx.report(step, step + 1)
        step += 1
    return "released"


def raise_(request: Raise, ctx: Any) -> None:
    if request.kind == "user":
        raise UserError("the file is truncated", "model.onnx", "Export it again")
    if request.kind == "memory":
        raise MemoryError
    if request.kind == "exit":
        sys.exit(3)
    if request.kind == "disk":
        raise OSError(28, "No space left on device", "/somewhere/out.onnx")
    raise ValueError("boom")


def bad_answer(request: BadAnswer, ctx: Any) -> Any:
    return Treacherous() if request.kind == "read" else threading.Lock()


def big(request: Big, ctx: Any) -> Any:
    return np.arange(request.size_bytes, dtype=np.uint8)


def print_(request: Print, ctx: Any) -> None:
    print(request.text)
    os.write(2, f"{request.text} in C\n".encode())


def crash(request: Crash, ctx: Any) -> None:
    print("the last words")
    ctx.partial("on")
    ctypes.string_at(0)


def exit_(request: Exit, ctx: Any) -> None:
    os._exit(request.code)


def stuck(request: Stuck, ctx: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctx.partial(os.getpid())
    threading.Event().wait()


def busy(request: Busy, ctx: Any) -> None:
    import torch

    a = torch.ones(2048, 2048)
    ctx.partial(os.getpid())
    torch.linalg.matrix_power(a, 2**40)
    while True:
        torch.linalg.svd(torch.rand(6000, 6000))


def about(request: About, ctx: Any) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "main": getattr(sys.modules["__main__"], "__file__", None),
        "modules": [name for name in ("torch", "onnx", "onnxruntime", "PySide6") if name in sys.modules],
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "temporary": tempfile.gettempdir(),
        "thread": threading.current_thread().name,
    }


def keep_file(request: KeepFile, ctx: Any) -> None:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"half a checkpoint")
    ctx.partial(file.name)
    threading.Event().wait()


for _type, _name in (
    (Echo, "echo"),
    (Count, "count"),
    (Patient, "patient"),
    (Raise, "raise_"),
    (Big, "big"),
    (Print, "print_"),
    (Crash, "crash"),
    (Exit, "exit_"),
    (Stuck, "stuck"),
    (Busy, "busy"),
    (About, "about"),
    (KeepFile, "keep_file"),
    (Unread, "echo"),
    (BadAnswer, "bad_answer"),
):
    register(_type, f"{__name__}:{_name}", f"testing {_type.__name__}")
register(AboutUrgent, f"{__name__}:about", "testing urgency", urgent=True)
register(ExitUrgent, f"{__name__}:exit_", "testing an urgent exit", urgent=True)
register(InRun, f"{__name__}:echo", "testing the run process", process="run")
