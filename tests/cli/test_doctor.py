"""`qstudio doctor`: the report, and each thing that can be wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from cli_case import Told

from qstudio.cli import doctor

Cli = Callable[..., Told]


@pytest.fixture(autouse=True)
def _no_screen_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")


def by_name(told: Told) -> dict[str, dict[str, str]]:
    assert told.status == 0, told.err
    return {check["name"]: check for check in json.loads(told.out)["checks"]}


def test_a_sound_installation_has_no_problem(cli: Cli) -> None:
    told = cli("doctor", "--json")
    report = json.loads(told.out)
    checks = by_name(told)
    assert report["problems"] == 0, [check for check in report["checks"] if check["status"] == "problem"]
    assert checks["Qt"]["value"].startswith("platform offscreen")
    assert checks["torch"]["value"].startswith("2.")
    assert any(check["group"] == "Speed of int8" and check["meaning"] for check in report["checks"])
    assert "not available" in checks["NVIDIA GPU"]["value"] or checks["NVIDIA GPU"]["value"] == "available"


def test_the_text_is_for_people_and_fits_a_terminal(cli: Cli) -> None:
    told = cli("doctor")
    assert told.out.rstrip().endswith("Everything the program needs is here.")
    meanings = [line for line in told.out.splitlines() if line.startswith("     ")]
    assert meanings
    assert max(map(len, meanings)) <= doctor.LINE


@pytest.mark.parametrize(
    ("sets", "name", "status"),
    [
        (("x86", "avx2"), "VNNI", "note"),
        (("x86", "avx2", "avx512f", "avx512_vnni"), "avx512_vnni", "ok"),
        (("arm", "neon"), "dot products", "note"),
        (("arm", "neon", "neon_dotprod"), "neon_dotprod", "ok"),
    ],
)
def test_what_the_processor_means_for_int8(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...], name: str, status: str
) -> None:
    monkeypatch.setattr(doctor, "processor", lambda: ("a processor", sets))
    monkeypatch.setattr(doctor, "_window", lambda: doctor.Check("Window", "Qt", "not asked"))
    checks = by_name(cli("doctor", "--json"))
    assert checks[name]["status"] == status
    assert checks[name]["meaning"]
    assert ("VNNI" in checks or "dot products" in checks) == (status == "note")


def test_a_version_out_of_bounds_and_a_missing_package_are_named_with_the_way_out(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "onnx":
            raise doctor.PackageNotFoundError(name)
        return "6.12.0" if name.lower().startswith("pyside6") else "99"

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "_window", lambda: doctor.Check("Window", "Qt", "not asked"))
    checks = by_name(cli("doctor", "--json"))
    qt = next(check for name, check in checks.items() if name.lower().startswith("pyside6"))
    assert (qt["value"], qt["status"]) == ("6.12.0", "problem")
    assert "pip install" in qt["meaning"]
    assert checks["onnx"]["value"] == "missing"
    assert checks["onnx"]["status"] == "problem"


def test_a_window_that_cannot_open_is_told_in_its_own_words(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "nothing_of_this_name")
    qt = by_name(cli("doctor", "--json"))["Qt"]
    assert qt["status"] == "problem"
    assert "nothing_of_this_name" in qt["value"]


def test_a_folder_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: os.PathLike[str]) -> None:
    assert doctor._first_that_exists(os.path.join(tmp_path, "a", "b")) == os.fspath(tmp_path)
