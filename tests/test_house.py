"""The house rules a program can check: lint, format, types, contracts, file sizes, what stands at the top."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ["qstudio", "tests", "sample_models"]
HARD_STOP = 600


def run(*command: str) -> None:
    done = subprocess.run([*command], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint() -> None:
    run(sys.executable, "-m", "ruff", "check", *PARTS)


def test_format() -> None:
    run(sys.executable, "-m", "ruff", "format", "--check", *PARTS)


def test_types() -> None:
    run(sys.executable, "-m", "mypy")


def test_import_contracts() -> None:
    run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as f; f()")


def test_no_file_passes_the_hard_stop() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > HARD_STOP
    }
    assert not long, f"split by noun: {long}"


def test_nothing_is_left_unfinished() -> None:
    unfinished = re.compile(r"NotImplementedError|\b(TODO|FIXME|XXX)\b|pass  # ")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "qstudio").rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if unfinished.search(line)
    ]
    assert not found, found


def test_only_what_belongs_stands_at_the_top() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    allowed = {"LICENSE", "README.md", "pyproject.toml", "qstudio", "resources", "sample_models", "tests"}
    top = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= allowed
