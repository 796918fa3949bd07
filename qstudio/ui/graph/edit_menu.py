"""What can be set on the selected layers from the graph's context menu."""

from __future__ import annotations

from functools import partial

from PySide6.QtWidgets import QMenu

from qstudio.session.session import Session
from qstudio.ui.table.choices import FIELD_TITLES, choices, not_applicable, reset, set_field, set_float
from qstudio.ui.text import tr

FIELDS = ("weight_bits", "activation_bits")


def add_edits(menu: QMenu, session: Session) -> None:
    """Add bits, float and reset for the selected layers; a menu that does not apply says why."""
    model, selected = session.model, session.selection
    if model is None or not selected:
        return
    layers = [model.layer(name) for name in selected]
    menu.setToolTipsVisible(True)
    for field in FIELDS:
        sub = menu.addMenu(tr(FIELD_TITLES[field]).capitalize())
        reasons = [not_applicable(layer, field) for layer in layers]
        if all(reasons):
            sub.setEnabled(False)
            sub.menuAction().setToolTip(reasons[0])
        present = {getattr(session.settings(name), field) for name in selected}
        for choice in choices(field):
            action = sub.addAction(choice.text)
            action.setCheckable(True)
            action.setChecked(present == {choice.value})
            action.triggered.connect(partial(_set, session, selected, field, choice.value))
    menu.addAction(tr("Leave in float")).triggered.connect(partial(_float, session, selected))
    menu.addAction(tr("Reset to inherited")).triggered.connect(partial(_reset, session, selected))
    menu.addSeparator()


def _set(session: Session, layers: tuple[str, ...], field: str, value: object, _checked: bool = False) -> None:
    set_field(session, layers, field, value)


def _float(session: Session, layers: tuple[str, ...], _checked: bool = False) -> None:
    set_float(session, layers)


def _reset(session: Session, layers: tuple[str, ...], _checked: bool = False) -> None:
    reset(session, layers)
