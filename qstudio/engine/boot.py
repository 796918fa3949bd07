"""First steps of an engine process. Imports nothing heavy: what is set here must be set before numpy is loaded."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class BootOptions:
    """What a process is told before it does anything."""

    process: str
    """"inspect" or "run"."""
    threads: int
    """Threads of numerical libraries."""
    scratch: str
    """Directory for temporary files."""
    niceness: int = 0
    """How far the process stands back behind the window (POSIX nice)."""
    warm: tuple[str, ...] = ()
    """Modules to load when there is nothing else to do."""


_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def run(connection: Connection[Any, Any], log: Connection[Any, Any], options: BootOptions) -> None:
    """Be an engine process until told to stop or until the parent is gone."""
    from qstudio.engine.log_pipe import redirect_output

    redirect_output(log)
    # Ctrl+C in a terminal reaches the whole process group; only the parent decides when it is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(options.threads)
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ[name] = options.scratch
    tempfile.tempdir = options.scratch
    if options.niceness and hasattr(os, "nice"):
        os.nice(options.niceness)
    from qstudio.engine.worker import Worker

    Worker(connection, options.warm).serve()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: torch and onnxruntime take their time to unload, and there is nothing left that needs it.
    os._exit(0)
