"""Values as JSON: every field by its name, and never NaN or infinity, which JSON does not have."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from qstudio import __version__
from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.recipe import LayerSettings, Recipe
from qstudio.core.results import RunResult
from qstudio.core.scheme import Granularity
from qstudio.core.statistics import SiteStatistics


def plain(value: Any) -> Any:
    """Return a value as dicts, lists, texts and finite numbers; what is not finite becomes None."""
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Granularity):
        return str(value)
    if isinstance(value, Recipe):
        return value.to_json()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        shown = (f.name for f in fields(value) if not f.name.startswith("_") and f.metadata.get("json", True))
        return {name: plain(getattr(value, name)) for name in shown}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def plain_run(result: RunResult, model: ModelInfo, data: str) -> dict[str, Any]:
    """Return a run: `float`, `simulated`, `exported`, `parity`, `size_bytes`, `latency_ms`, `layers`, `recipe`, ..."""
    return {
        "qstudio": __version__,
        "model": model.path,
        "data": data,
        **plain(result),
        "layers": [{**plain(layer), "schemes": dict(layer.schemes)} for layer in result.layers],
        "versions": dict(result.versions),
    }


def plain_model(model: ModelInfo) -> dict[str, Any]:
    """Return what is known of a model besides its layers."""
    return {
        "name": model.name,
        "path": model.path,
        "format": model.format,
        "sha256": model.sha256,
        "opset": model.opset,
        "inputs": list(model.inputs),
        "outputs": list(model.outputs),
        "input_shape": list(model.input_shape),
        "parameters": model.parameters,
        "macs": sum(layer.macs for layer in model.layers),
        "float_size_bytes": model.float_size_bytes,
        "runnable": model.runnable,
        "unsupported": [dict(zip(("node", "operator", "reason"), item, strict=True)) for item in model.unsupported],
        "notes": list(model.notes),
    }


def plain_layer(layer: LayerInfo, settings: LayerSettings) -> dict[str, Any]:
    """Return a layer with the schemes of its sites under its settings."""
    from qstudio.core.formats import scheme_text

    schemes = {}
    if layer.weight is not None:
        schemes["weight"] = scheme_text(settings.weight_scheme())
    if layer.activation is not None:
        schemes["activation"] = scheme_text(settings.activation_scheme())
    return {
        "name": layer.name,
        "type": layer.op_type,
        "title": layer.title,
        "parameters": layer.parameters,
        "macs": layer.macs,
        "inputs": list(layer.inputs),
        "shares_with": layer.shares_with,
        "unsupported": layer.unsupported,
        "schemes": schemes,
    }


def plain_statistics(statistics: SiteStatistics) -> dict[str, Any]:
    """Return a site's statistics without the histogram's 2,048 bins."""
    histogram = statistics.histogram
    return {
        "site": statistics.site,
        "count": histogram.count,
        "minimum": plain(histogram.minimum),
        "maximum": plain(histogram.maximum),
        "mean": plain(histogram.mean),
        "std": plain(histogram.std),
        "zeros": histogram.zeros,
        "nonfinite": histogram.nonfinite,
        "channel_min": plain(statistics.channel_min),
        "channel_max": plain(statistics.channel_max),
        "samples": statistics.samples,
    }
