"""The actions that hand results to others: written from the window, refused in words, read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtWidgets import QFileDialog
from ui_fakes import make_result

from qstudio.core.affine import encode
from qstudio.core.exchange import SiteEncodings
from qstudio.core.scheme import Scheme
from qstudio.ui.main_window import MainWindow


@pytest.fixture
def window(studio: Any) -> Iterator[tuple[Any, MainWindow]]:
    studio.open()
    main = MainWindow(studio.session, studio.bridge)
    studio.show(main, 1280, 800)
    main.build_all()
    studio.settle()
    yield studio, main
    main.commands.close()


def choose(studio: Any, main: MainWindow, action: str, path: Path) -> None:
    main.actions_table[action].trigger()
    studio.settle()
    dialog = main.findChild(QFileDialog)
    assert dialog is not None
    dialog.fileSelected.emit(str(path))
    dialog.close()
    studio.settle()


def test_a_report_is_saved_and_a_folder_that_is_not_there_is_told(
    window: tuple[Any, MainWindow], tmp_path: Path
) -> None:
    studio, main = window
    choose(studio, main, "save_report", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "fake" in text
    assert "report was saved" in studio.notices[-1].text
    choose(studio, main, "save_report", tmp_path / "no" / "r.html")
    assert "was not written" in studio.notices[-1].text


def test_encodings_of_the_selected_run_are_saved_and_loaded_as_a_recipe(
    window: tuple[Any, MainWindow], tmp_path: Path
) -> None:
    studio, main = window
    session = studio.session
    assert "Select a run" in main.actions_table["encodings_aimet"].toolTip()
    session.run_ptq()
    site = session.model.weighted_layers[0].weight
    encodings = SiteEncodings({site.id: encode(Scheme("weight", 5), np.float64(-2.0), np.float64(2.0), None)}, {})
    result = make_result(session.recipe, session.model, encodings=encodings)
    studio.engine.finish(studio.engine.runs[-1], result)
    studio.settle()
    path = tmp_path / "e.json"
    choose(studio, main, "encodings_aimet", path)
    assert json.loads(path.read_text(encoding="utf-8"))["param_encodings"][0]["bw"] == 5
    main.commands.load_recipe_from(str(path))
    settings = session.settings(site.layer)
    assert (settings.weight_bits, settings.weight_clip) == (5, pytest.approx((-2.0, 2.0)))
    assert session.undo_label == "Load recipe"
    choose(studio, main, "encodings_onnxruntime", tmp_path / "o.json")
    assert "5 bits" in studio.notices[-1].text
    assert not (tmp_path / "o.json").exists()
