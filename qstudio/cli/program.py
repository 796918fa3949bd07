"""The command line from arguments to exit status. Heavy parts are imported when a command runs."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qstudio.cli.parser import build_parser
from qstudio.core.errors import UserError

if TYPE_CHECKING:
    from argparse import Namespace

DONE, FAULT, USER_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0 done; 2 the user's input is at fault (one line on stderr: what, where, what to do); 1 a fault of ours (the
        traceback is in a log file, which the line names); 128 + N stopped by signal N (130 for Ctrl+C).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    wants_json = "--json" in words
    try:
        try:
            arguments = build_parser().parse_args(words)
        except UserError as error:
            return _leave(USER_INPUT, error, wants_json)
        except SystemExit as stop:  # --help and --version have been printed
            return int(stop.code or DONE)
        return _run(arguments)
    except BrokenPipeError:
        # Whoever read our output has enough of it (| head): nothing more to say, and no complaint at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + getattr(signal, "SIGPIPE", 13)


def _run(arguments: Namespace) -> int:
    from qstudio.cli.asking import Asker, EngineFault, Interrupted
    from qstudio.cli.quiet import Quiet

    quiet = Quiet()
    try:
        with quiet:
            from qstudio.engine.inline import InlineEngine

            shows = quiet.is_terminal if arguments.progress is None else arguments.progress
            with Asker(InlineEngine(), quiet.terminal if shows else None) as asker:
                plain, text = _command(arguments.command)(arguments, asker)
    except UserError as error:
        return _leave(USER_INPUT, error, arguments.json)
    except Interrupted as stop:
        said = stop.said or UserError("stopped; nothing was written")
        return _leave(128 + stop.number, said, arguments.json)
    except KeyboardInterrupt:
        return _leave(128 + signal.SIGINT, UserError("stopped; nothing was written"), arguments.json)
    except EngineFault as fault:
        log = _write_log(arguments, fault.failure.details, quiet.text)
        said = UserError(fault.failure.what, fault.failure.where, f"The details are in {log}")
        return _leave(FAULT, said, arguments.json)
    except Exception as error:
        log = _write_log(arguments, traceback.format_exc(), quiet.text)
        what = f"a fault of the program ({type(error).__name__}: {error})"
        return _leave(FAULT, UserError(what, "", f"The details are in {log}"), arguments.json)
    print(json.dumps(plain, indent=2, allow_nan=False) if arguments.json else text)
    sys.stdout.flush()
    return DONE


def _command(name: str) -> Any:
    from qstudio.cli import benchmarking, doctor, inspecting, quantizing, search, sensitivity, train

    return {
        "inspect": inspecting.run,
        "quantize": quantizing.run,
        "train": train.run,
        "sensitivity": sensitivity.run,
        "search": search.run,
        "benchmark": benchmarking.run,
        "doctor": doctor.run,
    }[name]


def _leave(status: int, error: UserError, as_json: bool) -> int:
    """Say in one line why there is no result; with --json also as the one object on stdout."""
    line = " ".join(error.sentence().split())
    print(f"qstudio: {line}", file=sys.stderr)
    if as_json:
        said = {"what": error.what, "where": error.where, "fix": error.fix}
        print(json.dumps({"error": said, "exit_status": status}))
    return status


def _write_log(arguments: Namespace, details: str, printed: str) -> str:
    """Write what a report needs to a file of the person's log folder and return its path."""
    import platform
    import tempfile
    import time
    from pathlib import Path

    from platformdirs import user_log_dir

    from qstudio import __version__

    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    text = (
        f"qstudio {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{arguments}\n\n{details}\n\nPrinted by libraries:\n{printed}"
    )
    for folder in (Path(user_log_dir("qstudio", appauthor=False)), Path(tempfile.gettempdir())):
        path = folder / f"qstudio-{stamp}-{os.getpid()}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return str(path)
    print(text, file=sys.stderr)
    return "the lines above"
