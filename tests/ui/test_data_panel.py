"""The data panel: samples, float accuracy at once, preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import Qt
from ui_fakes import RecordedEngine

from qstudio.core.errors import UserError
from qstudio.core.results import Metrics
from qstudio.engine.messages import ActivationStatistics, DataSpec, LookAtSamples, OpenDataset
from qstudio.ui.data.colormap import VIRIDIS, as_plane, is_picture, to_image
from qstudio.ui.data.data_panel import DataPanel
from qstudio.ui.data.preprocess_form import read_numbers, read_size


@pytest.fixture
def panel(studio: Any) -> DataPanel:
    panel = DataPanel(studio.session, studio.bridge)
    studio.show(panel, 1100, 700)
    studio.open()
    return panel


def test_samples_stand_with_label_and_prediction_and_wrong_ones_are_marked(studio: Any, panel: DataPanel) -> None:
    model = panel.grid.samples
    assert model.rowCount() == 24
    assert model.index(1, 0).data() == "✓ 1 → 1"
    assert model.index(5, 0).data() == "✗ 5 → 6"
    assert model.is_wrong(5)
    tip = model.index(1, 0).data(Qt.ItemDataRole.ToolTipRole)
    assert "uint8 8x8" in tip
    assert "float32 1x8x8" in tip


def test_float_accuracy_facts_and_warnings_are_told(panel: DataPanel) -> None:
    assert panel.accuracy.text().startswith("97.00 % ±4.8\n60 samples")
    assert "test 60, train 600 samples" in panel.facts.text()
    assert "uint8 8x8" in panel.facts.text()
    assert panel.warnings.text() == "One sentence to be seen."


def test_paging_asks_for_the_next_samples_and_stops_at_the_end(studio: Any, panel: DataPanel) -> None:
    assert not panel.back.isEnabled()
    assert panel.back.toolTip() == "These are the first samples"
    for first in (24, 48):
        studio.qtbot.mouseClick(panel.forward, Qt.MouseButton.LeftButton)
        studio.settle()
        asked = [request for request in studio.engine.asked if isinstance(request, LookAtSamples)][-1]
        assert asked.indices[0] == first
    assert asked.indices[-1] == 59
    assert not panel.forward.isEnabled()
    studio.qtbot.mouseClick(panel.back, Qt.MouseButton.LeftButton)
    studio.settle()
    assert panel.grid.samples.index(0, 0).data(Qt.ItemDataRole.ToolTipRole).startswith("Sample 24")


def test_apply_reads_the_data_again(studio: Any, panel: DataPanel) -> None:
    panel.form.mean.setText("0.5, 0.5, 0.5")
    panel.form.std.setText("0.25")
    panel.form.image_size.setText("16 x 12")
    panel.form.split.setCurrentIndex(panel.form.split.findData("train"))
    studio.qtbot.mouseClick(panel.form.apply, Qt.MouseButton.LeftButton)
    asked = [request for request in studio.engine.asked if isinstance(request, OpenDataset)][-1]
    assert asked.data == DataSpec("digits", (0.5, 0.5, 0.5), (0.25,), None, (16, 12), None, "train")


def test_a_wrong_number_is_told_beside_the_fields_and_nothing_is_asked(studio: Any, panel: DataPanel) -> None:
    before = len(studio.engine.asked)
    panel.form.mean.setText("half")
    studio.qtbot.keyClick(panel.form.mean, Qt.Key.Key_Return)
    assert "'half' is not a list of numbers" in panel.form.message.text()
    assert panel.form.message.isVisible()
    assert len(studio.engine.asked) == before


def test_without_labels_it_says_in_words_what_can_be_measured(make_studio: Callable[..., Any]) -> None:
    engine = RecordedEngine()
    engine.labelled = False
    engine.float_metrics = Metrics(60, agreement=100.0)
    studio = make_studio(engine)
    panel = DataPanel(studio.session, studio.bridge)
    studio.show(panel)
    studio.open()
    assert "no labels" in panel.accuracy.text()
    assert "agreement" in panel.accuracy.text()
    assert panel.grid.samples.index(0, 0).data() == "→ 1"


def test_without_data_it_says_what_to_do(studio: Any) -> None:
    panel = DataPanel(studio.session, studio.bridge)
    studio.show(panel)
    assert "Choose data" in panel._empty.text()
    assert not panel.form.apply.isEnabled()
    assert panel.form.apply.toolTip() == "Choose data first"


def test_pictures_stay_as_they_are_and_other_arrays_become_heat_maps() -> None:
    photo = np.zeros((4, 5, 3), np.uint8)
    photo[1, 2] = (200, 100, 50)
    assert is_picture(photo)
    assert to_image(photo, 0, 255, True).pixelColor(2, 1).getRgb()[:3] == (200, 100, 50)
    mfcc = np.arange(490, dtype=np.float32).reshape(1, 49, 10)
    assert not is_picture(mfcc)
    image = to_image(mfcc, 0, 489, False)
    assert (image.width(), image.height()) == (10, 49)
    assert image.pixelColor(0, 0).getRgb()[:3] == tuple(VIRIDIS[0].astype(int))
    assert image.pixelColor(9, 48).getRgb()[:3] == tuple(VIRIDIS[-1].astype(int))
    assert as_plane(np.zeros((3, 8, 6), np.float32)).shape == (8, 6, 3)
    assert as_plane(np.zeros(7)).shape == (1, 7)


def test_reading_of_fields() -> None:
    assert read_numbers("", "Mean") is None
    assert read_numbers("1; 2 3", "Mean") == (1.0, 2.0, 3.0)
    assert read_size("32", "Size") == (32, 32)
    for text in ("0", "a", "1x2x3"):
        with pytest.raises(UserError, match="is not a size"):
            read_size(text, "Size")


def test_calibration_data_and_samples_are_chosen_and_asked_for(studio: Any, panel: DataPanel, tmp_path: Any) -> None:
    form = panel.calibration
    assert form.data.currentText() == "the data's own"
    assert form.choice.currentText() == "random"

    def asked() -> ActivationStatistics:
        studio.settle()
        return [request for request in studio.engine.asked if isinstance(request, ActivationStatistics)][-1]

    form.choice.activated.emit(form.choice.findData("balanced"))
    assert asked().calibration_choice == "balanced"
    assert "equally many of each class" in form.words.text()
    form.data.activated.emit(form.data.findData("noise:uniform"))
    source = asked().calibration_data
    assert source is not None
    assert source.source == "noise:uniform"
    assert form.data.currentText() == "Uniform noise"
    assert "on purpose" in form.words.text()
    form.ask_file = lambda: ""
    form.data.activated.emit(form.data.findData("file"))
    assert form.data.currentText() == "Uniform noise"
    form.ask_folder = lambda: str(tmp_path / "other")
    form.data.activated.emit(form.data.findData("folder"))
    source = asked().calibration_data
    assert source is not None
    assert source.source == str(tmp_path / "other")
    assert form.data.currentText() == "other"
    form.data.activated.emit(form.data.findData(""))
    assert asked().calibration_data is None
