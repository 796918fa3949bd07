"""Bit operations and average bits of a recipe, as the search counts them."""

from __future__ import annotations

import pytest
from quant_cases import small_cnn

from qstudio.core.bit_operations import average_bits, bit_operations
from qstudio.core.recipe import Recipe
from qstudio.core.search_settings import SearchSettings
from qstudio.engine.jobs.describing import describe_model
from qstudio.graph.prepare import prepare
from qstudio.quant.network import network_for
from qstudio.quant.search.costs import Costs
from qstudio.quant.search.groups import couple


def test_as_the_search_counts():
    loaded = small_cnn()
    network, info = network_for(loaded), describe_model(loaded, prepare(loaded.proto))
    recipe = Recipe().with_layers(("conv2",), weight_bits=4, activation_bits=6).with_layers(("x",), activation_bits=5)
    amounts = Costs(network, couple(network, SearchSettings())).amounts(recipe)
    assert average_bits(info, recipe.settings) == pytest.approx(amounts["average_bits"])
    assert bit_operations(info, recipe.settings) == pytest.approx(amounts["bops"])
    assert bit_operations(info, recipe.settings) > 0
