"""The program is closed in every state it can be in: code 0, nothing on stderr, no orphan, nothing left, under 3 s."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from qstudio.core.resources import sample_models

LIMIT_S = 3.0
ORPHAN_S = 2.0

SCRIPT = """
import json, os, sys, time
import psutil
STATE = sys.argv[1]
LATE = ("Exporting", "Running the export", "Measuring latency")  # 20 reports a second at most: the first may be missed
ended = []

def begun(window, kinds):
    from qstudio.engine.messages import JobState
    session = window.session
    jobs = [*session.work, *session._runs._jobs.values()]
    return any(type(job.request).__name__ in kinds and job.state is JobState.RUNNING for job in jobs)

def is_ready(window):
    return window.session.run_blocked == "" and not window.session.work

class State:
    asked = False

    def once(self, call):
        if not self.asked:
            self.asked = True
            call()

    def reached(self, window):
        session, actions = window.session, window.actions_table
        if STATE == "starting":
            return True
        if STATE == "welcome":
            return window.welcome is not None and not window.workspace.is_waiting
        if STATE == "opening":
            return bool(session.opening)
        if STATE == "calibrating":
            return begun(window, ("ActivationStatistics",))
        if not is_ready(window) and not self.asked:
            return False
        if STATE == "idle":
            return True
        if STATE == "dialogs":
            self.once(lambda: [actions[name].trigger() for name in ("open_model", "project_note", "palette")])
            return True
        if STATE == "ptq":
            self.once(lambda: window.commands.run_ptq())
            return begun(window, ("RunPtq",))
        if STATE == "exporting":
            self.once(lambda: window.commands.export_to(sys.argv[3]))
            run = session.running
            return run is not None and run.progress is not None and run.progress.note.startswith(LATE)
        if STATE == "training":
            self.once(lambda: window.commands.start_training())
            return begun(window, ("TrainQat",))
        if STATE == "sweeping":
            self.once(lambda: actions["measure_sensitivity"].trigger())
            return begun(window, ("Sensitivity",))
        if STATE == "searching":
            self.once(lambda: actions["search_bits"].trigger())
            return begun(window, ("SearchBits",))
        raise SystemExit("unknown state " + STATE)

def main():
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication
    import qstudio.app as app
    import qstudio.ui.theme as theme
    state = State()

    def look():
        window = next((w for w in QApplication.topLevelWidgets() if w.objectName() == "main"), None)
        if window is None or not window.isVisible() or not state.reached(window):
            QTimer.singleShot(10, look)
            return
        children = [child.pid for child in psutil.Process().children(recursive=True)]
        ended.append((children, time.time(), window.session.model is not None))
        window.actions_table["quit"].trigger()

    before = theme.Theme.set_mode

    def started(self, mode):
        before(self, mode)
        QTimer.singleShot(0, look)

    theme.Theme.set_mode = started
    code = app.run([] if STATE in ("starting", "welcome") else [sys.argv[2], "--data", "digits"])
    children, closed, opened = ended[0]
    json.dump({"children": children, "closed": closed, "opened": opened}, sys.stdout)
    return code

if __name__ == "__main__":
    raise SystemExit(main())
"""

STATES = (
    "starting",
    "welcome",
    "opening",
    "calibrating",
    "idle",
    "dialogs",
    "ptq",
    "exporting",
    "training",
    "sweeping",
    "searching",
)


@pytest.fixture(scope="module")
def model() -> Path:
    found = [sample.path for sample in sample_models() if sample.path.name == "digits_mlp.onnx"]
    if not found:
        pytest.skip("the sample models are not there: run sample_models/train.py")
    return found[0]


def close_in(state: str, model: Path, place: Path) -> float:
    """Start the program, close it in a state, look at what is left; return the seconds from closing to its end."""
    script, scratch = place / "program.py", place / "scratch"
    script.write_text(SCRIPT)
    scratch.mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(scratch),
        "XDG_CONFIG_HOME": str(place / "config"),
        "XDG_STATE_HOME": str(place / "state"),
        "XDG_CACHE_HOME": str(place / "cache"),
    }
    done = subprocess.run(
        [sys.executable, str(script), state, str(model), str(place / "out.onnx")],
        capture_output=True,
        text=True,
        timeout=110,
        env=environment,
    )
    end = time.time()
    told_by_qt = "This plugin does not support"  # of a platform without a screen
    assert [line for line in done.stderr.splitlines() if not line.startswith(told_by_qt)] == []
    assert done.returncode == 0
    told = json.loads(done.stdout)
    seconds = end - told["closed"]
    assert told["children"], "the engine had been started"
    deadline = time.monotonic() + ORPHAN_S
    while left := [pid for pid in told["children"] if is_alive(pid)]:
        assert time.monotonic() < deadline, f"left running: {left}"
        psutil.wait_procs([psutil.Process(pid) for pid in left if psutil.pid_exists(pid)], timeout=0.1)
    assert sorted(path.name for path in scratch.iterdir()) == [], "no temporary file is left"
    assert not list(place.glob("*.part")), "no half a file is left"
    print(f"{state}: closed in {seconds:.2f} s")
    assert seconds < LIMIT_S
    return seconds


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.soak
@pytest.mark.parametrize("state", STATES)
def test_the_program_ends_in_order_in_every_state(state: str, model: Path, tmp_path: Path) -> None:
    close_in(state, model, tmp_path)
