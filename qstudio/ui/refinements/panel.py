"""The refinements of the recipe, in the order they run."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QFrame, QLabel, QScrollArea, QVBoxLayout, QWidget

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS
from qstudio.session.options import Notice
from qstudio.session.refinements import chosen_refinements, switched, with_parameter
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.refinements.row import RefinementRow
from qstudio.ui.text import tr


class RefinementsPanel(QFrame):
    """A switch for each refinement; every change is an undoable edit of the recipe."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setProperty("role", "surface")
        self.rows: dict[str, RefinementRow] = {}
        words = QLabel(
            tr(
                "What is done to the network so that rounding costs less, from top to bottom, in every PTQ run. Each is"
                " part of the recipe."
            )
        )
        words.setWordWrap(True)
        words.setProperty("role", "muted")
        page = QFrame()
        page.setProperty("role", "surface")
        column = QVBoxLayout(page)
        column.setContentsMargins(12, 8, 12, 12)
        column.setSpacing(4)
        column.addWidget(words)
        rounding = [refinement for refinement in REFINEMENTS.values() if refinement.rounds]
        for refinement in REFINEMENTS.values():
            others = [tr(other.title) for other in rounding if other is not refinement]
            exclusive = ""
            if refinement.rounds and others:
                exclusive = tr("Chooses the rounding: takes the place of {names}.").format(names=", ".join(others))
            row = self.rows[refinement.id] = RefinementRow(refinement, exclusive)
            row.switched.connect(self._on_switched)
            row.parameter_chosen.connect(self._on_parameter)
            row.parameter_finished.connect(session.end_drag)
            column.addWidget(row)
        for broken in REFINEMENTS.broken:
            missing = QCheckBox(f"{broken.name} ({tr('not available')})")
            missing.setEnabled(False)
            missing.setAccessibleName(broken.name)
            missing.setToolTip(f"{tr('This plug-in cannot be used')}: {broken.reason}")
            column.addWidget(missing)
        column.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(page)
        area.setAccessibleName(tr("Refinements"))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(area)
        bridge.recipe_changed.connect(self._on_recipe_changed)
        self._on_recipe_changed(session.recipe)

    def _on_recipe_changed(self, recipe: Recipe) -> None:
        chosen = chosen_refinements(recipe)
        others = [tr(REFINEMENTS[name].title) for name in chosen if name != "fold"]
        for name, row in self.rows.items():
            blocked = ""
            if name == "fold" and others:
                blocked = tr("Needed: {names} work on folded weights").format(names=", ".join(others))
            row.show_choice(chosen.get(name, ""), blocked)

    def _on_switched(self, name: str, on: bool) -> None:
        self._session.edit(*switched(self._session.recipe, name, on))

    def _on_parameter(self, name: str, parameter: str, value: float) -> None:
        try:
            label, recipe = with_parameter(self._session.recipe, name, parameter, value)
        except UserError as error:
            self._session.notice_posted.emit(Notice("error", error.sentence()))
            self._on_recipe_changed(self._session.recipe)
            return
        self._session.edit(label, recipe, f"refinement {name} {parameter}")
