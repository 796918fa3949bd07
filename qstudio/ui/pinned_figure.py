"""The difference to a pinned recipe, always visible: accuracy and size since."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import QToolButton, QWidget

from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.runs.figures import rate
from qstudio.ui.text import NO_VALUE, format_bytes, format_points, tr
from qstudio.ui.theme import theme

_HELP = """\
Pin the recipe as it stands. From then on this shows what the present one differs by: accuracy on the preview samples in
points, and packed size. Press again to let go. No interval: whether it is chance, Compare tells of two runs."""


class PinnedFigure(QToolButton):
    """A button that pins and lets go, and says the difference while something is pinned."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setCheckable(True)
        self.setAutoRaise(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.toggled.connect(self._on_toggled)
        for signal in (bridge.preview_accuracy_changed, bridge.recipe_changed, bridge.model_changed):
            signal.connect(self._on_changed)
        theme().changed.connect(self._on_changed)
        self._on_changed()

    def _on_toggled(self, on: bool) -> None:
        if on and self._session.model is not None:
            self._session.preview.pin()
        else:
            self._session.preview.unpin()
        self._on_changed()

    def _on_changed(self, _value: object = None) -> None:
        previews, model = self._session.preview, self._session.model
        size = previews.pinned_size_bytes
        self.setEnabled(model is not None)
        with QSignalBlocker(self):
            self.setChecked(size is not None)
        if size is None:
            self.setText(tr("pin"))
            self.setMinimumWidth(0)
            self.setToolTip(_HELP if model is not None else tr("Open a model first"))
            self.setAccessibleName(tr("Pin the recipe to compare with"))
            return
        then, now = previews.pinned_accuracy, previews.accuracy
        before, after = (rate(a.metrics) if a is not None and a.done else None for a in (then, now))
        digits = 1 if previews.samples <= 1000 else 2
        points = NO_VALUE if before is None or after is None else format_points(after - before, digits)
        less = self._session.quantized_size_bytes() - size
        text = f"{tr('to pinned')} {points}, {'+' if less > 0 else ''}{format_bytes(less)}"
        self.setText(text)
        # As wide as its longest text, so that what stands beside it keeps its place.
        longest = f"{tr('to pinned')} -88.88, -888 KB"
        self.setMinimumWidth(self.fontMetrics().horizontalAdvance(longest) + theme().px(12))
        self.setToolTip(_HELP)
        self.setAccessibleName(text)
