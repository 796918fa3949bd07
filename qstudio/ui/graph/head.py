"""What stands above the graph: the metric, the search, the key of the colours, and three buttons."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QToolButton, QVBoxLayout, QWidget

from qstudio.session.graph_metrics import METRICS
from qstudio.ui.graph.canvas import GraphCanvas
from qstudio.ui.graph.node_search import NodeSearch
from qstudio.ui.graph.scale_bar import ScaleBar
from qstudio.ui.icons import icon
from qstudio.ui.text import tr
from qstudio.ui.theme import theme


class GraphHead(QWidget):
    """Two rows that stay readable in a narrow panel."""

    metric_chosen = Signal(str)
    """Id in `METRICS`."""

    def __init__(self, canvas: GraphCanvas) -> None:
        super().__init__()
        self._metric = QComboBox()
        self._metric.setAccessibleName(tr("Colour of the nodes"))
        self._metric.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for number, metric in enumerate(METRICS):
            self._metric.addItem(tr(metric.title), metric.id)
            self._metric.setItemData(number, tr(metric.help), Qt.ItemDataRole.ToolTipRole)
        self._metric.setToolTip(tr(METRICS[0].help))
        self._metric.currentIndexChanged.connect(self._on_metric_changed)
        self.search = NodeSearch(canvas)
        self.scale = ScaleBar()
        self.operators = self._button(
            tr("Show all operators"),
            tr(
                "Show every operator that computes something, else layers only.\n"
                "Operators that pass values on unchanged (Reshape, Transpose, Flatten, ...) are part of the edges."
            ),
        )
        self.operators.setCheckable(True)
        self.blocks = self._button(tr("Open or close repeated blocks"), "")
        self.fit = self._button(
            tr("Show the whole graph"),
            tr("Show the whole graph (0). The wheel, + and - zoom; drag the ground to move, with Shift to select."),
        )
        self.fit.clicked.connect(canvas.show_everything)
        self.tell_blocks(0)
        first, second = QHBoxLayout(), QHBoxLayout()
        for row in (first, second):
            row.setSpacing(8)
        first.addWidget(self._metric, 3)
        first.addWidget(self.search, 2)
        second.addWidget(self.scale, 1)
        for button in (self.operators, self.blocks, self.fit):
            second.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 6)
        layout.setSpacing(6)
        layout.addLayout(first)
        layout.addLayout(second)

    @staticmethod
    def _button(name: str, help_: str) -> QToolButton:
        button = QToolButton()
        button.setAccessibleName(name)
        button.setToolTip(help_)
        button.setProperty("role", "flat")
        button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        return button

    def load_icons(self) -> None:
        """Draw the icons in the colours of the theme; not before the panel is shown."""
        self.operators.setIcon(icon("fa6s.circle-nodes", "muted"))
        self.blocks.setIcon(icon("fa6s.layer-group", "muted"))
        self.fit.setIcon(icon("fa6s.expand", "muted"))

    def draw_key(self, painter: QPainter, area: QRectF, zoom: float) -> None:
        """Draw the metric's name and the scale into a picture."""
        font = theme().font("small")
        font.setPixelSize(max(round(12 * zoom), 1))
        painter.setFont(font)
        painter.setPen(QColor(theme().palette.text))
        upper, lower = QRectF(area), QRectF(area)
        upper.setBottom(area.center().y())
        lower.setTop(area.center().y())
        painter.drawText(upper, Qt.AlignmentFlag.AlignCenter, self._metric.currentText())
        self.scale.draw(painter, lower, 10 * zoom)

    def choose(self, metric: str) -> None:
        """Choose a metric by its id, as if by hand."""
        self._metric.setCurrentIndex(self._metric.findData(metric))

    def tell_blocks(self, count: int) -> None:
        """Say how many repeated blocks there are."""
        self.blocks.setEnabled(count > 0)
        told = tr("Open or close repeated blocks; double-click does it for one.")
        none = tr("No repeated blocks were found in this model.")
        self.blocks.setToolTip(f"{count} {tr('blocks')}. {told}" if count else none)

    def _on_metric_changed(self, index: int) -> None:
        self._metric.setToolTip(tr(METRICS[index].help))
        self.metric_chosen.emit(METRICS[index].id)
