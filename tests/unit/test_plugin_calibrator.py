"""The README's "how to add a calibrator": a package with an entry point, found by a fresh program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qstudio.core.calibration import CALIBRATORS, Calibrator, check_calibration, find_range
from qstudio.core.errors import UserError
from qstudio.core.histogram import histogram_of
from qstudio.core.registry import Registry, resolve
from qstudio.core.scheme import Scheme

README = Path(__file__).resolve().parents[2] / "README.md"

BUILT_IN = (
    "minmax",
    "moving_average",
    "percentile",
    "quantile",
    "mse",
    "entropy",
    "mean_std",
    "lsq",
    "manual",
)

EXAMPLE = '''
"""A calibrator that clips at k standard deviations around the mean."""

from qstudio.core.calibration import Calibrator


def find(histogram, scheme, k):
    """Return (low, high); values outside saturate."""
    reach = k * histogram.std
    return max(histogram.minimum, histogram.mean - reach), min(histogram.maximum, histogram.mean + reach)


SIGMA = Calibrator(
    id="sigma",
    title="Mean and deviation",
    summary="Clip at k standard deviations. Right for bell-shaped weights at low bit widths.",
    source="Choi et al., 2018",
    target="qstudio_sigma:find",
    parameter="standard deviations kept",
    default=3.0,
    bounds=(0.5, 10.0),
)
'''


def install(folder: Path, module: str, source: str, entry_points: str) -> None:
    """Lay out what `pip install` of a package leaves behind: the module and its metadata."""
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")


def in_fresh_python(folder: Path, script: str) -> str:
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{script}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_shows_this_very_example() -> None:
    block = re.search(r"```python\n(\"\"\"A calibrator that clips.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert block is not None, "README.md does not show how to add a calibrator"
    assert block.group(1).strip() == EXAMPLE.strip()
    assert len(EXAMPLE.strip().splitlines()) <= 30


def test_an_installed_calibrator_is_listed_and_used(tmp_path: Path) -> None:
    install(tmp_path, "qstudio_sigma", EXAMPLE, "[qstudio.calibrators]\nsigma = qstudio_sigma:SIGMA\n")
    script = """
import numpy as np
from qstudio.core.calibration import CALIBRATORS, check_calibration, find_range
from qstudio.core.histogram import histogram_of
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import Scheme
values = np.random.default_rng(0).normal(0.0, 2.0, 100_000).astype(np.float32)
print(list(CALIBRATORS), check_calibration("sigma"))
print(Recipe().with_default(weight_calibration="sigma:2").default.weight_calibration)
low, high = find_range(histogram_of(values), Scheme("weight", calibration="sigma:2"))
print(abs(low + 4) < 0.1, abs(high - 4) < 0.1, CALIBRATORS.broken)
"""
    lines = in_fresh_python(tmp_path, script).splitlines()
    assert lines[0] == f"{[*BUILT_IN, 'sigma']} sigma:3"
    assert lines[1:] == ["sigma:2", "True True ()"]


@pytest.mark.parametrize(
    ("source", "point", "reason"),
    [
        ("import no_such_package", "SIGMA", "No module named 'no_such_package'"),
        ("SIGMA = 3", "SIGMA", "it gives int, and Calibrator is needed"),
        ("", "SIGMA", "has no attribute"),
        (EXAMPLE.replace('id="sigma"', 'id="minmax"'), "SIGMA", "the id 'minmax' is taken"),
        (EXAMPLE.replace('id="sigma"', 'id="My Sigma"'), "SIGMA", "its id 'My Sigma' is not made of small letters"),
        ("raise SystemError('boom')", "SIGMA", "SystemError: boom"),
    ],
)
def test_a_broken_calibrator_is_kept_with_its_reason(tmp_path: Path, source: str, point: str, reason: str) -> None:
    install(tmp_path, "qstudio_sigma", source, f"[qstudio.calibrators]\nsigma = qstudio_sigma:{point}\n")
    script = """
from qstudio.core.calibration import CALIBRATORS, check_calibration
from qstudio.core.errors import UserError
print(list(CALIBRATORS))
[broken] = CALIBRATORS.broken
print(broken.name, broken.package, broken.reason)
try:
    check_calibration("sigma")
except UserError as error:
    print(error.sentence())
"""
    lines = in_fresh_python(tmp_path, script).splitlines()
    assert lines[0] == str([*BUILT_IN])
    assert lines[1].startswith("sigma qstudio_sigma ")
    assert reason in lines[1]
    assert lines[2].startswith("calibration: 'sigma': its plug-in is broken: ")
    assert reason in lines[2]


def test_built_ins_never_search_for_plug_ins() -> None:
    script = """
import sys
from qstudio.core.recipe import Recipe
Recipe().with_default(weight_calibration="mse", activation_calibration="percentile:99.9")
print("importlib.metadata" in sys.modules)
"""
    assert in_fresh_python(Path(), script).strip() == "False"


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_ins_come_in_through_the_same_door(name: str) -> None:
    calibrator = CALIBRATORS[name]
    assert callable(resolve(calibrator.target))
    values = np.linspace(-1.0, 3.0, 5001, dtype=np.float32)
    low, high = find_range(histogram_of(values), Scheme("activation", symmetric=False, calibration=name))
    assert low <= 0.0 < high
    assert name == "lsq" or -1.0 <= low <= high <= 3.0  # LSQ's first range may reach beyond the values


def failing(histogram: object, scheme: object, parameter: object) -> tuple[float, float]:
    raise KeyError("boom")


def endless(histogram: object, scheme: object, parameter: object) -> tuple[float, float]:
    return (0.0, float("inf"))


@pytest.mark.parametrize(("name", "words"), [("failing", "it failed"), ("endless", "it gave 0.0..inf")])
def test_a_calibrator_that_fails_says_so(name: str, words: str) -> None:
    calibrator = Calibrator("odd", "Odd", "", "", f"{__name__}:{name}")
    with pytest.raises(UserError, match=f"calibration odd: {words}"):
        calibrator.find(histogram_of(np.ones(3, np.float32)), Scheme("weight"))


def test_a_registry_takes_an_id_once_and_nothing_of_another_kind() -> None:
    registry: Registry[Calibrator] = Registry("qstudio.nothing", Calibrator, CALIBRATORS["minmax"])
    with pytest.raises(ValueError, match="is taken"):
        registry.add(CALIBRATORS["minmax"])
    with pytest.raises(ValueError, match="Calibrator is needed"):
        registry.add("minmax")  # type: ignore[arg-type]
    assert list(registry) == ["minmax"]
    assert len(registry) == 1
    assert "mse" not in registry


def test_resolve_names_what_is_missing() -> None:
    with pytest.raises(ImportError, match=r"qstudio\.core\.calibration has no 'nothing'"):
        resolve("qstudio.core.calibration:nothing")


def test_an_unknown_calibration_lists_what_there_is() -> None:
    with pytest.raises(UserError, match=f"Choose one of {', '.join(BUILT_IN)}"):
        check_calibration("best")
