"""The log drawer: what the engine processes print, and faults of the window; errors are marked."""

from __future__ import annotations

import re

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import (
    QFont,
    QFontDatabase,
    QGuiApplication,
    QShowEvent,
    QSyntaxHighlighter,
    QTextBlock,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
)
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from qstudio.core.results import Device
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.environment import details_text
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

LINES_KEPT = 5000

COUNT_MS = 100
"""Errors are counted this long after a line has come: a process that prints fast must not keep the window busy."""

ERROR = re.compile(r"Traceback \(most|\b\w*(?:Error|Exception)\b|\berror:|\bfatal\b|\[[EF]:onnxruntime|\bERROR\b", re.A)
"""What makes a line an error: exceptions of Python, messages of onnxruntime of level E and F, the usual words."""

_TRACE, _ERROR, _PLAIN = 2, 1, 0
"""States of a line: inside a traceback, the first line of an error, none."""


class ErrorMarks(QSyntaxHighlighter):
    """Shows lines that tell of an error bold and in the colour of "worse"; a traceback up to its last line."""

    def __init__(self, document: QTextDocument) -> None:
        super().__init__(document)
        self._format = QTextCharFormat()
        self.recolour()

    def recolour(self) -> None:
        """Take the colours of the theme."""
        self._format.setForeground(theme().palette.color("worse"))
        self._format.setFontWeight(QFont.Weight.Bold)
        self.rehighlight()

    def highlightBlock(self, text: str) -> None:
        """Mark one line."""
        rest = text.partition(": ")[2]
        if self.previousBlockState() == _TRACE:
            # The lines of a traceback are indented; the first one that is not names the exception.
            state = _TRACE if rest.startswith(" ") or not rest else _ERROR
            marked = True
        elif "Traceback (most" in text:
            state, marked = _TRACE, True
        else:
            marked = ERROR.search(text) is not None
            state = _ERROR if marked else _PLAIN
        self.setCurrentBlockState(state)
        if marked:
            self.setFormat(0, len(text), self._format)


class LogDrawer(QWidget):
    """Lines in the order they came, old ones go; errors marked, follow, clear, copy with versions and platform."""

    def __init__(self, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._devices: tuple[Device, ...] = ()
        self.edit = QPlainTextEdit()
        self.edit.setReadOnly(True)
        self.edit.setMaximumBlockCount(LINES_KEPT)
        self.edit.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.edit.setAccessibleName(tr("Log"))
        self.edit.setToolTip(tr("What the engine processes print, newest last; errors are bold"))
        self.edit.setPlaceholderText(tr("Nothing has been logged yet"))
        self.edit.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.setFocusProxy(self.edit)
        self._marks = ErrorMarks(self.edit.document())
        self._counting = QTimer(self)
        self._counting.setSingleShot(True)
        self._counting.setInterval(COUNT_MS)
        self._counting.timeout.connect(self._count)
        self.errors = QLabel()
        self.errors.setAccessibleName(tr("Errors in the log"))
        self.errors.setToolTip(tr("Errors among the lines below; a traceback counts once"))
        self.next_error = self._button("Next error", "Go to the next line that tells of an error, from the top again")
        self.follow = QCheckBox(tr("Follow"))
        self.follow.setChecked(True)
        self.follow.setToolTip(tr("Keep the newest line in sight"))
        self.clear_button = self._button("Clear", "Empty the log; runs and notices stay")
        self.copy_details = self._button(
            "Copy details", "Copy the log with versions, system, processor and devices, to report a fault"
        )
        row = QHBoxLayout()
        row.setContentsMargins(8, 2, 8, 2)
        row.setSpacing(12)
        title = QLabel(tr("Log"))
        title.setProperty("role", "heading")
        row.addWidget(title)
        row.addWidget(self.errors)
        row.addWidget(self.next_error)
        row.addStretch(1)
        for widget in (self.follow, self.clear_button, self.copy_details):
            row.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(row)
        layout.addWidget(self.edit, 1)
        self.next_error.clicked.connect(self._on_next_error)
        self.follow.toggled.connect(self._on_follow)
        self.clear_button.clicked.connect(self.clear)
        self.copy_details.clicked.connect(self._on_copy)
        bridge.log_added.connect(self.add)
        bridge.devices_changed.connect(self._on_devices)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed(None)
        self._count()

    def _button(self, text: str, tooltip: str) -> QPushButton:
        button = QPushButton(tr(text))
        button.setProperty("role", "flat")
        button.setToolTip(tr(tooltip))
        button.setAutoDefault(False)
        return button

    # ---- lines

    def add(self, line: str) -> None:
        """Append one line."""
        bar = self.edit.verticalScrollBar()
        place = bar.value()
        self.edit.appendPlainText(line.rstrip("\n"))
        bar.setValue(bar.maximum() if self.follow.isChecked() else place)
        if self.isVisible() and not self._counting.isActive():
            self._counting.start()

    def showEvent(self, event: QShowEvent) -> None:
        """Count what came while the drawer was closed."""
        super().showEvent(event)
        self._count()
        self._on_follow(self.follow.isChecked())

    def clear(self) -> None:
        """Empty the log."""
        self.edit.clear()
        self._count()

    def toPlainText(self) -> str:
        """Return the lines."""
        return self.edit.toPlainText()

    @property
    def error_lines(self) -> tuple[int, ...]:
        """Numbers of the lines, from 0, at which an error begins."""
        found = []
        block, inside = self.edit.document().begin(), False
        while block.isValid():
            state = block.userState()
            if state in (_ERROR, _TRACE) and not inside:
                found.append(block.blockNumber())
            inside = state == _TRACE
            block = block.next()
        return tuple(found)

    def _count(self) -> None:
        count = len(self.error_lines)
        self.errors.setText(tr("1 error") if count == 1 else tr("{n} errors").format(n=f"{count:,}"))
        self.errors.setProperty("role", "worse" if count else "muted")
        self.errors.style().polish(self.errors)
        self.next_error.setEnabled(bool(count))

    # ---- the person

    def _on_next_error(self) -> None:
        lines = self.error_lines
        if not lines:
            return
        at = self.edit.textCursor().blockNumber() if self.edit.textCursor().hasSelection() else -1
        line = next((line for line in lines if line > at), lines[0])
        self.follow.setChecked(False)
        block: QTextBlock = self.edit.document().findBlockByNumber(line)
        cursor = QTextCursor(block)
        cursor.select(QTextCursor.SelectionType.LineUnderCursor)
        self.edit.setTextCursor(cursor)
        self.edit.centerCursor()

    def _on_follow(self, on: bool) -> None:
        if on:
            self.edit.verticalScrollBar().setValue(self.edit.verticalScrollBar().maximum())

    def _on_copy(self) -> None:
        log = self.toPlainText() or tr("Nothing has been logged yet")
        QGuiApplication.clipboard().setText(f"{details_text(self._devices)}\n\n{log}\n")

    def _on_devices(self, devices: tuple[Device, ...]) -> None:
        self._devices = devices

    def _on_theme_changed(self, _palette: object) -> None:
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPointSizeF(theme().font("normal").pointSizeF())
        self.edit.setFont(font)
        self._marks.recolour()
