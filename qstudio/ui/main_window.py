"""The main window: it assembles the panels and carries the commands to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from PySide6.QtCore import QByteArray, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QCloseEvent, QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QMainWindow, QMenu, QStackedWidget, QVBoxLayout, QWidget

from qstudio.core.model_info import ModelInfo
from qstudio.session.project_places import SUFFIX
from qstudio.session.session import Session
from qstudio.ui.accuracy_strip import AccuracyStrip
from qstudio.ui.action_table import ACTIONS
from qstudio.ui.actions import Actions
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.commands import Commands
from qstudio.ui.menus import fill_menu_bar, fill_recent_menu
from qstudio.ui.notices import NoticeBar
from qstudio.ui.panels import PERSPECTIVES
from qstudio.ui.run_bar import RunBar
from qstudio.ui.settings import settings
from qstudio.ui.table.layer_table import LayerTable
from qstudio.ui.text import tr
from qstudio.ui.theme import Mode, theme
from qstudio.ui.top_bar import ActionButton, TopBar
from qstudio.ui.workspace import Workspace

if TYPE_CHECKING:
    from qstudio.ui.command_palette import CommandPalette
    from qstudio.ui.welcome import WelcomePage


class MainWindow(QMainWindow):
    """Menus and perspectives, notices, welcome or workspace, accuracy strip, run bar."""

    closed = Signal()
    built = Signal()
    """Everything stands that the first picture did not need."""

    def __init__(self, session: Session, bridge: SessionBridge) -> None:
        super().__init__()
        self.session = session
        self.bridge = bridge
        self.setObjectName("main")
        self.setAcceptDrops(True)
        self.setMinimumSize(960, 600)
        self.commands = Commands(session, self)
        self.workspace = Workspace(session, bridge)
        self.strip = AccuracyStrip(session, bridge)
        self.run_bar = RunBar(session, bridge)
        self.pages = QStackedWidget()
        self.notices = NoticeBar(bridge, self.pages)
        self._training_buttons: tuple[ActionButton, ActionButton, ActionButton] | None = None
        self.welcome: WelcomePage | None = None
        self.palette_popup: CommandPalette | None = None
        self.actions_table = Actions(ACTIONS, self.commands, self)
        self.top_bar = TopBar(self.actions_table)
        self._assemble()
        self._connect()
        self._refresh = QTimer(self)
        self._refresh.setSingleShot(True)
        self._refresh.setInterval(0)
        self._refresh.timeout.connect(self.actions_table.refresh)
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.setInterval(0)
        self._late.timeout.connect(self.build_late)
        self._on_model_changed(session.model)

    # ---- assembling

    def _assemble(self) -> None:
        actions = self.actions_table
        self.setMenuWidget(self.top_bar)
        menus = fill_menu_bar(self.top_bar.menu_bar, actions)
        self._recent_menu = QMenu(tr("Open recent"), self)
        self._recent_menu.setToolTipsVisible(True)
        self._recent_menu.triggered.connect(self._on_recent_chosen)
        menus["File"].insertMenu(actions["welcome"], self._recent_menu)
        menus["File"].aboutToShow.connect(self._on_file_menu)
        self.run_button = ActionButton(actions["run_ptq"], "primary")
        self.cancel_button = ActionButton(actions["cancel"])
        self.train_button = ActionButton(actions["train"])
        self.run_bar.run_place.addWidget(self.run_button)
        self.run_bar.run_place.addWidget(self.train_button)
        self.run_bar.stop_place.addWidget(self.cancel_button)
        self.undo_button = ActionButton(actions["undo"], "flat")
        self.redo_button = ActionButton(actions["redo"], "flat")
        for button in (self.undo_button, self.redo_button):
            self.layer_table.add_button(button)
        self.pages.addWidget(self.workspace)
        central = QWidget()
        layout = QVBoxLayout(central)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.pages, 1)
        layout.addWidget(self.strip)
        layout.addWidget(self.run_bar)
        self.setCentralWidget(central)

    def _connect(self) -> None:
        bridge = self.bridge
        bridge.model_changed.connect(self._on_model_changed)
        # Queued: the session first opens the data that was open before; what belongs to the new model takes its place.
        bridge.model_changed.connect(self.commands.on_model_changed, Qt.ConnectionType.QueuedConnection)
        bridge.runs_changed.connect(self.commands.on_runs_changed)
        bridge.work_changed.connect(self._on_work_changed)
        bridge.sample_asked.connect(self._on_sample_asked)
        for signal in (
            bridge.dataset_changed,
            bridge.recipe_changed,
            bridge.selection_changed,
            bridge.runs_changed,
            bridge.run_selected,
            bridge.options_changed,
            bridge.training_changed,
        ):
            signal.connect(self._on_state_changed)
        self.pages.currentChanged.connect(self._on_page_changed)
        self.commands.project.follow(bridge)
        self.notices.action_wanted.connect(self._on_action_wanted)
        self.run_bar.data_file_wanted.connect(self.commands.ask_data_file)
        self.run_bar.data_folder_wanted.connect(self.commands.ask_data_folder)
        theme().changed.connect(self._on_theme_changed)

    def build_late(self) -> None:
        """Build what the first picture of the window does not need, a piece at a time: plots, icons, devices.

        Between the pieces the layers of a model that has been read meanwhile are shown.
        """
        if self.workspace.is_waiting:
            self._late.start()  # before the panel is built: one that fails must not take the others with it
            self.workspace.build_next()
            return
        self._add_training_buttons()
        self._load_icons()
        if not self.session.devices:
            self.session.list_devices()
        self.built.emit()

    def _add_training_buttons(self) -> None:
        """Put the actions of a training into its panel, once."""
        panel = self.workspace.training_panel
        if panel is not None and self._training_buttons is None:
            actions = self.actions_table
            self._training_buttons = (
                ActionButton(actions["start_training"], "primary"),
                ActionButton(actions["resume_training"]),
                ActionButton(actions["best_epoch"]),
            )
            panel.add_buttons(*self._training_buttons)

    def build_all(self) -> None:
        """Build everything now."""
        self._late.stop()
        self.workspace.build_all()
        self.build_late()

    def _load_icons(self) -> None:
        self.actions_table.load_icons()
        self.top_bar.load_icons()
        self.layer_table.load_icons()
        self.undo_button.load_icon("fa6s.arrow-rotate-left")
        self.redo_button.load_icon("fa6s.arrow-rotate-right")

    @property
    def layer_table(self) -> LayerTable:
        """The table of layers."""
        return self.workspace.layer_table

    # ---- following the session

    def _on_page_changed(self, _index: int) -> None:
        self.notices.raise_()  # the page that comes to the front comes before everything in the stack

    def _on_state_changed(self, _value: object) -> None:
        self._refresh.start()

    def _on_theme_changed(self, _palette: object) -> None:
        self._load_icons()

    def _on_model_changed(self, model: ModelInfo | None) -> None:
        self.setWindowTitle(self.commands.project.title)
        if model is not None:
            self.pages.setCurrentWidget(self.workspace)
            self.layer_table.view.setFocus()
        self.strip.setVisible(model is not None)
        self.run_bar.setVisible(model is not None)
        self._refresh.start()

    def _on_work_changed(self, _work: object) -> None:
        """Go back to the welcome page when the first model could not be opened."""
        nothing = self.session.model is None and not self.session.opening and not self.session.runs
        if nothing and self.pages.currentWidget() is self.workspace:
            self.show_welcome()
        self.layer_table.view.viewport().update()
        self._refresh.start()

    def _on_action_wanted(self, action: str) -> None:
        self.actions_table[action].refresh()
        self.actions_table[action].trigger()

    def refresh_actions(self) -> None:
        """Bring the actions up to date once everything that happens now has happened."""
        self._refresh.start()

    # ---- what commands ask for

    def show_opening(self) -> None:
        """Leave the welcome page: the layers come as soon as the model has been read."""
        self.pages.setCurrentWidget(self.workspace)
        self._refresh.start()

    @property
    def perspective(self) -> str:
        """Name of the perspective shown; empty on the welcome page."""
        return self.workspace.perspective if self.pages.currentWidget() is self.workspace else ""

    def show_perspective(self, name: str) -> None:
        """Arrange the panels for one of `PERSPECTIVES`."""
        self.pages.setCurrentWidget(self.workspace)
        self.workspace.build_all()
        self._add_training_buttons()
        self.workspace.show_perspective(name)
        self._refresh.start()

    def show_panel(self, name: str) -> None:
        """Bring a panel to the front (KeyError when the table of panels has none of that id)."""
        self.pages.setCurrentWidget(self.workspace)
        self.workspace.show_panel(name)
        self._add_training_buttons()
        self._refresh.start()

    def show_training(self) -> None:
        """Show what a training is asked with, its curves, and the runs."""
        self.show_perspective("tune")
        self.show_panel("training_panel")

    def _on_sample_asked(self, _index: int) -> None:
        self.show_panel("inspector")

    def focus_filter(self) -> None:
        """Show the layers and put the cursor into their filter."""
        self.show_panel("layer_table")
        self.layer_table.focus_filter()

    def show_welcome(self) -> None:
        """Show the welcome page."""
        if self.welcome is None:
            from qstudio.ui.welcome import WelcomePage

            self.welcome = WelcomePage()
            self.welcome.open_wanted.connect(self.commands.ask_model)
            self.welcome.sample_chosen.connect(self.commands.open_sample)
            self.welcome.recent_chosen.connect(self.commands.open_path)
            self.commands.recent_changed.connect(self.welcome.refresh_recent)
            self.pages.addWidget(self.welcome)
        self.welcome.refresh_recent()
        self.pages.setCurrentWidget(self.welcome)
        self.welcome.focus_first()
        self._refresh.start()

    @property
    def log_shown(self) -> bool:
        """Whether the log is open."""
        return self.workspace.log.isVisible()

    def toggle_log(self) -> None:
        """Open or close the log."""
        self.pages.setCurrentWidget(self.workspace)
        self.workspace.toggle_log()

    def focused_table_text(self) -> str:
        """Return the table that has the focus (the layers by default) as tab-separated text."""
        runs = self.workspace.runs_table
        if runs is not None and runs.hasFocus():
            return runs.runs.as_text("\t")
        view = self.layer_table.view
        return view.as_text("\t", selected_only=bool(view.selected_rows()))

    def show_palette(self) -> None:
        """Open the command palette."""
        if self.palette_popup is None:
            from qstudio.ui.command_palette import CommandPalette

            self.palette_popup = CommandPalette(self.session, self.actions_table, self)
        self.actions_table.refresh()
        self.palette_popup.open()

    def show_cheat_sheet(self) -> None:
        """Open the sheet of keys."""
        from qstudio.ui.sheets import show_cheat_sheet

        show_cheat_sheet(self.actions_table, self)

    def show_preferences(self) -> None:
        """Open the preferences."""
        from qstudio.ui.preferences import show_preferences

        show_preferences(self)

    def show_about(self) -> None:
        """Open the page about the program."""
        from qstudio.ui.sheets import show_about

        show_about(self, self.session.devices)

    def set_theme(self, mode: Mode) -> None:
        """Show the light or dark theme, or follow the system; it is remembered."""
        theme().set_mode(mode)
        settings().setValue("theme", mode)
        self._refresh.start()

    def set_zoom_by(self, steps: int) -> None:
        """Zoom by steps; 0 is the normal size. It is remembered."""
        if steps:
            theme().zoom_by(steps)
            settings().setValue("zoom", theme().zoom)
        else:
            self.set_zoom(1.0)

    def set_zoom(self, factor: float) -> None:
        """Scale all text and spacing, 0.8 to 2.0; it is remembered."""
        theme().set_zoom(factor)
        settings().setValue("zoom", theme().zoom)

    def reset_layout(self) -> None:
        """Give every panel its usual place and size."""
        self.workspace.reset_layout()
        self._refresh.start()

    def quit(self) -> None:
        """Close the window and end the program."""
        self.close()

    # ---- what is remembered

    def save_settings(self) -> None:
        """Write geometry, perspective, layout."""
        store = settings()
        store.setValue("geometry", self.saveGeometry())
        store.setValue("perspective", self.workspace.perspective)
        self.workspace.save(store)

    def load_settings(self) -> None:
        """Read geometry, perspective, layout."""
        store = settings()
        geometry = store.value("geometry")
        if not (isinstance(geometry, QByteArray) and self.restoreGeometry(geometry)):
            room = self.screen().availableGeometry()
            self.resize(min(1600, room.width() - 40), min(960, room.height() - 60))
        self.workspace.load(store)
        name = str(store.value("perspective", "explore"))
        if name in PERSPECTIVES:
            self.workspace.show_perspective(name)

    # ---- Qt

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take files."""
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open what was dropped: models first, so that data dropped with one is opened for it."""
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        projects = [path for path in paths if path.lower().endswith(SUFFIX)]
        if projects:
            self.commands.project.open(projects[0])
            event.acceptProposedAction()
            return
        models = [path for path in paths if path.lower().endswith((".onnx", ".pt2"))]
        others = [path for path in paths if path not in models]
        if models:
            self.commands.open_model(models[0], others[0] if others else "")
        else:
            for path in others:
                self.commands.open_path(path)
        event.acceptProposedAction()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Remember the layout and let the program end."""
        self.save_settings()
        if self.palette_popup is not None:
            self.palette_popup.close()
        super().closeEvent(event)
        self.closed.emit()

    def _on_file_menu(self) -> None:
        fill_recent_menu(self._recent_menu)

    def _on_recent_chosen(self, action: QAction) -> None:
        path = str(action.data() or "")
        if path and os.path.exists(path):
            self.commands.open_path(path)
