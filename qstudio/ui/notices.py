"""Notices over the lower right corner: a sentence, details one click away, never modal, moving nothing else."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal
from PySide6.QtGui import QEnterEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from qstudio.session.options import Notice
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

SHOWN_AT_ONCE = 3
INFO_MS = 8000
"""A notice that only informs goes away by itself after this long; warnings and errors stay."""

WIDTH_PX = 560

LEVEL_WORDS = {"info": "Note", "warning": "Look", "error": "Error"}


class NoticeCard(QFrame):
    """One notice."""

    dismissed = Signal(object)
    action_wanted = Signal(str)

    def __init__(self, notice: Notice, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.notice = notice
        self.setProperty("role", f"notice-{notice.level}")
        self.setAccessibleName(f"{tr(LEVEL_WORDS.get(notice.level, 'Note'))}: {notice.text}")
        level = QLabel(tr(LEVEL_WORDS.get(notice.level, "Note")))
        level.setFont(theme().font("normal", bold=True))
        self._text = QLabel(notice.text)
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setWordWrap(True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._text.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.details = QPushButton(tr("Details"))
        self.details.setProperty("role", "flat")
        self.details.setCheckable(True)
        self.details.setToolTip(tr("Show the technical details"))
        self.details.setVisible(bool(notice.details))
        self.close_button = QPushButton(tr("Dismiss"))
        self.close_button.setProperty("role", "flat")
        self.close_button.setToolTip(tr("Take this notice away"))
        self.close_button.setAccessibleName(tr("Dismiss notice"))
        self._more = QPlainTextEdit(notice.details)
        self._more.setReadOnly(True)
        self._more.setAccessibleName(tr("Details"))
        self._more.setFixedHeight(theme().px(160))
        self._more.hide()
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(level)
        row.addWidget(self._text, 1)
        if notice.action is not None:
            button = QPushButton(tr(notice.action[1]))
            button.setToolTip(tr("Do this now"))
            button.clicked.connect(self._on_action)
            row.addWidget(button)
        row.addWidget(self.details)
        row.addWidget(self.close_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 6, 8, 6)
        layout.addLayout(row)
        layout.addWidget(self._more)
        self.details.toggled.connect(self._more.setVisible)
        self.close_button.clicked.connect(self._on_close)

    def _on_close(self) -> None:
        self.dismissed.emit(self)

    def _on_action(self) -> None:
        if self.notice.action is not None:
            self.action_wanted.emit(self.notice.action[0])
        self.dismissed.emit(self)


class NoticeBar(QWidget):
    """The newest notices over the lower right corner of `host`; hidden while there is none.

    They lie over the panels instead of between them: one that comes or goes by itself must not move what somebody is
    about to click.
    """

    action_wanted = Signal(str)
    """Id of an action that a notice offers."""

    def __init__(self, bridge: SessionBridge, host: QWidget) -> None:
        super().__init__(host)
        self._host = host
        host.installEventFilter(self)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(8)
        self._cards: list[NoticeCard] = []
        self._timer = QTimer(self)
        self._timer.setInterval(INFO_MS)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._drop_infos)
        bridge.notice_posted.connect(self.post)
        self.hide()

    @property
    def cards(self) -> tuple[NoticeCard, ...]:
        """The notices shown, newest first."""
        return tuple(self._cards)

    def post(self, notice: Notice) -> None:
        """Show a notice at the top; the same one twice is shown once."""
        for card in self._cards:
            if card.notice == notice:
                self.dismiss(card)
                break
        card = NoticeCard(notice, self)
        card.dismissed.connect(self.dismiss)
        card.action_wanted.connect(self.action_wanted)
        self._cards.insert(0, card)
        self._layout.insertWidget(0, card)
        card.show()  # before the room is reckoned: a layout leaves out what is not shown yet
        while len(self._cards) > SHOWN_AT_ONCE:
            self.dismiss(self._cards[-1])
        if notice.level == "info":
            self._timer.start()
        card.details.toggled.connect(self._on_card_changed)
        self.show()
        self._place()

    def dismiss(self, card: NoticeCard) -> None:
        """Take a notice away."""
        if card in self._cards:
            self._cards.remove(card)
            self._layout.removeWidget(card)
            card.hide()
            card.deleteLater()
        if not self._cards:
            self.hide()
        else:
            self._place()

    def _on_card_changed(self, _open: bool) -> None:
        self._place()

    def _place(self) -> None:
        """Stand in the corner, as wide as the sentences need up to a limit."""
        margin = theme().px(16)
        width = min(theme().px(WIDTH_PX), self._host.width() - 2 * margin)
        layout = self.layout()
        if layout is not None:
            layout.activate()
        height = min(self._layout.heightForWidth(width), self._host.height() - 2 * margin)
        self.setGeometry(self._host.width() - width - margin, self._host.height() - height - margin, width, height)
        self.raise_()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the host's size."""
        if event.type() == QEvent.Type.Resize and self._cards:
            self._place()
        return super().eventFilter(watched, event)

    def enterEvent(self, event: QEnterEvent) -> None:
        """Let nothing go away while somebody reads it."""
        self._timer.stop()
        super().enterEvent(event)

    def leaveEvent(self, event: QEvent) -> None:
        """Let notices that only inform go again."""
        if any(card.notice.level == "info" for card in self._cards):
            self._timer.start()
        super().leaveEvent(event)

    def _drop_infos(self) -> None:
        for card in tuple(self._cards):
            if card.notice.level == "info" and card.notice.action is None:
                self.dismiss(card)
