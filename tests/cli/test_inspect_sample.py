"""`qstudio inspect --sample`: one sample through the layers on the command line."""

from __future__ import annotations

from collections.abc import Callable

from cli_case import SAMPLES, Told

Cli = Callable[..., Told]


def test_a_sample_is_followed_through_the_layers(cli: Cli, model: str) -> None:
    words = ("inspect", model, "--data", "digits", *SAMPLES, "--weight-bits", "2", "--sample", "3")
    found = cli(*words, "--json").json["sample"]
    assert found["index"] == 3
    assert [layer["name"] for layer in found["layers"]] == ["x", "body.0.conv", "body[1]/conv", "fc"]
    assert 0 < found["layers"][1]["sqnr_db"] < 30
    for side in ("float", "quantized"):
        scores = [best["score"] for best in found[side]]
        assert scores == sorted(scores, reverse=True)
        assert 0 <= min(scores) <= max(scores) <= 1
    flips = found["float"][0]["class"] != found["quantized"][0]["class"]
    assert (found["flips_at"] is not None) == flips
    told = cli(*words).out
    assert "sample 3, label " in told
    assert "class flips at" in told if flips else "the class does not flip" in told


def test_a_sample_that_is_not_there_is_refused_in_a_line(cli: Cli, model: str) -> None:
    told = cli("inspect", model, "--data", "digits", *SAMPLES, "--sample", "100000")
    assert told.status == 2
    assert "there is no sample 100,000. Choose 0 to " in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert "--sample: there is no data" in cli("inspect", model, "--sample", "0").err
