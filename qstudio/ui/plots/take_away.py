"""Ways to take a figure's picture or its numbers away: clipboard, PNG, SVG, CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QContextMenuEvent, QImage
from PySide6.QtWidgets import QApplication, QFileDialog, QMenu, QWidget

from qstudio.session.options import Notice
from qstudio.ui.saving import saved
from qstudio.ui.text import tr

if TYPE_CHECKING:
    _Widget = QWidget
else:
    _Widget = object

Column = tuple[str, NDArray[np.generic] | Sequence[object]]
"""A heading and its values."""


class TakeAway(_Widget):
    """A figure that gives away its picture and its data; stands before the widget among the base classes."""

    name: str
    """What the figure is called; proposed as name of its files."""

    can_zoom = False
    """Whether `show_everything` has something to undo."""

    if TYPE_CHECKING:
        notice_posted: Any

        @property
        def message(self) -> str:
            """The words shown instead of data; empty when data is shown."""

    def columns(self) -> tuple[Column, ...]:
        """Return what the plot shows as columns of a table (they may differ in length)."""
        return ()

    def show_everything(self) -> None:
        """Undo zooming and panning; subclasses that allow them override this."""

    def picture(self) -> QImage:
        """Return the figure as an image, twice as wide as on the screen."""
        raise AssertionError("every figure draws itself")

    def svg(self) -> bytes:
        """Return the figure as an SVG document."""
        raise AssertionError("every figure draws itself")

    def csv_text(self) -> str:
        """Return the plot's numbers as CSV with a heading line."""
        columns = self.columns()
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([heading for heading, _ in columns])
        for row in range(max((len(values) for _, values in columns), default=0)):
            writer.writerow([values[row] if row < len(values) else "" for _, values in columns])
        return out.getvalue()

    def menu(self) -> QMenu:
        """Return the context menu."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        blocked = tr("There is nothing to save yet") if self.message else ""
        for text, call in (
            (tr("Copy picture"), self.copy_picture),
            (tr("Save picture as PNG…"), self._save_png),
            (tr("Save picture as SVG…"), self._save_svg),
            (tr("Save data as CSV…"), self._save_csv),
        ):
            action = QAction(text, menu)
            action.triggered.connect(call)
            action.setEnabled(not blocked)
            action.setToolTip(blocked or text)
            menu.addAction(action)
        if self.can_zoom:
            menu.addSeparator()
            menu.addAction(tr("Show everything"), self.show_everything)
        menu.setToolTipsVisible(True)
        return menu

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Open the menu."""
        self.menu().popup(event.globalPos())
        event.accept()

    def copy_picture(self) -> None:
        """Put the picture on the clipboard."""
        QApplication.clipboard().setImage(self.picture())
        self.notice_posted.emit(Notice("info", tr("The picture is on the clipboard.")))

    def _save_png(self) -> None:
        path = self._ask_path(tr("Save picture as PNG"), "png")
        if path:
            self.save(path)

    def _save_svg(self) -> None:
        path = self._ask_path(tr("Save picture as SVG"), "svg")
        if path:
            self.save(path)

    def _save_csv(self) -> None:
        path = self._ask_path(tr("Save data as CSV"), "csv")
        if path:
            self.save(path)

    def _ask_path(self, title: str, ending: str) -> str:
        proposal = self.name.lower().replace(" ", "-") + f".{ending}"
        path, _ = QFileDialog.getSaveFileName(self, title, proposal, f"{ending.upper()} (*.{ending})")
        return path if not path or Path(path).suffix else f"{path}.{ending}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture (.png, .svg) or the data (anything else, as CSV); the outcome is posted as a notice."""
        self.notice_posted.emit(saved(path, self._write))

    def _write(self, target: Path) -> None:
        ending = target.suffix.lower()
        if ending == ".png":
            if not self.picture().save(str(target)):
                raise OSError(0, tr("the file cannot be written"))
        elif ending == ".svg":
            target.write_bytes(self.svg())
        else:
            target.write_text(self.csv_text(), encoding="utf-8")
