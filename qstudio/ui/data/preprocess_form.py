"""How samples are prepared: mean, std, scale, size, layout, split."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from qstudio.core.errors import UserError
from qstudio.engine.messages import DataSpec
from qstudio.ui.text import tr

LAYOUTS = ("", "NHWC", "NCHW", "NHW")
SPLITS = ("", "test", "train")


def read_numbers(text: str, name: str) -> tuple[float, ...] | None:
    """Read "0.485, 0.456, 0.406"; None for an empty text.

    Raises:
        UserError: A part is not a number.
    """
    parts = text.replace(";", ",").replace(",", " ").split()
    try:
        return tuple(float(part) for part in parts) or None
    except ValueError:
        raise UserError(
            f"'{text}' is not a list of numbers", name, "Write numbers with commas: 0.5, 0.5, 0.5"
        ) from None


def read_size(text: str, name: str) -> tuple[int, int] | None:
    """Read "32" or "32 x 48"; None for an empty text.

    Raises:
        UserError: The text is not one or two whole numbers above zero.
    """
    parts = text.lower().replace("x", " ").replace(",", " ").replace("×", " ").split()
    if not parts:
        return None
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"'{text}' is not a size", name, "Write height x width: 32 x 32")
    return (int(parts[0]), int(parts[-1]))


class PreprocessForm(QWidget):
    """Fields that make a DataSpec; nothing happens before Apply."""

    applied = Signal(object)
    """DataSpec."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._spec: DataSpec | None = None
        self.mean = self._line(
            tr("Mean"), tr("Subtracted from each channel after scaling: one number, or one for each channel")
        )
        self.std = self._line(tr("Std"), tr("Each channel is divided by this: one number, or one for each channel"))
        self.scale = self._line(tr("Scale"), tr("Stored bytes are divided by this; empty = 255"))
        self.image_size = self._line(tr("Size"), tr("Height x width that images are brought to; empty = as they are"))
        self.layout_box = self._choice(tr("Layout"), LAYOUTS, tr("How the axes of stored images are ordered"))
        self.split = self._choice(tr("Split"), SPLITS, tr("Which part of the data accuracy is measured on"))
        self.message = QLabel()
        self.message.setProperty("role", "worse")
        self.message.setWordWrap(True)
        self.message.hide()
        self.apply = QPushButton(tr("Apply"))
        self.apply.setToolTip(tr("Read the data again with these settings; accuracy is measured anew"))
        self.apply.clicked.connect(self._on_apply)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for widget in (self.mean, self.std, self.scale, self.image_size, self.layout_box, self.split):
            form.addRow(widget.accessibleName(), widget)
        button = QHBoxLayout()
        button.addStretch(1)
        button.addWidget(self.apply)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.message)
        layout.addLayout(button)

    def _line(self, name: str, told: str) -> QLineEdit:
        line = QLineEdit()
        line.setAccessibleName(name)
        line.setToolTip(told)
        line.setPlaceholderText(tr("as the data says"))
        line.returnPressed.connect(self._on_apply)
        return line

    def _choice(self, name: str, values: tuple[str, ...], told: str) -> QComboBox:
        box = QComboBox()
        box.setAccessibleName(name)
        box.setToolTip(told)
        for value in values:
            box.addItem(value or tr("as the data says"), value)
        return box

    def show_spec(self, spec: DataSpec | None) -> None:
        """Fill the fields."""
        self._spec = spec
        self.apply.setEnabled(spec is not None)
        self.message.hide()
        if spec is None:
            self.apply.setToolTip(tr("Choose data first"))
            return
        self.apply.setToolTip(tr("Read the data again with these settings; accuracy is measured anew"))
        self.mean.setText(", ".join(f"{value:g}" for value in spec.mean or ()))
        self.std.setText(", ".join(f"{value:g}" for value in spec.std or ()))
        self.scale.setText(f"{spec.scale:g}" if spec.scale is not None else "")
        self.image_size.setText(f"{spec.size[0]} x {spec.size[1]}" if spec.size else "")
        self.layout_box.setCurrentIndex(max(self.layout_box.findData(spec.layout or ""), 0))
        self.split.setCurrentIndex(max(self.split.findData(spec.split or ""), 0))

    def _on_apply(self) -> None:
        if self._spec is None:
            return
        try:
            scale = read_numbers(self.scale.text(), self.scale.accessibleName())
            spec = replace(
                self._spec,
                mean=read_numbers(self.mean.text(), self.mean.accessibleName()),
                std=read_numbers(self.std.text(), self.std.accessibleName()),
                scale=scale[0] if scale else None,
                size=read_size(self.image_size.text(), self.image_size.accessibleName()),
                layout=self.layout_box.currentData() or None,
                split=self.split.currentData() or None,
            )
        except UserError as error:
            self.message.setText(error.sentence())
            self.message.show()
            return
        self.message.hide()
        self.applied.emit(spec)
