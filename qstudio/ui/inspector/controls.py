"""The controls of one side of a layer: bits, symmetry, granularity, calibration, clip, and where each comes from."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from qstudio.core.calibration import CALIBRATORS
from qstudio.core.formats import format_of
from qstudio.core.recipe import MOST_OUTLIERS, LayerSettings, ResolvedLayer
from qstudio.core.scheme import FLOAT_BITS, Granularity, Scheme, format_bits
from qstudio.session.readout import Readout, Side
from qstudio.ui.inspector.format_row import FormatRow
from qstudio.ui.inspector.labels import ThemedLabel
from qstudio.ui.inspector.segments import Segment, Segments
from qstudio.ui.text import NO_VALUE, tr
from qstudio.ui.theme import Palette, theme

BIT_CHOICES = (1, 2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)

DEFAULT_GROUP = 32

OUTLIER_WORDS = tr(
    "Percent of the weights, the largest by magnitude, that stay float32 (8 bytes each: position and value). "
    "The others then need a smaller range"
)

NO_CLIP = -1e9
"""The number boxes' lowest value, shown as an en-dash: there is no range."""


class PlainSpinBox(QDoubleSpinBox):
    """A number box that shows as many digits as there are, six at most."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(9)

    def textFromValue(self, value: float) -> str:
        """Return the number without trailing zeros."""
        return f"{value:.6g}"


class SchemeControls(QWidget):
    """One row for each field: its name, the control, and a button that says where the value comes from.

    That button lets the layer inherit the field again.
    """

    field_chosen = Signal(object)
    """(field name, value)."""
    clip_typed = Signal(object)
    """(low, high) from the number boxes."""
    reset_requested = Signal(object)
    """Names of the fields that shall be inherited again."""

    def __init__(self, side: Side, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.side = side
        self._loading = False
        self._parameter_words = ""
        self._origins: dict[str, QPushButton] = {}
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(theme().px(8))
        self._grid.setVerticalSpacing(theme().px(5))
        self._grid.setColumnStretch(1, 1)
        self.format = FormatRow(side, self)
        self.bits = Segments(
            tr("Bits"),
            tuple(
                Segment(
                    bits,
                    "F" if bits == FLOAT_BITS else format_bits(bits),
                    tr("Leave it in float32") if bits == FLOAT_BITS else _bit_words(bits),
                )
                for bits in BIT_CHOICES
            ),
        )
        self.symmetry = Segments(
            tr("Range"),
            (
                Segment(
                    True, tr("Symmetric"), tr("Zero point 0, the range mirrors around zero: what kernels like best")
                ),
                Segment(
                    False, tr("Asymmetric"), tr("Own ends: uses all codes where values lie on one side, as after ReLU")
                ),
            ),
        )
        self.granularity = Segments(
            tr("Scales"),
            (
                Segment("tensor", tr("Tensor"), tr("One scale for the whole weight")),
                Segment("channel", tr("Channel"), tr("One scale for each output channel")),
                Segment("group", tr("Group"), tr("One scale for each run of values inside an output channel")),
            ),
            self,
        )
        self.group_size = QSpinBox(self)
        if side == "activation":  # always one scale for the tensor: nothing to choose
            self.granularity.hide()
            self.group_size.hide()
        self.dynamic = Segments(
            tr("Scale"),
            (
                Segment(False, tr("Static"), tr("The range is calibrated before: the fastest to run")),
                Segment(
                    True,
                    tr("Dynamic"),
                    tr("The range of each batch's own values, at run time: no calibration, slower. Integers only"),
                ),
            ),
            self,
        )
        self.outliers = PlainSpinBox()
        if side == "weight":
            self.dynamic.hide()
        else:
            self.outliers.hide()
            self.outliers.setParent(self)
        self.calibration = QComboBox()
        self.parameter = PlainSpinBox()
        self.clip_low, self.clip_high = PlainSpinBox(), PlainSpinBox()
        self._build()
        self._on_theme_changed(theme().palette)
        theme().changed.connect(self._on_theme_changed)

    def _on_theme_changed(self, _palette: Palette) -> None:
        """Follow the zoom."""
        for origin in self._origins.values():
            origin.setFixedWidth(theme().px(68))
        self.group_size.setFixedWidth(theme().px(64))

    def _build(self) -> None:
        self._add("format", tr("Format"), self.format, tr("What values the codes can stand for"))
        self._add("bits", tr("Bits"), self.bits, tr("Width of each code; fewer bits are smaller and coarser"))
        self._add("symmetric", tr("Range"), self.symmetry, tr("Whether the range mirrors around zero"))
        if self.side == "weight":
            self.group_size.setRange(2, 65_536)
            self.group_size.setValue(DEFAULT_GROUP)
            self.group_size.setKeyboardTracking(False)
            self.group_size.setAccessibleName(tr("Group size, values"))
            self.group_size.valueChanged.connect(self._on_group_size)
            self._add(
                "granularity",
                tr("Scales"),
                _beside(self.granularity, self.group_size),
                tr("Which values share one scale; finer is more exact and stores more scales"),
            )
        for name, calibrator in CALIBRATORS.items():
            self.calibration.addItem(calibrator.title, name)
            self.calibration.setItemData(self.calibration.count() - 1, calibrator.words, 3)  # tooltip role
        self.calibration.setAccessibleName(tr("Calibration"))
        self.calibration.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.calibration.activated.connect(self._on_calibration)
        self.parameter.setKeyboardTracking(False)
        self.parameter.setAccessibleName(tr("Parameter of the calibration"))
        self.parameter.valueChanged.connect(self._on_parameter)
        self._add(
            "calibration", tr("Range by"), _beside(self.calibration, self.parameter), tr("How the range is found")
        )
        for box, words in ((self.clip_low, tr("Lower clip edge")), (self.clip_high, tr("Upper clip edge"))):
            box.setRange(NO_CLIP, -NO_CLIP)
            box.setKeyboardTracking(False)
            box.setSpecialValueText(NO_VALUE)
            box.setMinimumWidth(theme().px(64))
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            box.setAccessibleName(words)
            box.setToolTip(words + tr(", in the tensor's own units. Type a number or drag the line in the histogram."))
            box.valueChanged.connect(self._on_clip)
        self._add(
            "clip",
            tr("Clip"),
            _beside(self.clip_low, self.clip_high, equal=True),
            tr("Values beyond these ends are clipped; zero always stays inside"),
        )
        if self.side == "weight":
            self.outliers.setRange(0.0, MOST_OUTLIERS)
            self.outliers.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            self.outliers.setSingleStep(0.5)
            self.outliers.setSuffix(" %")
            self.outliers.setKeyboardTracking(False)
            self.outliers.setAccessibleName(tr("Outliers kept in float, percent"))
            self.outliers.valueChanged.connect(self._on_outliers)
            self._add("outliers", tr("Outliers"), self.outliers, OUTLIER_WORDS)
        else:
            self._add(
                "dynamic", tr("Scale"), self.dynamic, tr("Whether the range is known before or taken at run time")
            )
            self.dynamic.chosen.connect(self._on_dynamic)
        self.format.chosen.connect(self._on_format)
        self.bits.chosen.connect(self._on_bits)
        self.symmetry.chosen.connect(self._on_symmetry)
        self.granularity.chosen.connect(self._on_granularity)

    def _add(self, field: str, title: str, control: QWidget, words: str) -> None:
        row = self._grid.rowCount()
        label = ThemedLabel(title, role="muted")
        label.setToolTip(words)
        origin = QPushButton("")
        origin.setProperty("role", "flat")
        origin.clicked.connect(self._on_origin)
        self._origins[field] = origin
        self._grid.addWidget(label, row, 0)
        self._grid.addWidget(control, row, 1)
        self._grid.addWidget(origin, row, 2)

    def origin(self, field: str) -> QPushButton:
        """Return the button that says where a field comes from ("bits", "symmetric", ...)."""
        return self._origins[field]

    # ---- showing

    def show_scheme(
        self, resolved: ResolvedLayer, readout: Readout | None, mixed: frozenset[str], blocked: dict[str, str]
    ) -> None:
        """Show a layer's settings.

        Args:
            resolved: Settings and where each comes from.
            readout: The range as it stands; None while unknown.
            mixed: Names of fields in which the selected layers differ.
            blocked: Why a field cannot be changed, by its name; "" or absent where it can.
        """
        self._loading = True
        settings = resolved.settings
        scheme = settings.weight_scheme() if self.side == "weight" else settings.activation_scheme()
        bits = scheme.bits
        self.bits.set_value(bits, format_bits(bits))
        self.format.show_format(scheme.format, blocked.get(f"{self.side}_format", ""))
        self.outliers.setValue(scheme.outliers)
        self.dynamic.set_value(scheme.dynamic)
        self.symmetry.set_value(bool(self._value(settings, "symmetric")))
        if self.side == "weight":
            granularity: Granularity = settings.weight_granularity
            self.granularity.set_value(granularity.kind)
            if granularity.kind == "group":
                self.group_size.setValue(granularity.group_size)
        name, _, parameter = str(self._value(settings, "calibration")).partition(":")
        self.calibration.setCurrentIndex(self.calibration.findData(name))
        calibrator = CALIBRATORS.get(name)
        takes_number = calibrator is not None and calibrator.bounds is not None
        bounds = calibrator.bounds if calibrator is not None and calibrator.bounds is not None else (0.0, 100.0)
        self._parameter_words = calibrator.parameter if calibrator is not None else ""
        self.parameter.setSuffix(" %" if self._parameter_words.startswith("percent") else "")
        self.parameter.setRange(*bounds)
        self.parameter.setSpecialValueText("" if takes_number else NO_VALUE)
        self.parameter.setValue(float(parameter) if parameter else bounds[0])
        for field, origin in self._origins.items():
            full = f"{self.side}_{field}"
            source = "set" if field == "clip" and name == "manual" else resolved.source(full)
            self._show_origin(origin, source, full in mixed)
        self._block(blocked, scheme, takes_number, readout is None)
        self._loading = False
        self.show_clip(readout.clip if readout is not None else None)

    def show_clip(self, clip: tuple[float, float] | None) -> None:
        """Show the ends of the range."""
        self._loading = True
        for box, value in zip((self.clip_low, self.clip_high), clip or (NO_CLIP, NO_CLIP), strict=True):
            box.setSingleStep(max(abs(value) / 50, 1e-5))
            box.setValue(value)
        self._loading = False

    def _show_origin(self, button: QPushButton, source: str, mixed: bool) -> None:
        own = source == "set" or mixed
        text = tr("mixed") if mixed else tr("set") if source == "set" else tr("default")
        if source.startswith("rule"):
            text = tr("rule")
        button.setText(f"{text}  ↺" if own else text)
        button.setEnabled(own)
        if mixed:
            words = tr("The selected layers differ. Click: all of them inherit it again.")
        elif own:
            words = tr("Set for this layer. Click: inherit it again.")
        else:
            words = tr("Inherited from the") + f" {source}"
        button.setToolTip(words)
        button.setAccessibleName(words)

    def _block(self, blocked: dict[str, str], scheme: Scheme, has_parameter: bool, unknown: bool) -> None:
        no_range = tr("The range is not known yet: statistics are missing") if unknown else ""
        is_float = scheme.is_float
        floating = tr("The values stay in float: choose bits first") if is_float else ""
        number_format, _ = format_of(scheme.format)
        of_format = {
            "symmetric": "" if number_format.uses_symmetry else tr("Only integers choose this"),
            "granularity": "" if number_format.parameters else tr("This format has no scale"),
            "calibration": "" if number_format.uses_range else tr("This format finds its levels without a range"),
            "dynamic": "" if number_format.family == "affine" else tr("Only integers take their range at run time"),
        }
        if scheme.dynamic and number_format.family == "affine":
            of_format["calibration"] = tr("The range is taken at run time")
        of_format["clip"] = of_format["calibration"]
        least, most = number_format.bits
        group = "" if self.granularity.value == "group" else tr("Choose Group first")

        def reason(field: str) -> str:
            return blocked.get(f"{self.side}_{field}", "") or floating or of_format.get(field, "")

        self.bits.set_blocked(blocked.get(f"{self.side}_bits", ""))
        if not blocked.get(f"{self.side}_bits", ""):
            for bits in BIT_CHOICES:
                if bits != FLOAT_BITS and not least <= bits <= most:
                    width = f"{least}" if least == most else f"{least} {tr('to')} {most}"
                    self.bits.block(bits, f"{tr(number_format.title)}: {width} {tr('bits')}")
        self.dynamic.set_blocked(reason("dynamic"))
        self.symmetry.set_blocked(reason("symmetric"))
        self.granularity.set_blocked(reason("granularity"))
        for widget, why, words in (
            (self.group_size, reason("granularity") or group, tr("Values that share a scale")),
            (self.calibration, reason("calibration"), tr("How the range is found")),
            (
                self.parameter,
                reason("calibration") or ("" if has_parameter else tr("This calibration takes no number")),
                tr(self._parameter_words.capitalize()),
            ),
            (self.outliers, reason("outliers"), OUTLIER_WORDS),
            (self.clip_low, reason("clip") or no_range, tr("Lower end of the range; typing sets it by hand")),
            (self.clip_high, reason("clip") or no_range, tr("Upper end of the range; typing sets it by hand")),
        ):
            widget.setEnabled(not why)
            widget.setToolTip(why or words)

    def _value(self, settings: LayerSettings, field: str) -> Any:
        return getattr(settings, f"{self.side}_{field}")

    # ---- choosing

    def _choose(self, field: str, value: Any) -> None:
        if not self._loading:
            self.field_chosen.emit((f"{self.side}_{field}", value))

    def _on_format(self, text: str) -> None:
        self._choose("format", text)

    def _on_outliers(self, percent: float) -> None:
        self._choose("outliers", percent)

    def _on_dynamic(self, value: bool) -> None:
        self._choose("dynamic", value)

    def _on_bits(self, value: int) -> None:
        self._choose("bits", value)

    def _on_symmetry(self, value: bool) -> None:
        self._choose("symmetric", value)

    def _on_granularity(self, kind: Any) -> None:
        self._choose("granularity", Granularity(kind, self.group_size.value() if kind == "group" else 0))

    def _on_group_size(self, size: int) -> None:
        if self.granularity.value == "group":
            self._choose("granularity", Granularity("group", size))

    def _on_calibration(self, index: int) -> None:
        name = str(self.calibration.itemData(index))
        if name == "manual":
            if self.clip_high.isEnabled():
                self._on_clip()
            else:
                self._choose("calibration", name)
            return
        default = CALIBRATORS[name].default
        self._choose("calibration", f"{name}:{default:g}" if default is not None else name)

    def _on_parameter(self, value: float) -> None:
        self._choose("calibration", f"{self.calibration.currentData()}:{value:.10g}")

    def _on_clip(self, _value: float = 0.0) -> None:
        if not self._loading:
            self.clip_typed.emit((self.clip_low.value(), self.clip_high.value()))

    def _on_origin(self) -> None:
        sender = self.sender()
        for field, button in self._origins.items():
            if button is sender:
                names = (field, "clip") if field == "calibration" else (field,)
                if field == "clip":
                    names = ("calibration", "clip")
                self.reset_requested.emit(tuple(f"{self.side}_{name}" for name in names))


def _bit_words(bits: int) -> str:
    return tr("1 bit for each code") if bits == 1 else f"{bits} {tr('bits for each code')}"


def _beside(first: QWidget, second: QWidget, equal: bool = False) -> QWidget:
    box = QWidget()
    row = QHBoxLayout(box)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(theme().px(4))
    row.addWidget(first, 1)
    row.addWidget(second, 1 if equal else 0)
    return box
