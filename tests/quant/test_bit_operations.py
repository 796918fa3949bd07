"""Bit operations and average bits counted from a model's description are those the search counts."""

from __future__ import annotations

import random

import pytest

from qstudio.core.bit_operations import average_bits, bit_operations
from qstudio.core.recipe import Recipe
from qstudio.core.resources import sample_models
from qstudio.core.search_settings import SearchSettings
from qstudio.engine.inline import InlineEngine
from qstudio.graph.load import load_model
from qstudio.quant.network import network_for
from qstudio.quant.search.costs import Costs
from qstudio.quant.search.groups import couple
from qstudio.session.session import Session


@pytest.mark.parametrize("name", ["digits_mobilenet", "digits_cnn"])
def test_they_are_those_of_the_search(name):
    path = next(str(sample.path) for sample in sample_models() if name in str(sample.path))
    session = Session(InlineEngine())
    session.open_model(path)
    session.wait()
    network = network_for(load_model(path), True, "cpu")
    costs = Costs(network, couple(network, SearchSettings()))
    rng = random.Random(0)
    recipe = Recipe()
    for _ in range(3):
        amounts = costs.amounts(recipe)
        assert bit_operations(session.model, recipe.settings) == amounts["bops"] > 0
        assert average_bits(session.model, recipe.settings) == pytest.approx(amounts["average_bits"])
        for layer in session.model.layers:
            width = rng.choice((4, 8, "float"))
            recipe = recipe.with_layers((layer.name,), weight_bits=rng.choice((2, 4, 8)), activation_bits=width)
    session.close()
