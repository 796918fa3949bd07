"""Copy as Python: a script that gives the numbers of a run."""

from __future__ import annotations

import os
import pprint
from dataclasses import fields

from qstudio.engine.messages import DataSpec, RunPtq
from qstudio.session.training import TrainingRecord


def python_script(request: RunPtq, record: TrainingRecord | None = None) -> str:
    """Return a script for a fresh Python with QStudio installed; every option that changes a number is spelled out.

    Args:
        request: The run.
        record: How it was trained; None for PTQ. Of a stopped training the script does all epochs and says so.
    """
    recipe = pprint.pformat(request.recipe.to_json(), width=100, sort_dicts=False)
    options = {
        "calibration_samples": request.calibration_samples,
        "calibration_choice": request.calibration_choice,
        "eval_samples": request.eval_samples,
        "seed": request.seed,
        "device": request.device,
        "export_path": request.export_path,
        "measure_latency": request.measure_latency,
        "latency_batch": request.latency_batch,
        "threads": request.threads,
        "storage": request.storage,
    }
    arguments = [
        repr(_full(request.model)),
        _data(request.data),
        "recipe",
        *(["training"] if record is not None else []),
        *([f"calibration_data={_data(request.calibration_data)}"] if request.calibration_data else []),
        *(f"{name}={value!r}" for name, value in options.items()),
    ]
    lines = "".join(f"    {argument},\n" for argument in arguments)
    shown = 'for name in ("float", "simulated", "exported", "parity", "size_bytes", "latency_ms"):\n'
    head = f"recipe = qstudio.Recipe.from_json(\n{_indent(recipe)}\n)\n"
    if record is None:
        return (
            '"""Made by QStudio: quantizes, measures and prints one run."""\n\n'
            f"import qstudio\n\n{head}result = qstudio.quantize(\n{lines})\n{shown}"
            "    print(name, getattr(result, name))\n"
        )
    training = record.settings
    settings = "".join(f"    {f.name}={getattr(training, f.name)!r},\n" for f in fields(training))
    stopped = ""
    if record.result is not None and not record.is_whole:
        stopped = (
            f"\n\nThe run was stopped after epoch {record.epochs_done} of {training.epochs} and gave its best epoch;"
            "\nthis script trains them all.\n"
        )
    return (
        f'"""Made by QStudio: trains with quantizers, measures and prints one run.{stopped}"""\n\n'
        f"import qstudio\n\n{head}training = qstudio.Training(\n{settings})\nresult = qstudio.train(\n{lines})\n"
        f"{shown}    print(name, getattr(result.run, name))\n"
    )


def _data(spec: DataSpec) -> str:
    given = [(f.name, getattr(spec, f.name)) for f in fields(spec) if f.name != "source"]
    parts = [repr(_full(spec.source)), *(f"{name}={value!r}" for name, value in given if value is not None)]
    return f"qstudio.DataSpec({', '.join(parts)})"


def _full(path: str) -> str:
    """Return a path that holds from any folder; names of built-in data stay as they are."""
    return os.path.abspath(path) if os.path.exists(path) else path


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
