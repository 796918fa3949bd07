"""A small model on disk, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from cli_case import Told, small_model

import qstudio.cli


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "small.onnx"
    onnx.save(small_model(), path)
    return str(path)


@pytest.fixture
def cli(
    capfd: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Told]:
    """Call `qstudio.cli.main` here, with its log folder elsewhere."""
    logs = tmp_path_factory.mktemp("logs")
    monkeypatch.setattr("platformdirs.user_log_dir", lambda *_, **__: str(logs))

    def call(*words: str) -> Told:
        capfd.readouterr()
        status = qstudio.cli.main(list(words))
        out, err = capfd.readouterr()
        return Told(status, out, err)

    return call
