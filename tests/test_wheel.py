"""The wheel as a person gets it: built, looked into, installed apart from the checkout, window and command started."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run([*command], cwd=cwd, capture_output=True, text=True, timeout=300, env=environment(cwd))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """Return an environment that leads to nothing of the checkout and writes nothing outside the folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")}
    return {**kept, **homes, "QT_QPA_PLATFORM": "offscreen"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    if importlib.util.find_spec("hatchling"):
        words.append("--no-build-isolation")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if done.returncode and "hatchling" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("hatchling is not installed and cannot be downloaded")
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("qstudio-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of an environment that holds the wheel, and sees today's packages besides."""
    folder = tmp_path_factory.mktemp("installed")
    home = folder / "venv"
    venv.create(home, with_pip=False)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # Only the folder's name goes on the path: the checkout's own editable installation is not followed.
    (site / "todays_packages.pth").write_text(
        "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}) + "\n"
    )
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index",
        "--force-reinstall", "--ignore-installed", str(wheel), cwd=folder)  # fmt: skip
    return python.parent


def python_says(installed: Path, code: str) -> str:
    return run(str(installed / "python"), "-c", code, cwd=installed.parent.parent).strip()


def test_the_wheel_holds_what_the_program_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    for needed in (
        "qstudio/__main__.py",
        "qstudio/__init__.pyi",
        "qstudio/py.typed",
        "qstudio/_sample_models/index.json",
        "qstudio/_sample_models/digits_cnn.onnx",
        "qstudio/_sample_models/digits_resnet.pt2",
        "qstudio/_sample_models/digits_mobilenet.onnx",
        "qstudio/_sample_models/digits_mlp.onnx",
    ):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.startswith("qstudio/_resources/") for name in names)
    assert {name.split("/")[0] for name in names} == {
        "qstudio",
        next(n for n in names if ".dist-info" in n).split("/")[0],
    }
    assert not [name for name in names if "test" in name.split("/")[-1] or "__pycache__" in name]
    assert "License-Expression: Apache-2.0" in metadata
    assert "qstudio = qstudio.__main__:main" in points


def test_what_is_installed_is_the_wheel(installed: Path) -> None:
    where = Path(python_says(installed, "import qstudio; print(qstudio.__file__)"))
    assert where.is_relative_to(installed.parent)
    listed = "from qstudio.core.resources import sample_models; print(*[m.path for m in sample_models()], sep='\\n')"
    samples = [Path(line) for line in python_says(installed, listed).splitlines()]
    assert len(samples) == 4
    assert all(path.is_relative_to(installed.parent) for path in samples)


def test_the_command_works_from_the_wheel(installed: Path) -> None:
    sample = python_says(installed, "from qstudio.core.resources import sample_models as s; print(s()[0].path)")
    told = run(str(installed / "qstudio"), "inspect", sample, "--json", cwd=installed.parent.parent)
    found = json.loads(told)
    assert found["model"]["runnable"]
    assert len([layer for layer in found["layers"] if layer["weight"]]) >= 3


def test_the_window_opens_on_a_sample_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    sample = python_says(installed, "from qstudio.core.resources import sample_models as s; print(s()[0].path)")
    report = tmp_path / "report.json"
    words = [str(installed / "qstudio"), sample, "--data", "digits"]
    variables = {**environment(tmp_path), "QSTUDIO_STARTUP_REPORT": str(report)}
    with subprocess.Popen(
        words, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        try:
            for _ in range(600):
                if report.exists() and "layers" in json.loads(report.read_text()):
                    break
                try:
                    child.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
                break
            assert report.exists(), (
                child.communicate(timeout=10)[0] if child.poll() is not None else "no window in 60 s"
            )
            assert set(json.loads(report.read_text())) == {"window", "layers"}
        finally:
            child.terminate()
            child.wait(20)


def test_an_editable_installation_finds_what_it_includes() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    included = text.split("[tool.hatch.build.targets.wheel.force-include]")[1].split("[")[0]
    folders = [line.split('"')[1] for line in included.splitlines() if "=" in line]
    assert folders == ["resources", "sample_models"]
    assert all((ROOT / folder).is_dir() for folder in folders), "pip install -e . fails without them"
