"""`qstudio inspect --sample`: one evaluation sample through the layers, float beside quantized."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import numpy as np

from qstudio.cli.asking import Asker
from qstudio.cli.choices import run_options
from qstudio.cli.plain import plain
from qstudio.cli.tables import number, table
from qstudio.core.errors import UserError
from qstudio.core.inspection import SampleTrace
from qstudio.core.recipe import Recipe
from qstudio.engine.messages import DataSpec, PreviewAccuracy, TraceSample

SHOWN_CLASSES = 5


def trace_sample(arguments: Namespace, spec: DataSpec | None, recipe: Recipe, asker: Asker) -> dict[str, Any]:
    """Run a sample through the layers and return what --json prints of it.

    Raises:
        UserError: There is no data, or no such sample.
    """
    if spec is None:
        raise UserError("there is no data to take a sample from", "--sample", "Name the data with --data")
    options = run_options(arguments)
    preview = PreviewAccuracy(
        arguments.model,
        spec,
        recipe,
        calibration_data=options.calibration_data,
        calibration_samples=options.calibration_samples,
        seed=options.seed,
        calibration_choice=options.calibration_choice,
    )
    trace: SampleTrace = asker.ask(TraceSample(preview, arguments.sample, max_channels=1, max_side=1))
    float_best, quantized_best = (
        np.argsort(-scores, kind="stable")[:SHOWN_CLASSES].tolist()
        for scores in (trace.float_scores, trace.quantized_scores)
    )
    return {
        "index": trace.index,
        "label": trace.label,
        "float": [_score(trace, place, trace.float_scores) for place in float_best],
        "quantized": [_score(trace, place, trace.quantized_scores) for place in quantized_best],
        "flips_at": trace.flips_at or None,
        "layers": [
            {"name": maps.layer, "sqnr_db": plain(maps.sqnr_db), "class_changed": maps.argmax_flips}
            for maps in trace.layers
        ],
        "notes": list(trace.notes),
    }


def _score(trace: SampleTrace, place: int, scores: Any) -> dict[str, Any]:
    name = trace.class_names[place] if place < len(trace.class_names) else str(place)
    return {"class": place, "name": name, "score": float(scores[place])}


def sample_text(found: dict[str, Any]) -> str:
    """Return a traced sample for people."""
    rows = [
        (layer["name"], number(layer["sqnr_db"], 1), "changed" if layer["class_changed"] else "")
        for layer in found["layers"]
    ]
    label = "" if found["label"] is None else f", label {found['label']}"
    best = "; ".join(
        f"{side} {', '.join('{name} {score:.3g}'.format(**score) for score in found[side][:3])}"
        for side in ("float", "quantized")
    )
    flips = f"the class flips at {found['flips_at']}" if found["flips_at"] else "the class does not flip"
    head = f"sample {found['index']}{label}: {best}; {flips}"
    notes = [f"note: {note}" for note in found["notes"]]
    return "\n".join([head, table(("layer", "sample SQNR, dB", "class"), rows, "lr"), *notes])
