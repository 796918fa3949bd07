"""A person who does anything at all with the window: seeded, with real events on real widgets."""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from PySide6.QtCore import QAbstractListModel, QEvent, QPoint, QPointF, Qt, QTimer, qInstallMessageHandler
from PySide6.QtGui import QContextMenuEvent, QKeyEvent, QKeySequence, QMouseEvent, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialog,
    QFileDialog,
    QHeaderView,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QScrollBar,
    QSlider,
    QSplitterHandle,
    QTabBar,
    QWidget,
)
from shiboken6 import isValid

from qstudio.ui.main_window import MainWindow
from qstudio.ui.panels import PERSPECTIVES

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
PLAIN = Qt.KeyboardModifier.NoModifier
KEYS = (
    *(getattr(Qt.Key, f"Key_{name}") for name in (
        "Up", "Down", "Left", "Right", "Home", "End", "PageUp", "PageDown", "Tab", "Backtab", "Return", "Escape",
        "Space", "Delete", "Backspace", "F1", "F2", "Slash", "Question", "Plus", "Minus", "F", "A", "2", "4", "8", "0",
    )),
)  # fmt: skip
MODIFIERS = (PLAIN, PLAIN, PLAIN, Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier)
TEXTS = ("", "0", "-1", "4", "8", "3.5", "1e9", "1e-300", "nan", "inf", "conv", "[", "(", "*", "\\", "é漢", "x" * 300)
SIZES = ((960, 600), (1024, 640), (1280, 720), (1600, 900), (1920, 1080))
HARMLESS = ("This plugin does not support",)
"""What Qt says of a platform without a screen."""
PATIENCE_S = 0.25
"""How long a menu or a dialog may hold an action up before it is closed from within."""


class FaultError(AssertionError):
    """Something went wrong in the window."""


class Monkey:
    """Acts on a window, a step at a time; what goes wrong ends it with the seed and the last actions."""

    def __init__(
        self,
        window: MainWindow,
        seed: int,
        folder: Path,
        files: list[str],
        turn: Callable[[], None],
        styles: bool = True,
    ) -> None:
        """Act on `window`; `files` are what file dialogs are answered with, `turn` lets the program work.

        Without `styles` theme and zoom stay: each change styles all widgets anew, which takes most of a short run.
        """
        self.window = window
        self.rng = random.Random(seed)
        self.seed = seed
        self.done = 0
        self._folder = folder
        self._files = files
        self._kept = ("quit",) if styles else ("quit", "theme_", "zoom_")
        self._turn = turn
        self._last: deque[str] = deque(maxlen=20)
        self._faults: list[str] = []
        self._since = 0.0
        self._guard = QTimer()
        self._guard.setInterval(50)
        self._guard.timeout.connect(self._end_nested)
        self._moves: tuple[tuple[int, Callable[[], str]], ...] = (
            (18, self._action),
            (26, self._click),
            (14, self._keys),
            (10, self._edit),
            (10, self._drag),
            (4, self._wheel),
            (5, self._context_menu),
            (4, self._hover),
            (4, self._perspective),
            (3, self._resize),
            (2 if styles else 0, self._theme),
            (3, self._open),
            (2, self._project),
        )

    # ---- watching

    def __enter__(self) -> Monkey:
        self._hook, sys.excepthook = sys.excepthook, self._on_exception
        self._handler = qInstallMessageHandler(self._on_message)
        self._guard.start()
        return self

    def __exit__(self, *_told: object) -> None:
        self._guard.stop()
        sys.excepthook = self._hook
        qInstallMessageHandler(self._handler)

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._faults.append("".join(traceback.format_exception(kind, error, trace)))

    def _on_message(self, kind: Any, _context: Any, text: str) -> None:
        if kind.name in ("QtWarningMsg", "QtCriticalMsg", "QtFatalMsg") and not text.startswith(HARMLESS):
            self._faults.append(f"Qt said: {text}")

    def check(self) -> None:
        """Raise what went wrong since the last look.

        Raises:
            FaultError: With the seed, the number of the action, and the last 20 actions.
        """
        if not self.window.isVisible():
            self._faults.append("the window was closed")
        if self._faults:
            faults, self._faults = self._faults, []
            raise FaultError(self.story("\n".join(faults)))

    def story(self, what: str) -> str:
        """Return words that let a failure be repeated."""
        actions = "\n  ".join(self._last)
        return f"{what}\nseed {self.seed}, action {self.done}; the last actions:\n  {actions}"

    def _end_nested(self) -> None:
        """Close a menu or dialog that runs its own event loop within an action."""
        if self._since and time.monotonic() - self._since > PATIENCE_S:
            within = QApplication.activePopupWidget() or QApplication.activeModalWidget()
            if within is not None:
                within.close()

    # ---- acting

    def step(self) -> None:
        """Do one thing and let the program answer."""
        self.done += 1
        self._since = time.monotonic()
        try:
            said = self._popup() or self._dialog() or self._free()
        except Exception as error:
            raise FaultError(self.story(f"{type(error).__name__}: {error}")) from error
        finally:
            self._since = 0.0
        self._last.append(said)
        self._turn()
        self.check()

    def run(self, actions: int) -> None:
        """Do a number of things."""
        for _ in range(actions):
            self.step()

    def _free(self) -> str:
        weights, moves = zip(*self._moves, strict=True)
        move = self.rng.choices(moves, weights)[0]
        self._last.append(f"({move.__name__})")
        return move()

    def _popup(self) -> str:
        popup = QApplication.activePopupWidget()
        if popup is None:
            return ""
        if isinstance(popup, QMenu):
            actions = [action for action in popup.actions() if action.isEnabled() and not action.isSeparator()]
            if actions and self.rng.random() < 0.7:
                action = self.rng.choice(actions)
                said = f"menu: {action.text()} of {popup.parent()}"
                self._last.append(said)
                if action.menu() is None:
                    if not action.objectName().startswith(self._kept):
                        action.trigger()
                    if isValid(popup):
                        popup.close()
                else:
                    popup.setActiveAction(action)
                    QTest.keyClick(popup, Qt.Key.Key_Right)
                return said
            QTest.keyClick(popup, Qt.Key.Key_Escape)
            if isValid(popup) and popup.isVisible():
                popup.close()
            return "menu closed"
        key = self.rng.choice((Qt.Key.Key_Escape, Qt.Key.Key_Return, Qt.Key.Key_Down, Qt.Key.Key_Up))
        said = f"{key.name} in {_name(popup)}"
        self._last.append(said)
        QTest.keyClick(QApplication.focusWidget() if popup.isAncestorOf(QApplication.focusWidget()) else popup, key)
        if isValid(popup) and popup.isVisible() and self.rng.random() < 0.5:
            popup.close()
        return said

    def _dialog(self) -> str:
        dialogs = [w for w in QApplication.topLevelWidgets() if isinstance(w, QDialog) and w.isVisible()]
        modal = QApplication.activeModalWidget()
        if not dialogs or (modal is None and self.rng.random() < 0.5):
            return ""
        dialog = modal or self.rng.choice(dialogs)
        if isinstance(dialog, QFileDialog):
            path = self._answer(dialog.acceptMode() is QFileDialog.AcceptMode.AcceptSave, dialog.defaultSuffix())
            said = f"{dialog.windowTitle()}: {path or 'closed'}"
            self._last.append(said)
            if path:
                dialog.fileSelected.emit(path)
            if isValid(dialog):
                dialog.close()
            return said
        if self.rng.random() < 0.4:
            said = f"{dialog.windowTitle()} closed"
            dialog.close()
            return said
        return self.rng.choice((self._click, self._edit, self._keys))(dialog)

    def _answer(self, saving: bool, suffix: str) -> str:
        chance = self.rng.random()
        if chance < 0.25:
            return ""
        if saving:
            place = self._folder / ("missing" if chance > 0.9 else "")
            return str(place / f"saved-{self.rng.randrange(3)}.{suffix or 'png'}")
        return self.rng.choice(self._files)

    def save_name(self, *_told: Any, **_named: Any) -> tuple[str, str]:
        """Answer a dialog for a file to write."""
        return self._answer(True, str(_told[2]).rpartition(".")[2] if len(_told) > 2 else "csv"), ""

    def open_name(self, *_told: Any, **_named: Any) -> tuple[str, str]:
        """Answer a dialog for a file to read."""
        return self._answer(False, ""), ""

    def folder_name(self, *_told: Any, **_named: Any) -> str:
        """Answer a dialog for a folder."""
        return self.rng.choice(("", str(self._folder)))

    # ---- single things

    def _pick(self, kinds: tuple[type, ...] = (QWidget,), root: QWidget | None = None) -> QWidget | None:
        """Return a widget that can be seen and used; every class has the same chance."""
        by_class: dict[str, list[QWidget]] = {}
        for widget in (root or self.window).findChildren(QWidget):
            if isinstance(widget, kinds) and widget.isVisible() and widget.isEnabled() and widget.width() > 3:
                by_class.setdefault(type(widget).__name__, []).append(widget)
        names = sorted(by_class)
        self.rng.shuffle(names)
        for name in names:
            found = self.rng.choice(by_class[name])
            if not found.visibleRegion().isEmpty() and found.height() > 3:
                return found
        return None

    def _spot(self, widget: QWidget) -> QPoint:
        seen = widget.visibleRegion().boundingRect()
        return QPoint(
            seen.left() + self.rng.randrange(max(seen.width(), 1)),
            seen.top() + self.rng.randrange(max(seen.height(), 1)),
        )

    def _action(self) -> str:
        actions = [
            a for a in self.window.actions_table.all() if a.isEnabled() and not a.objectName().startswith(self._kept)
        ]
        action = self.rng.choice(actions)
        self._last.append(f"action {action.objectName()}")
        action.trigger()
        return f"action {action.objectName()} done"

    def _click(self, root: QWidget | None = None) -> str:
        widget = self._pick(root=root)
        if widget is None:
            return "nothing to click"
        spot, modifier = self._spot(widget), self.rng.choice(MODIFIERS)
        said = f"click {_name(widget)} at {spot.x()},{spot.y()} {modifier.name}"
        self._last.append(said)
        # What lies under the pointer takes the click, as with a hand.
        target = widget.childAt(spot) or widget
        at = target.mapFrom(widget, spot)
        if self.rng.random() < 0.15:
            QTest.mouseDClick(target, LEFT, modifier, at)
        else:
            QTest.mouseClick(target, LEFT, modifier, at)
        return said

    def _keys(self, root: QWidget | None = None) -> str:
        target = QApplication.focusWidget() or self._pick(root=root) or self.window
        said = f"keys in {_name(target)}:"
        for _ in range(self.rng.randrange(1, 4)):
            key, modifier = self.rng.choice(KEYS), self.rng.choice(MODIFIERS)
            said += f" {QKeySequence(key).toString()}+{modifier.name}"
            self._last.append(said)
            if not isValid(target) or not target.isVisible():
                break
            QTest.keyClick(target, key, modifier)
        return said

    def _edit(self, root: QWidget | None = None) -> str:
        kinds = (QLineEdit, QPlainTextEdit, QComboBox, QAbstractSpinBox, QAbstractItemView, QSlider)
        widget = self._pick(kinds, root)
        if widget is None:
            return "nothing to edit"
        text = self.rng.choice(TEXTS)
        said = f"edit {_name(widget)} with {text[:20]!r}"
        self._last.append(said)
        widget.setFocus()
        if isinstance(widget, (QComboBox, QSlider)):
            for _ in range(self.rng.randrange(1, 4)):
                QTest.keyClick(widget, self.rng.choice((Qt.Key.Key_Down, Qt.Key.Key_Up, Qt.Key.Key_End)))
            return said
        if isinstance(widget, QAbstractItemView):
            return self._edit_cell(widget, text, said)
        if isinstance(widget, (QLineEdit, QAbstractSpinBox)):
            widget.selectAll()
        _type(widget, text)
        if isValid(widget):
            QTest.keyClick(widget, self.rng.choice((Qt.Key.Key_Return, Qt.Key.Key_Tab, Qt.Key.Key_Escape)))
        return said

    def _edit_cell(self, view: QAbstractItemView, text: str, said: str) -> str:
        model = view.model()
        columns = 1 if isinstance(model, QAbstractListModel) else model.columnCount() if model is not None else 0
        if not columns or not model.rowCount():
            return f"{said}: empty"
        index = model.index(self.rng.randrange(model.rowCount()), self.rng.randrange(columns))
        said += f" in cell {index.row()},{index.column()}"
        self._last.append(said)
        view.setCurrentIndex(index)
        QTest.keyClick(view, self.rng.choice((Qt.Key.Key_F2, Qt.Key.Key_Return, Qt.Key.Key_Space)))
        if not isValid(view):
            return said
        editor = QApplication.focusWidget()
        if editor is not None and editor is not view and view.isAncestorOf(editor):
            _type(editor, text[:20])
            if isValid(editor):
                QTest.keyClick(editor, self.rng.choice((Qt.Key.Key_Return, Qt.Key.Key_Escape, Qt.Key.Key_Tab)))
        return said

    def _drag(self) -> str:
        """Drag where dragging means something; texts are left out: those would start a drag and drop of the system."""
        widget = self._pick((QSplitterHandle, QHeaderView, QScrollBar, QSlider, QTabBar, QWidget))
        if widget is None:
            return "nothing to drag"
        own = type(widget).__module__.startswith("qstudio.") and not isinstance(widget, (QLineEdit, QPlainTextEdit))
        if not own and not isinstance(widget, (QSplitterHandle, QHeaderView, QScrollBar, QSlider)):
            return f"nothing to drag in {_name(widget)}"
        target = getattr(widget, "viewport", lambda: widget)()
        stops = [self._spot(target) for _ in range(self.rng.randrange(2, 6))]
        said = f"drag {_name(widget)} over {[(spot.x(), spot.y()) for spot in stops]}"
        self._last.append(said)
        _mouse(target, QEvent.Type.MouseMove, stops[0], NONE, NONE)
        _mouse(target, QEvent.Type.MouseButtonPress, stops[0], LEFT, LEFT)
        for stop in stops[1:]:
            if isValid(target):
                _mouse(target, QEvent.Type.MouseMove, stop, NONE, LEFT)
        if isValid(target):
            _mouse(target, QEvent.Type.MouseButtonRelease, stops[-1], LEFT, NONE)
        return said

    def _wheel(self) -> str:
        widget = self._pick()
        if widget is None:
            return "nothing to turn the wheel over"
        spot, modifier, turn = self._spot(widget), self.rng.choice(MODIFIERS), self.rng.choice((-480, -120, 120, 480))
        said = f"wheel {turn} over {_name(widget)} {modifier.name}"
        self._last.append(said)
        at, globally = QPointF(spot), QPointF(widget.mapToGlobal(spot))
        phase = Qt.ScrollPhase.NoScrollPhase
        QApplication.sendEvent(
            widget, QWheelEvent(at, globally, QPoint(), QPoint(0, turn), NONE, modifier, phase, False)
        )
        return said

    def _hover(self) -> str:
        widget = self._pick()
        if widget is None:
            return "nothing to point at"
        said = f"point at {_name(widget)}"
        self._last.append(said)
        for _ in range(4):
            _mouse(widget, QEvent.Type.MouseMove, self._spot(widget), NONE, NONE)
        return said

    def _context_menu(self) -> str:
        widget = self._pick()
        if widget is None:
            return "no context menu"
        spot = self._spot(widget)
        said = f"context menu of {_name(widget)} at {spot.x()},{spot.y()}"
        self._last.append(said)
        QApplication.sendEvent(
            widget, QContextMenuEvent(QContextMenuEvent.Reason.Mouse, spot, widget.mapToGlobal(spot))
        )
        return said

    def _perspective(self) -> str:
        if self.window.session.model is None:
            return "no perspective"
        name = self.rng.choice(PERSPECTIVES)
        self.window.show_perspective(name)
        return f"perspective {name}"

    def _resize(self) -> str:
        width, height = self.rng.choice(SIZES)
        self.window.resize(width, height)
        return f"resize {width}x{height}"

    def _theme(self) -> str:
        name = self.rng.choice(("theme_light", "theme_dark", "theme_system", "zoom_in", "zoom_out", "zoom_reset"))
        self.window.actions_table[name].trigger()
        return name

    def _open(self) -> str:
        path = self.rng.choice(self._files)
        self._last.append(f"open {path}")
        self.window.commands.open_path(path)
        return f"opened {path}"

    def _project(self) -> str:
        project, path = self.window.commands.project, str(self._folder / f"work-{self.rng.randrange(2)}.qsproj")
        name = self.rng.choice(("new", "open", "save_as"))
        self._last.append(f"project {name} {path}")
        if name == "new":
            project.new()
        elif name == "open":
            project.open(path)
        elif self.window.session.model is not None:
            project.save_as(path)
        return f"project {name} done"


def answer_dialogs(monkey: Monkey, patch: pytest.MonkeyPatch) -> None:
    """Answer the dialogs of the system that would hold the program up."""
    patch.setattr(QFileDialog, "getSaveFileName", monkey.save_name)
    patch.setattr(QFileDialog, "getOpenFileName", monkey.open_name)
    patch.setattr(QFileDialog, "getExistingDirectory", monkey.folder_name)


def _mouse(widget: QWidget, kind: QEvent.Type, at: QPoint, button: Qt.MouseButton, buttons: Qt.MouseButton) -> None:
    globally = QPointF(widget.mapToGlobal(at))
    QApplication.sendEvent(widget, QMouseEvent(kind, QPointF(at), globally, button, buttons, PLAIN))


def _type(widget: QWidget, text: str) -> None:
    """Type a text; `QTest.keyClicks` ends the program at letters that are not Latin."""
    for sign in text:
        for kind in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease):
            if isValid(widget):
                QApplication.sendEvent(widget, QKeyEvent(kind, Qt.Key.Key_unknown, PLAIN, sign))


def _name(widget: QWidget) -> str:
    own = widget.accessibleName() or widget.objectName()
    parent = widget.parentWidget()
    return f"{type(widget).__name__} {own!r}" + (f" in {type(parent).__name__}" if parent is not None else "")
