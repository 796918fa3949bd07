"""Random actions on the whole window: no exception, no warning of Qt, nothing left behind, memory that stays flat.

The seed of a failure and its last 20 actions are in the message; QSTUDIO_SOAK_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leftovers import Holdings, count
from monkey import FaultError, Monkey, answer_dialogs
from moody_engine import MoodyEngine
from PySide6.QtCore import QCoreApplication, QEvent, QTimer, qWarning
from PySide6.QtWidgets import QApplication, QDialog, QWidget

from qstudio.core.resources import sample_models
from qstudio.engine.process_client import ProcessEngine
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.main_window import MainWindow
from qstudio.ui.settings import settings
from qstudio.ui.theme import theme

SEED = int(os.environ.get("QSTUDIO_SOAK_SEED", "1"))
MEMORY_MB = 50.0
ONE_NOTICE = 12
"""Widgets of a notice, which may come at any moment."""
PATIENCE_MS = 120_000


@pytest.fixture
def make_window(qtbot: Any, tmp_path: Path) -> Iterator[Callable[[Any], MainWindow]]:
    made: list[tuple[MainWindow, SessionBridge, Session]] = []

    def make(engine: Any) -> MainWindow:
        session = Session(engine)
        root = tmp_path / "state"
        root.mkdir()
        session.checkpoint_root = str(root / "checkpoints")
        session.project.recorder.autosave_root = str(root / "autosave")
        session.project.files.embedded_root = str(root / "embedded")
        session.sensitivity.cache_root = session.search.cache_root = str(root / "figures")
        theme().set_mode("light")
        theme().set_zoom(1.0)
        bridge = SessionBridge(session, engine)
        window = MainWindow(session, bridge)
        window.show_welcome()
        window.resize(1280, 720)
        with qtbot.waitExposed(window):
            window.show()
        window.build_all()
        made.append((window, bridge, session))
        return window

    yield make
    for window, bridge, session in made:
        close_all()
        window.close()
        window.commands.close()
        window.deleteLater()
        bridge.close()
        bridge.deleteLater()
        session.close()
    theme().set_mode("light")
    theme().set_zoom(1.0)
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture
def wrong_files(tmp_path: Path) -> list[str]:
    """Return files that are not what they seem, and one that is not there."""
    (tmp_path / "broken.onnx").write_bytes(b"not a model" * 50)
    (tmp_path / "broken.npz").write_bytes(b"not data" * 50)
    (tmp_path / "broken.json").write_text('{"layers": [}')
    (tmp_path / "broken.qsproj").write_bytes(b"not a project" * 50)
    np.savez(tmp_path / "shape.npz", images=np.zeros((4, 3, 5, 5), np.uint8), labels=np.zeros(4, np.int64))
    names = ("broken.onnx", "broken.npz", "broken.json", "broken.qsproj", "shape.npz", "nothing.onnx")
    return [str(tmp_path / name) for name in names]


def close_all() -> None:
    """Close menus and dialogs."""
    while (popup := QApplication.activePopupWidget()) is not None:
        popup.close()
    for dialog in QApplication.topLevelWidgets():
        if isinstance(dialog, QDialog) and dialog.isVisible():
            dialog.close()


def rest(window: MainWindow, model: str, settle: Callable[[], None]) -> Holdings:
    """Bring the program into one and the same state, and count what it holds."""
    close_all()
    session = window.session
    window.commands.cancel()
    settle()
    window.actions_table["theme_light"].trigger()
    window.actions_table["zoom_reset"].trigger()
    window.resize(1280, 720)
    window.commands.project.new()
    close_all()
    window.commands.open_model(model, "digits")
    settle()
    assert session.model is not None, "a model opens after everything that happened"
    assert session.dataset is not None, "so does its data"
    assert not session.runs
    window.reset_layout()
    for name in ("compare", "tune", "explore"):
        window.show_perspective(name)
        settle()
    settings().setValue("recent", [])
    if window.welcome is not None:
        window.welcome.refresh_recent()
    for card in window.notices.cards:
        window.notices.dismiss(card)
    window.notices._timer.stop()
    return count()


def build_late(window: MainWindow) -> None:
    """Have built what the window builds when it is first asked for and then keeps."""
    window.show_palette()
    assert window.palette_popup is not None
    window.palette_popup.close()


def compare(monkey: Monkey, rests: list[Holdings]) -> None:
    """Fail where there is more than after the warm-up.

    Panels, and the hidden menus of their plots, are built when they are first shown and then kept: of widgets, only
    what grew from the first rest to the second and again to the third counts.
    """
    first, second, last = rests
    print(f"seed {monkey.seed}, {monkey.done} actions: {first.words()} -> {last.words()}")
    windows = (second.windows - first.windows) & (last.windows - second.windows)
    assert not windows, monkey.story(f"more windows each time: {windows}")
    more = {
        kind: (getattr(first, kind), getattr(last, kind))
        for kind in ("timers", "threads", "processes")
        if getattr(last, kind) > getattr(first, kind)
    }
    assert not more, monkey.story(f"grown: {more}")
    widgets = (second.widgets - first.widgets) & (last.widgets - second.widgets)
    assert sum(widgets.values()) <= ONE_NOTICE, monkey.story(f"more widgets each time: {widgets}")
    grown = last.memory_mb - first.memory_mb
    assert grown < MEMORY_MB, monkey.story(f"{grown:.0f} MB more memory")


def soak_recorded(
    make_window: Callable[[Any], MainWindow],
    wrong_files: list[str],
    tmp_path: Path,
    patch: pytest.MonkeyPatch,
    seed: int,
    warm: int,
    actions: int,
) -> None:
    good = [str(tmp_path / name) for name in ("net.onnx", "other.onnx", "small.onnx")]
    for path in good:
        Path(path).write_bytes(b"x" * 5000)
    engine = MoodyEngine(random.Random(seed))
    window = make_window(engine)

    def turn() -> None:
        engine.step()
        QCoreApplication.processEvents()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)

    def settle() -> None:
        engine.calm = True
        for _ in range(12):
            turn()
        engine.calm = False

    with Monkey(window, seed, tmp_path, good + good + wrong_files, turn, styles=actions > 100) as monkey:
        answer_dialogs(monkey, patch)
        window.commands.open_model(good[0], "digits")
        build_late(window)
        settle()
        monkey.run(warm)
        rests = [rest(window, good[0], settle)]
        for _ in range(2):
            monkey.run(actions // 2)
            rests.append(rest(window, good[0], settle))
        monkey.check()
    compare(monkey, rests)


def test_sixty_random_actions_leave_nothing_behind(
    make_window: Callable[[Any], MainWindow], wrong_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soak_recorded(make_window, wrong_files, tmp_path, monkeypatch, SEED, 20, 40)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [SEED + n for n in range(3)])
def test_a_thousand_random_actions_leave_nothing_behind(
    make_window: Callable[[Any], MainWindow],
    wrong_files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    soak_recorded(make_window, wrong_files, tmp_path, monkeypatch, seed, 250, 1000)


@pytest.mark.soak
def test_random_actions_with_the_real_engine_leave_nothing_behind(
    make_window: Callable[[Any], MainWindow],
    wrong_files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: Any,
) -> None:
    samples = {sample.path.name: sample.path for sample in sample_models()}
    if "digits_mlp.onnx" not in samples:
        pytest.skip("the sample models are not there: run sample_models/train.py")
    good = [str(shutil.copy(samples[name], tmp_path / name)) for name in ("digits_mlp.onnx", "digits_cnn.onnx")]
    engine = ProcessEngine(threads=1)
    window = make_window(engine)
    session = window.session

    def turn() -> None:
        qtbot.wait(30)

    def settle() -> None:
        quiet = lambda: not session.work and session.running is None and not session.opening  # noqa: E731
        qtbot.waitUntil(quiet, timeout=PATIENCE_MS)
        QCoreApplication.processEvents()

    with Monkey(window, SEED, tmp_path, good + good + good + wrong_files, turn) as monkey:
        answer_dialogs(monkey, monkeypatch)
        window.commands.open_model(good[0], "digits")
        build_late(window)
        settle()
        monkey.run(100)
        rests = [rest(window, good[0], settle)]
        for _ in range(2):
            monkey.run(150)
            rests.append(rest(window, good[0], settle))
        monkey.check()
    compare(monkey, rests)


@pytest.mark.parametrize("fault", ["an exception in a slot", "a warning of Qt"])
def test_a_fault_ends_the_series_with_its_seed(qtbot: Any, tmp_path: Path, fault: str) -> None:
    """Look at the watchman: what nobody would notice must not pass."""
    window = QWidget()
    qtbot.addWidget(window)
    window.show()

    def fail() -> None:
        if fault == "a warning of Qt":
            qWarning("a warning of Qt")
        else:
            raise ValueError(fault)

    with Monkey(window, 7, tmp_path, [], lambda: None) as monkey:  # type: ignore[arg-type]
        QTimer.singleShot(0, fail)
        QCoreApplication.processEvents()
        with pytest.raises(FaultError, match=rf"{fault}\n(.|\n)*seed 7, action 0"):
            monkey.check()
        monkey.check()
