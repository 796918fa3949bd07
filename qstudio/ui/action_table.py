"""The table of actions."""

from __future__ import annotations

from functools import partial

from qstudio.ui.actions import ActionSpec
from qstudio.ui.commands import Commands
from qstudio.ui.project_actions import PROJECT_ACTIONS
from qstudio.ui.sharing_actions import SHARING_ACTIONS
from qstudio.ui.table.choices import reset, set_bits, set_float
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

S = ActionSpec


def _needs_model(c: Commands) -> str:
    return "" if c.session.model is not None else tr("Open a model first")


def _needs_selection(c: Commands) -> str:
    return _needs_model(c) or ("" if c.session.selection else tr("Select a layer first"))


def _needs_history(c: Commands) -> str:
    """Say why a history cannot be changed that is only looked at: its model is not open."""
    return _needs_model(c) if c.session.project.files.missing_model is not None else ""


def _undo_blocked(c: Commands) -> str:
    return _needs_history(c) or ("" if c.session.undo_label is not None else tr("There is nothing to undo"))


def _redo_blocked(c: Commands) -> str:
    return _needs_history(c) or ("" if c.session.redo_label is not None else tr("There is nothing to redo"))


def _undo_title(c: Commands) -> str:
    return f"{tr('Undo')} {c.session.undo_label}" if c.session.undo_label else tr("Undo")


def _redo_title(c: Commands) -> str:
    return f"{tr('Redo')} {c.session.redo_label}" if c.session.redo_label else tr("Redo")


def _run_blocked(c: Commands) -> str:
    return tr(c.session.run_blocked) if c.session.run_blocked else ""


def _train_blocked(c: Commands) -> str:
    return tr(c.session.train_blocked) if c.session.train_blocked else ""


def _resume_title(c: Commands) -> str:
    left = c.session.checkpoint
    return tr("Resume training") if left is None else tr("Resume training after epoch {e}").format(e=left.epoch)


def _cancel_blocked(c: Commands) -> str:
    return "" if c.session.running is not None or c.session.work else tr("Nothing is running")


def _python_blocked(c: Commands) -> str:
    return _needs_model(c) or ("" if c.session.dataset is not None else tr("Choose data first"))


def _restore_blocked(c: Commands) -> str:
    run = next((run for run in c.session.runs if run.id == c.session.selected_run), None)
    return _needs_history(c) or (
        "" if run is not None and run.result is not None else tr("Select a run with a result first")
    )


def _restore(c: Commands) -> None:
    if c.session.selected_run is not None:
        c.session.restore_run(c.session.selected_run)


def _bits(bits: int, activation: bool, c: Commands) -> None:
    set_bits(c.session, c.session.selection, bits, activation)


def _float(c: Commands) -> None:
    set_float(c.session, c.session.selection)


def _reset(c: Commands) -> None:
    reset(c.session, c.session.selection)


def _select_all(c: Commands) -> None:
    if c.session.model is not None:
        c.session.select([layer.name for layer in c.session.model.layers])


def _diagnosis_blocked(c: Commands) -> str:
    return tr(c.session.diagnosis.blocked)


def _diagnose(c: Commands) -> None:
    from qstudio.ui.findings.panel import FindingsPanel  # not needed for the first picture

    c.window.show_panel("findings")
    panel = c.window.workspace.panel("findings")
    if isinstance(panel, FindingsPanel):
        panel.diagnose()


def _mode(mode: str, c: Commands) -> None:
    c.window.set_theme("dark" if mode == "dark" else "light" if mode == "light" else "system")


def _is_mode(mode: str, _c: Commands) -> bool:
    return theme().mode == mode


def _zoom(steps: int, c: Commands) -> None:
    c.window.set_zoom_by(steps)


def _perspective(name: str, c: Commands) -> None:
    c.window.show_perspective(name)


def _panel(name: str, c: Commands) -> None:
    c.window.show_panel(name)


def _graph(c: Commands) -> None:
    c.window.show_panel("graph")
    panel = c.window.workspace.panel("graph")
    if panel is not None:
        panel.setFocus()


def _is_perspective(name: str, c: Commands) -> bool:
    return c.window.perspective == name


ACTIONS: tuple[ActionSpec, ...] = (
    S("open_model", "Open model…", "File", Commands.ask_model, ("Ctrl+O",), "fa6s.folder-open"),
    S("open_data", "Open data file…", "File", Commands.ask_data_file, ("Ctrl+D",), "fa6s.database"),
    S("open_data_folder", "Open data folder…", "File", Commands.ask_data_folder, ("Ctrl+Shift+D",)),
    S(
        "welcome",
        "Sample models and recent files",
        "File",
        lambda c: c.window.show_welcome(),
        help="Show the welcome page with the sample models and the files opened last",
    ),
    *PROJECT_ACTIONS,
    S(
        "load_recipe",
        "Load recipe…",
        "File",
        Commands.ask_recipe,
        ("Ctrl+L",),
        blocked=_needs_model,
        separator=True,
        help="Read the schemes of all layers from a JSON file; one undoable step",
    ),
    S("save_recipe", "Save recipe…", "File", Commands.ask_save_recipe, ("Ctrl+S",), "fa6s.floppy-disk", _needs_model),
    S(
        "export_model",
        "Export model…",
        "File",
        Commands.ask_export,
        ("Ctrl+E",),
        "fa6s.file-export",
        Commands.export_blocked,
        separator=True,
        help="Save the selected run's quantized ONNX file; without a finished run, PTQ is run first",
    ),
    S("export_csv", "Export table as CSV…", "File", Commands.ask_save_csv, (), blocked=_needs_model),
    *SHARING_ACTIONS,
    S("quit", "Quit", "File", lambda c: c.window.quit(), ("Ctrl+Q",), separator=True),
    S(
        "undo",
        "Undo",
        "Edit",
        lambda c: c.session.undo(),
        ("Ctrl+Z",),
        "fa6s.arrow-rotate-left",
        _undo_blocked,
        _undo_title,
    ),
    S(
        "redo",
        "Redo",
        "Edit",
        lambda c: c.session.redo(),
        ("Ctrl+Shift+Z", "Ctrl+Y"),
        "fa6s.arrow-rotate-right",
        _redo_blocked,
        _redo_title,
    ),
    *(
        S(
            f"weight_bits_{bits}",
            f"{bits} bits",
            "Edit/Weight bits",
            partial(_bits, bits, False),
            (str(bits),) if bits < 10 else (),
            blocked=_needs_selection,
            help=f"Quantize the weights of the selected layers to {bits} bits",
        )
        for bits in (2, 3, 4, 5, 6, 7, 8, 16)
    ),
    *(
        S(
            f"activation_bits_{bits}",
            f"{bits} bits",
            "Edit/Activation bits",
            partial(_bits, bits, True),
            (f"Alt+{bits}",) if bits < 10 else (),
            blocked=_needs_selection,
            help=f"Quantize the outputs of the selected layers to {bits} bits",
        )
        for bits in (2, 3, 4, 5, 6, 7, 8, 16)
    ),
    S(
        "float",
        "Leave in float",
        "Edit",
        _float,
        ("F",),
        blocked=_needs_selection,
        help="Do not quantize the selected layers, neither weights nor outputs",
    ),
    S(
        "reset",
        "Reset to inherited",
        "Edit",
        _reset,
        ("Delete", "Backspace"),
        blocked=_needs_selection,
        help="Let the selected layers inherit everything again",
    ),
    S("select_all", "Select all layers", "Edit", _select_all, ("Ctrl+A",), blocked=_needs_model, separator=True),
    S(
        "copy_table",
        "Copy table",
        "Edit",
        Commands.copy_table,
        ("Ctrl+C",),
        "fa6s.copy",
        _needs_model,
        help="Copy the selected rows as tab-separated text, ready for a spreadsheet",
    ),
    S(
        "filter",
        "Filter layers",
        "Edit",
        lambda c: c.window.focus_filter(),
        ("/",),
        "fa6s.magnifying-glass",
        _needs_model,
    ),
    S(
        "preferences",
        "Preferences…",
        "Edit",
        lambda c: c.window.show_preferences(),
        ("Ctrl+,",),
        "fa6s.gear",
        separator=True,
        help="Theme, zoom, device, threads, preview, autosave",
    ),
    S(
        "explore",
        "Explore",
        "View",
        partial(_perspective, "explore"),
        ("Ctrl+1",),
        blocked=_needs_model,
        checked=partial(_is_perspective, "explore"),
        help="Look at layers, their distributions and ranges",
    ),
    S(
        "tune",
        "Tune",
        "View",
        partial(_perspective, "tune"),
        ("Ctrl+2",),
        blocked=_needs_model,
        checked=partial(_is_perspective, "tune"),
        help="Compare runs: accuracy against size and latency",
    ),
    S(
        "compare",
        "Compare",
        "View",
        partial(_perspective, "compare"),
        ("Ctrl+5",),
        blocked=_needs_model,
        checked=partial(_is_perspective, "compare"),
        help="See where runs came from, in what two of them differ, which answers changed, and what they cost",
    ),
    S(
        "graph",
        "Graph",
        "View",
        _graph,
        ("Ctrl+G",),
        blocked=_needs_model,
        help="Go to the graph: arrows walk along edges, / finds nodes, 2 to 8 set bits, Enter opens and closes blocks",
    ),
    S("data_tab", "Data", "View", partial(_panel, "data_panel"), ("Ctrl+3",), blocked=_needs_model),
    *(
        S(f"{name}_tab", title, "View", partial(_panel, name), blocked=_needs_model, help=words)
        for name, title, words in (
            ("sensitivity", "Sensitivity", "Which layers hurt: each width tried on each layer"),
            ("bits", "Bits", "Bits of every layer as bars, to be painted over"),
            ("search", "Mixed precision", "The best bits for each layer under limits of size, bits, latency or loss"),
        )
    ),
    S(
        "refinements",
        "Refinements",
        "View",
        partial(_panel, "refinements"),
        ("Ctrl+4",),
        blocked=_needs_model,
        help="Choose what is done to the network so that rounding costs less",
    ),
    S(
        "log",
        "Log",
        "View",
        lambda c: c.window.toggle_log(),
        ("Ctrl+J",),
        "fa6s.terminal",
        checked=lambda c: c.window.log_shown,
        help="Show what the engine processes print",
    ),
    *(
        S(
            f"theme_{mode}",
            title,
            "View/Theme",
            partial(_mode, mode),
            checked=partial(_is_mode, mode),
        )
        for mode, title in (("light", "Light"), ("dark", "Dark"), ("system", "As the system"))
    ),
    S("zoom_in", "Zoom in", "View", partial(_zoom, 1), ("Ctrl++", "Ctrl+="), separator=True),
    S("zoom_out", "Zoom out", "View", partial(_zoom, -1), ("Ctrl+-",)),
    S("zoom_reset", "Normal size", "View", partial(_zoom, 0), ("Ctrl+0",)),
    S("reset_layout", "Reset layout", "View", lambda c: c.window.reset_layout(), separator=True),
    S("run_ptq", "Run PTQ", "Run", Commands.run_ptq, ("Ctrl+R",), "fa6s.play", _run_blocked),
    S(
        "train",
        "Train…",
        "Run",
        lambda c: c.window.show_training(),
        ("Ctrl+T",),
        "fa6s.chart-line",
        _needs_model,
        help="Quantization-aware training: its settings, start, and learning curves",
    ),
    S(
        "start_training",
        "Start training",
        "Run",
        Commands.start_training,
        ("Ctrl+Shift+T",),
        "fa6s.play",
        _train_blocked,
        help="Train the network with quantizers in it, then measure and export the best epoch",
    ),
    S(
        "resume_training",
        "Resume training",
        "Run",
        partial(Commands.start_training, resume=True),
        blocked=Commands.resume_blocked,
        title=_resume_title,
        help="Go on from the checkpoint of the same choices; the numbers are those of an uninterrupted training",
    ),
    S(
        "best_epoch",
        "Measure best epoch",
        "Run",
        partial(Commands.start_training, resume=True, further=False),
        blocked=Commands.best_epoch_blocked,
        help="Train no further: measure and export the best epoch of the checkpoint",
    ),
    S(
        "diagnose",
        "Why is it worse?",
        "Run",
        _diagnose,
        ("Ctrl+Shift+W",),
        "fa6s.stethoscope",
        _diagnosis_blocked,
        help="Five questions that lead from the float model to a repair, each answer measured",
    ),
    S(
        "measure_sensitivity",
        "Measure sensitivity",
        "Run",
        lambda c: c.start_long("sensitivity", c.session.sensitivity.start),
        blocked=lambda c: tr(c.session.sensitivity.blocked) if c.session.sensitivity.blocked else "",
        separator=True,
        help="Try each chosen width on each layer, with the settings of the Sensitivity tab",
    ),
    S(
        "search_bits",
        "Search mixed precision",
        "Run",
        lambda c: c.start_long("search", c.session.search.start),
        blocked=lambda c: tr(c.session.search.blocked) if c.session.search.blocked else "",
        help="Find the bits of each layer under the limits of the Search tab, then export and verify them",
    ),
    S("cancel", "Cancel", "Run", Commands.cancel, ("Esc",), "fa6s.stop", _cancel_blocked),
    S(
        "restore",
        "Restore the selected run's recipe",
        "Run",
        _restore,
        ("Ctrl+Shift+R",),
        blocked=_restore_blocked,
        separator=True,
        help="Make the recipe of the selected run the current one; one undoable step",
    ),
    S(
        "copy_python",
        "Copy as Python",
        "Run",
        Commands.copy_python,
        ("Ctrl+Shift+C",),
        "fa6s.code",
        _python_blocked,
        help="Copy a Python script that gives the numbers of the selected run, or of what is chosen now",
    ),
    S(
        "palette",
        "Search commands and layers…",
        "Help",
        lambda c: c.window.show_palette(),
        ("Ctrl+Shift+P",),
        "fa6s.magnifying-glass",
    ),
    S("cheat_sheet", "Keys", "Help", lambda c: c.window.show_cheat_sheet(), ("?", "F1"), "fa6s.keyboard"),
    S("about", "About QStudio", "Help", lambda c: c.window.show_about(), separator=True),
)
