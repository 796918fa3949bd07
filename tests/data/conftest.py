from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cases() -> Path:
    folder = Path(os.environ.get("QSTUDIO_CASES", Path(__file__).resolve().parents[3] / "shared" / "cases"))
    if not folder.is_dir():
        pytest.skip("the folder of cases is not here (set QSTUDIO_CASES)")
    return folder
