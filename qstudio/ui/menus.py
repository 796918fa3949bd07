"""The menu bar, made from the table of actions."""

from __future__ import annotations

import os

from PySide6.QtWidgets import QMenu, QMenuBar

from qstudio.ui.actions import Actions
from qstudio.ui.settings import recent_files
from qstudio.ui.text import tr

MENUS = ("File", "Edit", "View", "Run", "Help")


def fill_menu_bar(bar: QMenuBar, actions: Actions) -> dict[str, QMenu]:
    """Make every menu that an action names; return them by path ("View/Theme")."""
    menus: dict[str, QMenu] = {}
    for name in MENUS:
        menus[name] = bar.addMenu(tr(name))
        menus[name].setToolTipsVisible(True)
    for action in actions.all():
        path = action.spec.menu
        if not path:
            continue
        if path not in menus:
            parent, name = path.split("/")
            menus[path] = menus[parent].addMenu(tr(name))
            menus[path].setToolTipsVisible(True)
        if action.spec.separator:
            menus[path].addSeparator()
        menus[path].addAction(action)
    return menus


def fill_recent_menu(menu: QMenu) -> None:
    """List the files opened last; one that is gone is grey and says so."""
    menu.clear()
    paths = recent_files()
    for path in paths:
        action = menu.addAction(os.path.basename(path))
        action.setData(path)
        there = os.path.exists(path)
        action.setEnabled(there)
        action.setToolTip(path if there else f"{path}\n{tr('This file is no longer there')}")
    menu.setEnabled(bool(paths))
