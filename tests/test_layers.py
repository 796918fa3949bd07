"""The layers at run time: what each process loads, whatever the import contracts say about the text."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "sklearn", "scipy")
WINDOW = ("PySide6", "pyqtgraph", "qtawesome")


def loaded_after(code: str) -> set[str]:
    """Return the top-level names that a fresh Python has loaded after running some code."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    ["qstudio", "qstudio.core.recipe", "qstudio.session.session", "qstudio.engine.process_client", "qstudio.cli"],
)
def test_what_stands_below_the_window_loads_neither_engine_nor_qt(module: str) -> None:
    assert loaded_after(f"import {module}") & {*HEAVY, *WINDOW} == set()


def test_a_plain_session_chooses_without_engine_and_qt() -> None:
    code = """
from qstudio.engine.inline import InlineEngine
from qstudio.session.session import Session
session = Session(InlineEngine())
session.set_layers("4 bits", ("conv1",), weight_bits=4, activation_calibration="percentile:99.9")
session.undo()
"""
    assert loaded_after(code) & {*HEAVY, *WINDOW} == set()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into the memory maps of processes, which Linux shows")
def test_the_window_loads_no_engine_and_the_engine_no_window() -> None:
    """After real work in both: libraries that are mapped, whichever way they came in."""
    code = """
import os
os.environ["QT_QPA_PLATFORM"] = "offscreen"
if __name__ == "__main__":
    import json, psutil
    import qstudio.ui.main_window
    from qstudio.core.resources import sample_models
    from qstudio.engine.process_client import ProcessEngine
    from qstudio.session.session import Session
    session = Session(ProcessEngine())
    session.open_model(sample_models()[0].path)
    session.open_data("digits")
    session.wait(120)
    session.set_options(calibration_samples=16, eval_samples=16, measure_latency=False)
    session.run_ptq()
    session.wait(120)
    assert session.runs[0].result is not None and session.runs[0].result.exported is not None
    def maps(process):
        return sorted({m.path for m in process.memory_maps() if ".so" in m.path})
    here = psutil.Process()
    libraries = [maps(child) for child in here.children(recursive=True)]
    print(json.dumps([maps(here), [found for found in libraries if len(found) > 40]]))
    session.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    window, engines = json.loads(done.stdout.splitlines()[-1])
    assert any("PySide6" in library for library in window)
    assert not [library for library in window if "/torch/" in library or "onnx" in library]
    assert len(engines) == 2
    for libraries in engines:
        assert any("/torch/" in library for library in libraries)
        assert not [library for library in libraries if "PySide6" in library or "libQt" in library]


def test_onnxruntime_sends_no_events() -> None:
    """It would from 1.29 on, unless it is told not to before it is loaded, here and in the engine's processes."""
    code = """
import os, sys
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
import qstudio
print(os.environ["ORT_DISABLE_TELEMETRY"], "onnxruntime" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["1", "False"]
