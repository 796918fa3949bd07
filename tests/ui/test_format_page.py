"""Number formats in the window: chosen in the inspector, explained there, and seen in the histogram."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from plot_fakes import ValuesEngine
from PySide6.QtCore import Qt

from qstudio.core.formats import FORMATS
from qstudio.core.levels import level_encoding
from qstudio.core.scheme import FLOAT_BITS
from qstudio.session.other_readout import VALUES, values_of
from qstudio.session.readout import inspect
from qstudio.ui.inspector import InspectorPanel
from qstudio.ui.inspector.format_row import format_words

LAYER = "block0.conv"


@pytest.fixture
def studio(make_studio: Callable[..., Any]) -> Any:
    return make_studio(ValuesEngine())


@pytest.fixture
def panel(studio: Any) -> InspectorPanel:
    studio.open()
    studio.session.select((LAYER,))
    panel = InspectorPanel(studio.session, studio.bridge)
    studio.show(panel, 420, 900)
    studio.settle()
    return panel


def pick(box: Any, data: str) -> None:
    """Choose an entry as a click on it does."""
    index = box.findData(data)
    box.setCurrentIndex(index)
    box.activated.emit(index)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "int"])
def test_choosing_a_format_sets_the_recipe_and_blocks_what_it_fixes(studio, panel, name):
    controls = panel.weights.controls
    pick(controls.format.format, name)
    studio.settle()
    item = FORMATS[name]
    assert studio.session.settings(LAYER).weight_format == name
    assert controls.bits.button(item.width(8)).isChecked()
    assert not controls.bits.button(1).isEnabled() or item.bits[0] == 1
    assert controls.symmetry.button(False).isEnabled() == item.uses_symmetry
    assert controls.calibration.isEnabled() == item.uses_range
    assert panel.weights.figures.text("sqnr").endswith("dB")
    studio.session.undo()
    studio.settle()
    assert controls.format.format.currentData() == "int"


def test_a_variant_is_chosen_beside_its_format(studio, panel):
    row = panel.weights.controls.format
    assert row.variant.isVisible()
    pick(row.variant, "torch")
    assert studio.session.settings(LAYER).weight_format == "int:torch"
    pick(row.format, "nf4")
    studio.settle()
    assert not row.variant.isVisible()


def test_choosing_a_format_takes_a_layer_out_of_float(studio, panel):
    studio.session.set_layers("float", (LAYER,), weight_bits=FLOAT_BITS)
    studio.settle()
    pick(panel.weights.controls.format.format, "kmeans")
    assert studio.session.settings(LAYER).weight_bits == 8


def test_every_format_is_explained_with_formula_width_and_source():
    for name, item in FORMATS.items():
        for side in item.kinds:
            words = format_words(item, side)
            assert item.formula in words, name
            assert item.source in words
            assert "bit" in words


def test_outliers_and_a_dynamic_scale_are_chosen(studio, panel):
    before = inspect(studio.session, LAYER, "weight")
    panel.weights.controls.outliers.setValue(2.0)
    studio.settle()
    assert studio.session.settings(LAYER).weight_outliers == 2.0
    after = inspect(studio.session, LAYER, "weight")
    assert before is not None
    assert after is not None
    assert after.clip[1] <= before.clip[1]
    dynamic = panel.activations.controls.dynamic
    panel.tabs.setCurrentIndex(1)
    studio.settle()
    studio.qtbot.mouseClick(dynamic.button(True), Qt.MouseButton.LeftButton)
    studio.settle()
    assert studio.session.settings(LAYER).activation_dynamic
    assert not panel.activations.controls.calibration.isEnabled()


def test_values_drawn_from_a_histogram_stand_for_the_tensor(studio):
    studio.open()
    statistics = next(iter(studio.session.weight_statistics.values()))
    histogram = statistics.histogram
    drawn = values_of(histogram)
    assert len(drawn) == VALUES
    assert drawn.min() == np.float32(histogram.minimum)
    assert drawn.max() == np.float32(histogram.maximum)
    assert float(drawn.std()) == pytest.approx(histogram.std, rel=0.02)
    scheme = studio.session.settings(LAYER).weight_scheme()
    encoding = level_encoding(
        type(scheme)("weight", 4, format="nf4"), drawn, None, float(drawn.min()), float(drawn.max())
    )
    assert encoding.levels.shape == (1, 16)
