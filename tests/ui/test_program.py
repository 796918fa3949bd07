"""The program as a process of its own, and the window beside the real engine: deaths, stalls, a quiet end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PySide6.QtCore import QObject, QTimer

from qstudio.core.resources import sample_models
from qstudio.engine.messages import JobState
from qstudio.engine.process_client import ProcessEngine
from qstudio.ui.main_window import MainWindow

PATIENCE_MS = 120_000
STALL_MS = 50

SCRIPT = """
import json, os, sys, time
def main():
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication
    import qstudio.app as app
    ended = []
    def look():
        window = next((w for w in QApplication.topLevelWidgets() if w.objectName() == "main"), None)
        if window is None or window.session.model is None or window.session.float_metrics is None:
            QTimer.singleShot(50, look)
            return
        ended.append((sorted(sys.modules), len(window.session.model.layers), time.time()))
        window.close()
    import qstudio.ui.theme as theme
    before = theme.Theme.set_mode
    def started(self, mode):
        before(self, mode)
        QTimer.singleShot(0, look)
    theme.Theme.set_mode = started
    code = app.run([sys.argv[1], "--data", "digits"])
    modules, layers, closed = ended[0]
    json.dump({"code": code, "modules": modules, "layers": layers, "end_s": time.time() - closed}, sys.stdout)
    return code
if __name__ == "__main__":
    raise SystemExit(main())
"""


@pytest.fixture(scope="module")
def sample() -> Path:
    found = [sample.path for sample in sample_models() if sample.path.suffix == ".onnx"]
    if not found:
        pytest.skip("the sample models are not there: run sample_models/train.py")
    return found[0]


def test_the_window_never_loads_torch_and_ends_quietly(sample: Path, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script), str(sample)], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.returncode == 0
    told = json.loads(done.stdout)
    heavy = {"torch", "onnx", "onnxruntime", "sklearn", "scipy"}
    assert not heavy & {name.partition(".")[0] for name in told["modules"]}
    assert told["layers"] > 3
    assert told["end_s"] < 3.0
    assert not [
        child for child in psutil.Process().children(recursive=True) if str(script) in " ".join(child.cmdline())
    ]


def test_a_model_that_is_not_there_is_said_in_the_window(make_program: Callable[..., Any], tmp_path: Path) -> None:
    studio, window = make_program()
    window.commands.open_model(str(tmp_path / "nothing.onnx"))
    studio.qtbot.waitUntil(lambda: bool(window.notices.cards), timeout=PATIENCE_MS)
    assert "nothing.onnx" in window.notices.cards[0].notice.text
    assert window.pages.currentWidget() is window.welcome, "where there is still no model, the welcome page comes back"


@pytest.fixture
def make_program(make_studio: Callable[..., Any]) -> Iterator[Callable[..., tuple[Any, MainWindow]]]:
    made: list[MainWindow] = []

    def make(model: Path | None = None) -> tuple[Any, MainWindow]:
        studio = make_studio(ProcessEngine())
        window = MainWindow(studio.session, studio.bridge)
        studio.show(window, 1280, 720)
        window.build_all()
        made.append(window)
        if model is not None:
            window.commands.open_model(str(model), "digits")
            studio.qtbot.waitUntil(
                lambda: bool(studio.session.activation_statistics and not studio.session.work), timeout=PATIENCE_MS
            )
        return studio, window

    yield make
    for window in made:
        window.commands.close()


@pytest.mark.parametrize("process", ["inspect", "run"])
def test_killing_an_engine_process_leaves_the_window_with_all_that_was_set(
    make_program: Callable[..., tuple[Any, MainWindow]], sample: Path, process: str
) -> None:
    studio, window = make_program(sample)
    session, engine, qtbot = studio.session, studio.engine, studio.qtbot
    layer = session.model.weighted_layers[1].name
    session.set_layers("w4", (layer,), weight_bits=4)
    session.select([layer])
    session.set_options(seed=3, eval_samples=None)
    qtbot.waitUntil(lambda: not session.work, timeout=PATIENCE_MS)
    window.commands.run_ptq()
    qtbot.waitUntil(lambda: session.running is None or session.running.state is JobState.RUNNING, timeout=PATIENCE_MS)
    qtbot.waitUntil(lambda: engine.pid(process) is not None, timeout=PATIENCE_MS)
    victim = engine.pid(process)
    psutil.Process(victim).kill()
    qtbot.waitUntil(lambda: engine.pid(process) not in (None, victim), timeout=PATIENCE_MS)
    qtbot.waitUntil(lambda: session.running is None, timeout=PATIENCE_MS)
    assert any(process in card.notice.text for card in window.notices.cards), "it is said in words"
    assert session.settings(layer).weight_bits == 4
    assert session.selection == (layer,)
    assert session.undo_label == "w4"
    assert window.run_bar.seed.value() == 3
    expected = JobState.KILLED if process == "run" else JobState.DONE
    assert session.runs[-1].state is expected, session.runs[-1].error
    # And it goes on: the same process answers again.
    if process == "run":
        window.commands.run_ptq()
        qtbot.waitUntil(lambda: session.running is None, timeout=PATIENCE_MS)
        assert session.runs[-1].state is JobState.DONE, session.runs[-1].error
    else:
        session.set_layers("w3", (layer,), weight_bits=3)
        session.request_preview(layer)
        qtbot.waitUntil(
            lambda: layer in session.previews and session.previews[layer].scheme.bits == 3, timeout=PATIENCE_MS
        )


class Heartbeat(QObject):
    """Beats every 5 ms and keeps, between two beats, the time and the processor time of this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.gaps_ms: list[float] = []
        self.work_ms: list[float] = []
        self._worked = time.thread_time()
        self._last = time.perf_counter()
        self._timer = QTimer(self)
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def _beat(self) -> None:
        now = time.perf_counter()
        self.gaps_ms.append(1000 * (now - self._last))
        self._last = now
        worked = time.thread_time()
        self.work_ms.append(1000 * (worked - self._worked))
        self._worked = worked

    def stop(self) -> None:
        self._timer.stop()


def beats_of_a_run(studio: Any, window: MainWindow) -> tuple[list[float], list[float]]:
    """Run PTQ with the chart in view; return the milliseconds between beats, as time and as the window's own work."""
    session = studio.session
    window.show_perspective("tune")
    studio.settle()
    heart = Heartbeat()
    window.commands.run_ptq()
    studio.qtbot.waitUntil(lambda: session.running is None, timeout=PATIENCE_MS)
    heart.stop()
    heart.deleteLater()
    assert session.runs[-1].state is JobState.DONE
    assert len(heart.gaps_ms) > 20
    print(f"PTQ: {len(heart.gaps_ms)} beats, longest gap {max(heart.gaps_ms):.0f} ms, work {max(heart.work_ms):.0f} ms")
    return heart.gaps_ms, heart.work_ms


def test_the_window_does_no_long_work_while_ptq_runs(
    make_program: Callable[..., tuple[Any, MainWindow]], sample: Path
) -> None:
    """Count the processor time of the GUI thread: what other programs take of a busy machine is not its own."""
    _gaps, work = beats_of_a_run(*make_program(sample))
    assert max(work) < STALL_MS


@pytest.mark.benchmark
def test_the_window_does_not_stall_while_ptq_runs(
    make_program: Callable[..., tuple[Any, MainWindow]], sample: Path
) -> None:
    """Count the clock: for a machine that does nothing else."""
    gaps, _work = beats_of_a_run(*make_program(sample))
    assert max(gaps) < STALL_MS
