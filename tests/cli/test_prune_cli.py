"""Pruning on the command line: one option for all layers, fields for some, words for what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
from cli_case import SAMPLES, Told

Cli = Callable[..., Told]


def test_a_pruned_model_is_smaller_and_says_what_is_gone(cli: Cli, model: str, tmp_path: Path) -> None:
    output, recipe = tmp_path / "q.onnx", tmp_path / "r.json"
    words = ["quantize", model, "--data", "digits", *SAMPLES, "--no-latency", "--prune", "l1_filter:50"]
    told = cli(*words, "--set", "fc.pruning=none", "-o", str(output), "--save-recipe", str(recipe), "--json")
    assert told.status == 0, told.err
    layers = {layer["name"]: layer["sparsity"] for layer in told.json["layers"]}
    # Half of both convolutions' filters; half of the columns of fc, whose own outputs stay.
    assert layers == {"x": None, "body.0.conv": 50.0, "body[1]/conv": 75.0, "fc": 50.0}
    assert told.json["size_bytes"]["sparse"] is None
    assert told.json["parity"]["agreement"] == 100.0
    shapes = {tuple(tensor.dims) for tensor in onnx.load(output).graph.initializer}
    assert {(2, 1, 3, 3), (3, 2, 3, 3), (10, 48)} <= shapes
    assert json.loads(recipe.read_text())["default"]["pruning"] == "l1_filter:50"
    again = cli("quantize", model, "--data", "digits", *SAMPLES, "--no-latency", "--recipe", str(recipe), "--json")
    assert again.json["simulated"] == told.json["simulated"]


def test_zeros_are_shown_beside_the_size_and_claim_nothing(cli: Cli, model: str) -> None:
    words = ["--data", "digits", *SAMPLES, "--no-latency", "--weight-bits", "4", "--activation-bits", "8"]
    more = ["--epochs", "2", "--training-samples", "120", "--prune", "taylor:50:global", "--prune-steps", "2"]
    told = cli("train", model, *words, *more)
    assert told.status == 0, told.err
    assert "pruned %" in told.out
    assert "without the zeros of pruned weights" in told.out
    assert "neither the file nor the latency gains" in told.out


def test_what_cannot_be_pruned_is_said_in_one_line(cli: Cli, model: str) -> None:
    for words, wanted in (
        (["quantize", "--prune", "l4:30"], "there is no pruning 'l4'"),
        (["quantize", "--prune", "l1_filter:120"], "'120' is not a share"),
        (["train", "--prune", "magnitude:50", "--prune-steps", "9", "--epochs", "3"], "pruning steps"),
        (
            ["train", "--prune", "magnitude:50", "--method", "dorefa", "--epochs", "1", "--weight-bits", "4"],
            "leave out zero",
        ),
    ):
        told = cli(words[0], model, "--data", "digits", *SAMPLES, "--no-latency", *words[1:])
        assert told.status == 2
        assert wanted in told.err
        assert len(told.err.strip().splitlines()) == 1
