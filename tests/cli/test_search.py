"""`qstudio search`: limits as people write them, one JSON object, and the numbers of `qstudio quantize`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_case import SAMPLES, Told

from qstudio.cli import search_options
from qstudio.cli.search import quantity
from qstudio.core.errors import UserError
from qstudio.core.search import RESOURCES
from qstudio.core.search_settings import COUPLINGS, DAMAGES, SOLVERS

Cli = Callable[..., Told]

QUICK = ("--candidates", "8,4,3", "--damage-samples", "16", "--front-points", "3", "--no-latency")


def words(model: str, *more: str) -> list[str]:
    return ["search", model, "--data", "digits", *SAMPLES, *QUICK, *more]


def test_the_recipe_that_is_found_runs_as_quantize_runs_it(cli: Cli, model: str, tmp_path: Path) -> None:
    output, kept = tmp_path / "q.onnx", tmp_path / "kept.json"
    told = cli(*words(model, "--average-bits", "4", "-o", str(output), "--save-recipe", str(kept), "--json"))
    assert told.status == 0, told.err
    found = told.json
    search = found["search"]
    assert search["chosen"]["average_bits"] <= 4
    assert search["chosen"]["size_bytes"] == found["size_bytes"]["quantized"]
    assert search["settings"]["limits"] == {"average_bits": 4.0}
    assert search["chosen"]["recipe_hash"] == found["recipe_hash"]
    assert {point["uniform"] for point in search["uniforms"]} >= {"W8", "W6", "W4", "W3"}
    assert {"budget", "layers", "predicted_damage", "damage", "size_bytes", "bops", "measured"} <= set(
        search["front"][0]
    )
    assert output.exists()
    again = cli("quantize", model, "--data", "digits", *SAMPLES, "--recipe", str(kept), "--no-latency", "--json").json
    for name in ("float", "simulated", "exported", "parity", "layers", "recipe_hash"):
        assert again[name] == found[name], name


def test_text_for_people_shows_front_and_choice(cli: Cli, model: str) -> None:
    told = cli(*words(model, "--max-size", "0.8kB", "--max-bops", "3M"))
    assert told.status == 0, told.err
    for word in ("front along size_bytes", "uniform W4", "chosen:", "predicted", "rank correlation", "parity"):
        assert word in told.out, word


def test_layers_that_are_set_or_kept_are_not_searched(cli: Cli, model: str) -> None:
    more = ("--first-last-bits", "8", "--set", "body.0.conv.weight_bits=7", "--max-drop", "100", "--json")
    layers = cli(*words(model, *more)).json["search"]["groups"]
    assert [group["layers"] for group in layers] == [["body[1]/conv"]]
    told = cli(*words(model, "--keep", "body*", "--average-bits", "9", "--json"))
    assert [group["layers"] for group in told.json["search"]["groups"]] == [["fc"]]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "nothing is limited"),
        (("--average-bits", "one"), "'one' is not a number"),
        (("--average-bits", "1"), "the least that the candidates allow is 3"),
        (("--average-bits", "4", "--candidates", "8,x"), "'x' is not a bit width"),
        (("--average-bits", "4", "--keep", "milk*"), "no layer of the model matches 'milk*'"),
        (("--average-bits", "4", "--group", "milk*"), "no layer matches milk*"),
        (("--average-bits", "4", "--damage-samples", "0"), "'0' is not a whole number"),
    ],
)
def test_what_cannot_be_searched_is_said_in_one_line(cli: Cli, model: str, more: tuple[str, ...], said: str) -> None:
    told = cli(*words(model, *more))
    assert told.status == 2
    assert said in told.err
    assert len(told.err.splitlines()) == 1


def test_figures_are_kept_in_a_file(cli: Cli, model: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert cli(*words(model, "--average-bits", "4", "--resume", str(file))).status == 0
    assert json.loads(file.read_text())["entries"]
    again = cli(*words(model, "--average-bits", "5", "--resume", str(file), "--json"))
    assert again.json["search"]["computed"] == 0


@pytest.mark.parametrize(("text", "value"), [("4", 4), ("0.5", 0.5), ("40kB", 40e3), ("1.5 MB", 1.5e6), ("60M", 60e6)])
def test_amounts_are_read_with_their_units(text: str, value: float) -> None:
    assert quantity(text, "--max-size") == value
    with pytest.raises(UserError):
        quantity("-" + text, "--max-size")


def test_the_options_offer_what_there_is() -> None:
    assert set(search_options.DAMAGES) == set(DAMAGES)
    assert set(search_options.SOLVERS) == set(SOLVERS)
    assert set(search_options.COUPLINGS) == set(COUPLINGS)
    assert set(search_options.AXES) == set(RESOURCES)
