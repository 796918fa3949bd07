"""Layers chosen by the rank of their weights."""

from __future__ import annotations

import numpy as np
import pytest
from session_fakes import model as model_with_layers

from qstudio.core.errors import UserError
from qstudio.core.histogram import histogram_of
from qstudio.core.layer_rank import RankSelector, parse_selector
from qstudio.core.model_info import ModelInfo
from qstudio.core.statistics import SiteStatistics

VALUES = {"conv1": [3.0, -3.0], "conv2": [0.5] * 8, "fc": [-5.0, 0.1]}


def statistics(model: ModelInfo) -> dict[str, SiteStatistics]:
    found = {}
    for layer in model.weighted_layers:
        values = np.array(VALUES[layer.name], np.float32)
        ends = values[:1]
        assert layer.weight is not None
        found[layer.weight.id] = SiteStatistics(
            layer.weight.id, histogram_of(values), ends, ends, l1_norm=float(np.abs(values).sum())
        )
    return found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@l1:33%", ("conv1",)),
        ("@l1:-33%", ("conv2",)),
        ("@magnitude:33", ("fc",)),
        ("@mean:67%", ("conv1", "fc")),
        ("@l1:100%", ("conv1", "conv2", "fc")),
        ("@l1:1%", ("conv1",)),
    ],
)
def test_the_largest_or_smallest_share_is_chosen(text, names):
    model = model_with_layers()
    selector = parse_selector(text)
    assert selector is not None
    assert selector.layers(model, statistics(model)) == names


def test_globs_are_not_selectors():
    assert parse_selector("conv*") is None
    assert parse_selector("@L1:25%") == RankSelector("l1", 25.0)


@pytest.mark.parametrize("text", ["@l2:25%", "@l1", "@l1:0%", "@l1:101%", "@l1:x%", "@"])
def test_what_cannot_be_meant_is_said(text):
    with pytest.raises(UserError):
        parse_selector(text)
