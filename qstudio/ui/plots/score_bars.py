"""Scores of a sample's best classes, float beside quantized."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QRect, QRectF, QSize, Qt
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import QWidget

from qstudio.ui.plots.painted import Painted
from qstudio.ui.plots.take_away import Column
from qstudio.ui.text import format_value, tr
from qstudio.ui.theme import Palette, theme

ROW_PX = 26
HEAD_PX = 18
NAME_SHARE = 0.34


@dataclass(frozen=True)
class Score:
    """One class."""

    name: str
    float_score: float
    quantized_score: float
    is_label: bool = False
    """Whether it is the sample's true class."""
    float_first: bool = False
    """Whether it is the float network's class."""
    quantized_first: bool = False
    """Whether it is the quantized network's class."""


class ScoreBars(Painted):
    """Two bars for each class: above what float says, below what quantized says."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(name, parent)
        self.scores: tuple[Score, ...] = ()
        self.in_percent = True
        """Whether the scores are probabilities."""
        self.faded = False
        """Whether the scores are of something that has changed since."""

    def set_scores(self, scores: tuple[Score, ...], in_percent: bool = True, faded: bool = False) -> None:
        """Show these classes, in this order.

        Args:
            scores: Probabilities in 0..1, or outputs in their own units.
            in_percent: Whether they are probabilities.
            faded: Whether they are of something that has changed since.
        """
        self.scores, self.in_percent, self.faded = scores, in_percent, faded
        self.setAccessibleDescription("; ".join(self.words(score) for score in scores))
        self.refresh()

    def words(self, score: Score) -> str:
        """Return a class and its two scores in words."""
        before, after = self._text(score.float_score), self._text(score.quantized_score)
        return f"{score.name}: {tr('float')} {before}, {tr('quantized')} {after}"

    def _text(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.in_percent else format_value(value)

    def sizeHint(self) -> QSize:
        """Ask for the room of five classes."""
        return QSize(theme().px(240), theme().px(HEAD_PX + 5 * ROW_PX + 4))

    def whole_size(self) -> QSize:
        """Return the size of all rows at the viewport's width."""
        height = theme().px(HEAD_PX) + len(self.scores) * theme().px(ROW_PX)
        return QSize(self.viewport().width(), max(height, 1))

    def paint(self, painter: QPainter, seen: QRect, size: QSize) -> None:
        """Paint the rows that are seen."""
        palette = theme().palette
        painter.setFont(theme().font("small"))
        head, row_px, pad = theme().px(HEAD_PX), theme().px(ROW_PX), theme().px(6)
        self._paint_legend(painter, QRect(0, 0, size.width(), head), palette)
        painter.setOpacity(0.4 if self.faded else 1.0)
        longest = max(
            (abs(v) for score in self.scores for v in (score.float_score, score.quantized_score)), default=0.0
        )
        reach = 1.0 if self.in_percent else longest or 1.0
        metrics = painter.fontMetrics()
        figures = metrics.horizontalAdvance("100.0 %") if self.in_percent else metrics.horizontalAdvance("-0.0001234")
        names = [f"{score.name} ✓" if score.is_label else score.name for score in self.scores]
        longest_name = max((metrics.horizontalAdvance(name) for name in names), default=0) + 2 * pad
        start = min(longest_name, round(NAME_SHARE * size.width()))
        room = max(size.width() - start - figures - 2 * pad, 8)
        for number, (score, name) in enumerate(zip(self.scores, names, strict=True)):
            top = head + number * row_px
            painter.setPen(palette.color("text"))
            words = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, start - pad)
            painter.drawText(QRect(0, top, start - pad, row_px), Qt.AlignmentFlag.AlignVCenter, words)
            half = (row_px - theme().px(4)) / 2
            for place, (value, colour, first) in enumerate(
                (
                    (score.float_score, "float", score.float_first),
                    (score.quantized_score, "quantized", score.quantized_first),
                )
            ):
                y = top + theme().px(2) + place * half
                length = max(room * min(abs(value) / reach, 1.0), 1.0)
                painter.fillRect(QRectF(start, y, length, half - 1), palette.color(colour))
                painter.setPen(palette.color("text" if first else "muted"))
                painter.setFont(theme().font("small", first))
                box = QRectF(size.width() - figures - pad, y - 2, figures + pad, half + 3)
                painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, self._text(value))
                painter.setFont(theme().font("small"))
        painter.setOpacity(1.0)

    @staticmethod
    def _paint_legend(painter: QPainter, rect: QRect, palette: Palette) -> None:
        x = rect.left()
        for colour, words in (("float", tr("float")), ("quantized", tr("quantized"))):
            painter.fillRect(
                QRect(x, rect.center().y() - theme().px(3), theme().px(8), theme().px(8)), palette.color(colour)
            )
            painter.setPen(palette.color("muted"))
            x += theme().px(12)
            painter.drawText(rect.adjusted(x, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, words)
            x += painter.fontMetrics().horizontalAdvance(words) + theme().px(12)

    def columns(self) -> tuple[Column, ...]:
        """Return the classes with both scores."""
        return (
            (tr("class"), [score.name for score in self.scores]),
            (tr("float"), [score.float_score for score in self.scores]),
            (tr("quantized"), [score.quantized_score for score in self.scores]),
        )
