"""The settings of a search as a form; each value goes to the session at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import QCheckBox, QComboBox, QFrame, QGridLayout, QHBoxLayout, QLabel, QLineEdit, QWidget

from qstudio.core.errors import UserError
from qstudio.core.search import RESOURCES
from qstudio.core.search_settings import COUPLINGS, DAMAGES, SOLVERS
from qstudio.session.session import Session
from qstudio.ui.bit_toggles import BitToggles
from qstudio.ui.number_box import NumberBox
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

WIDTHS = (16, 8, 7, 6, 5, 4, 3, 2, 1)
OFF = "no limit"


@dataclass(frozen=True)
class LimitField:
    """A limit as it is typed."""

    resource: str
    """Of `RESOURCES`; "drop" for the largest loss of accuracy."""
    title: str
    help: str
    scale: float = 1.0
    """What is typed is multiplied by it."""


LIMITS: tuple[LimitField, ...] = (
    LimitField("average_bits", "average bits", "Mean bits of a weight, over all weights, kept ones included"),
    LimitField("size_bytes", "size, KB", "Bytes of all parameters: packed weights, scales, zero points", 1024.0),
    LimitField(
        "bops",
        "BOPS, 10⁶",
        "Bit operations of one sample: MACs x bits of the weight x bits of what the layer reads (HAWQ-V3)",
        1e6,
    ),
    LimitField(
        "latency_ms",
        "latency, ms",
        "One run on this machine: float's latency plus what each layer gains or loses, every layer timed alone in"
        " onnxruntime. Only 8-bit layers run in integers: fewer bits are not faster here",
    ),
    LimitField(
        "drop",
        "largest drop",
        "Points of top-1 that may be lost (of agreement with float, without labels), measured; the cheapest recipe of"
        " the front within it is chosen",
    ),
)

TITLES = {
    "kl": "KL divergence",
    "loss": "loss",
    "agreement": "agreement",
    "sqnr": "noise of the output",
    "hessian": "Hessian",
    "exact": "exact",
    "greedy": "greedy",
    "none": "not coupled",
    "activations": "activations that meet",
    "both": "activations and weights",
    "average_bits": "average bits",
    "size_bytes": "size",
    "bops": "BOPS",
    "latency_ms": "latency",
}


class SearchForm(QFrame):
    """Limits, candidates, how they are compared, what is kept."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._lens = session.search
        self.setProperty("role", "surface")
        self.message = QLabel()
        self.message.setProperty("role", "worse")
        self.message.setWordWrap(True)
        self.message.hide()
        self.limits: dict[str, NumberBox] = {}
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(12, 4, 12, 8)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(6)
        for column in (1, 3):
            self._grid.setColumnStretch(column, 1)
        self._headings: list[QLabel] = []
        self._build()
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()
        self.show_settings()

    # ---- making

    def _build(self) -> None:
        self._heading(tr("Limits, any mix"))
        for number, field in enumerate(LIMITS):
            box = self.limits[field.resource] = NumberBox(0.0, 1e9, lowest_text=tr(OFF))
            box.valueChanged.connect(self._on_limit)
            self._place(tr(field.title), box, tr(field.help), number % 2)
        self._heading(tr("Candidates"))
        self.weights = BitToggles(tr("Weight bits"), WIDTHS, tr("Weights of every free layer"))
        self.weights.chosen.connect(self._on_weights)
        self._place(tr("weights"), self.weights, tr("Bits every free weight can take"), 0, wide=True)
        self.activations = BitToggles(tr("Activation bits"), WIDTHS, tr("Outputs of every free layer"))
        self.activations.chosen.connect(self._on_activations)
        told = tr("Bits every free activation can take; none = as the recipe says")
        self._place(tr("activations"), self.activations, told, 0, wide=True)
        self.keep_ends = QCheckBox(tr("first and last layer"))
        self.keep_ends.toggled.connect(self._on_keep_ends)
        self.kept = QLineEdit()
        self.kept.setPlaceholderText(tr("names or globs, such as conv1, blocks.0.*"))
        self.kept.editingFinished.connect(self._on_kept)
        keep = QWidget()
        row = QHBoxLayout(keep)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.keep_ends)
        row.addWidget(self.kept, 1)
        told = tr("Layers whose bits stay as the recipe says: names or globs, separated by commas")
        self.keep_ends.setToolTip(
            tr("Weights of the first and last layer, and the tensors they read, keep the recipe's bits")
        )
        self.kept.setToolTip(told)
        self.kept.setAccessibleName(tr("Layers that are kept"))
        self._place(tr("keep"), keep, told, 0, wide=True)
        self._heading(tr("Comparing"))
        self.damage = self._combo("damage", DAMAGES, tr("automatic"))
        self._place(tr("damage"), self.damage, self.damage.toolTip(), 0)
        self.solver = self._combo("solver", SOLVERS)
        self._place(tr("solver"), self.solver, self.solver.toolTip(), 1)
        self.couple = self._combo("couple", COUPLINGS)
        self._place(tr("coupled"), self.couple, self.couple.toolTip(), 0)
        self.axis = self._combo("axis", RESOURCES, tr("as the first limit"))
        self._place(tr("front along"), self.axis, self.axis.toolTip(), 1)
        self.counts: dict[str, NumberBox] = {}
        for number, (name, title, told) in enumerate(
            (
                ("damage_samples", tr("compare on"), tr("Calibration samples on which candidates are measured")),
                (
                    "front_samples",
                    tr("measure on"),
                    tr("Evaluation samples that measure the front"),
                ),
                (
                    "front_points",
                    tr("points"),
                    tr("Budgets, lowest to highest; the best recipe of each is kept"),
                ),
            )
        ):
            box = self.counts[name] = NumberBox(2 if name == "front_points" else 1, 1e7, True)
            box.setObjectName(name)
            box.valueChanged.connect(self._on_count)
            self._place(title, box, told, number % 2)
        self._grid.addWidget(self.message, self._grid.rowCount(), 0, 1, 4)

    def _heading(self, text: str) -> None:
        label = QLabel(text)
        self._headings.append(label)
        self._grid.addWidget(label, self._grid.rowCount(), 0, 1, 4)

    def _place(self, title: str, widget: QWidget, told: str, column: int, wide: bool = False) -> None:
        label = QLabel(title)
        label.setProperty("role", "muted")
        label.setToolTip(told)
        label.setBuddy(widget)
        if not widget.accessibleName():
            widget.setAccessibleName(title)
        if not isinstance(widget, BitToggles):
            widget.setToolTip(told)
        row = self._grid.rowCount() - (1 if column else 0)
        self._grid.addWidget(label, row, 2 * column)
        self._grid.addWidget(widget, row, 2 * column + 1, 1, 3 if wide else 1)

    def _combo(self, field: str, meanings: dict[str, str], automatic: str = "") -> QComboBox:
        combo = QComboBox()
        combo.setObjectName(field)
        if automatic:
            combo.addItem(automatic, "")
        for value, told in meanings.items():
            combo.addItem(tr(TITLES[value]), value)
            combo.setItemData(combo.count() - 1, tr(told), Qt.ItemDataRole.ToolTipRole)
        combo.setToolTip("\n".join(f"{tr(TITLES[value])}: {tr(told)}" for value, told in meanings.items()))
        combo.activated.connect(self._on_combo)
        return combo

    def _on_theme_changed(self, _palette: object = None) -> None:
        for heading in self._headings:
            heading.setFont(theme().font("normal", bold=True))

    # ---- showing

    def show_settings(self, typed: bool = False) -> None:
        """Show what the session has.

        Args:
            typed: Also in the box that is being typed into.
        """
        settings = self._lens.settings
        limits = dict(settings.limits)
        for field in LIMITS:
            value = settings.max_drop if field.resource == "drop" else limits.get(field.resource)
            box = self.limits[field.resource]
            if typed or not box.hasFocus():  # setting a value takes away what is being typed
                with QSignalBlocker(box):
                    box.setValue((value or 0.0) / field.scale)
        self.weights.set_widths(settings.weight_bits)
        self.activations.set_widths(settings.activation_bits)
        with QSignalBlocker(self.keep_ends):
            self.keep_ends.setChecked(self._lens.keep_ends)
        if typed or not self.kept.hasFocus():
            self.kept.setText(", ".join(settings.keep_weights))
        for combo in (self.damage, self.solver, self.couple, self.axis):
            combo.setCurrentIndex(combo.findData(getattr(settings, combo.objectName())))
        for name, box in self.counts.items():
            if typed or not box.hasFocus():
                with QSignalBlocker(box):
                    box.setValue(getattr(settings, name))

    # ---- choosing

    def _choose(self, **values: Any) -> None:
        try:
            self._lens.choose(**values)
        except UserError as error:
            self.show_settings(typed=True)
            self.message.setText(error.sentence())
            self.message.show()
        else:
            self.message.hide()

    def _on_limit(self, _value: float) -> None:
        found: list[tuple[str, float]] = []
        drop: float | None = None
        for field in LIMITS:
            value = self.limits[field.resource].value() * field.scale
            if field.resource == "drop":
                drop = value or None
            elif value:
                found.append((field.resource, value))
        self._choose(limits=tuple(found), max_drop=drop)

    def _on_weights(self, widths: tuple[int, ...]) -> None:
        self._choose(weight_bits=widths)

    def _on_activations(self, widths: tuple[int, ...]) -> None:
        self._choose(activation_bits=widths)

    def _on_keep_ends(self, on: bool) -> None:
        self._choose(keep_ends=on)

    def _on_kept(self) -> None:
        names = tuple(part.strip() for part in self.kept.text().split(",") if part.strip())
        self._choose(keep_weights=names, keep_activations=names)

    def _on_combo(self, _index: int) -> None:
        combo = self.sender()
        assert isinstance(combo, QComboBox)
        self._choose(**{combo.objectName(): combo.currentData()})

    def _on_count(self, value: float) -> None:
        self._choose(**{self.sender().objectName(): round(value)})
