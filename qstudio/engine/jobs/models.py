"""Jobs that look at a model: describe it, its weights, one layer quantized."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding
from qstudio.core.context import JobContext
from qstudio.core.encodings import DynamicEncoding, LevelEncoding, Other, OutlierEncoding
from qstudio.core.errors import UserError
from qstudio.core.histogram import histogram_of
from qstudio.core.metrics import cosine, sqnr_db
from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.rounding import round_values
from qstudio.core.statistics import SiteStatistics
from qstudio.engine.jobs.resident import OpenedModel, opened_model
from qstudio.engine.messages import LayerPreview, OpenModel, WeightPreview, WeightStatistics


def open_model(request: OpenModel, ctx: JobContext) -> ModelInfo:
    """Read a model and describe it.

    Raises:
        UserError: The file is not a model that can be opened.
    """
    return opened_model(request.path).info


def weight_statistics(request: WeightStatistics, ctx: JobContext) -> tuple[SiteStatistics, ...]:
    """Return histogram and channel ranges of every weight, in the layers' order; streams each as it is ready."""
    from qstudio.quant.statistics import weight_statistics as statistics_of

    model = opened_model(request.model)
    sites = list({layer.weight.id: layer.weight for layer in model.info.weighted_layers if layer.weight}.values())
    found = []
    for done, site in enumerate(sites):
        ctx.report(done, len(sites), site.layer)
        statistics = statistics_of(site, model.value(site.id))
        ctx.partial(statistics)
        found.append(statistics)
    return tuple(found)


def layer_preview(request: LayerPreview, ctx: JobContext) -> WeightPreview:
    """Quantize one layer's weight and compare it with float.

    Raises:
        UserError: The layer does not exist, has no weight, or the scheme leaves it in float.
    """
    from qstudio.quant.other_encodings import other_weight_encoding
    from qstudio.quant.weight_ranges import weight_encoding

    model = opened_model(request.model)
    site = _layer(model, request.layer).weight
    if site is None:
        raise UserError("the layer has no weight", request.layer, "Choose another layer")
    values = model.value(site.id)
    scheme = request.scheme
    encoding: Encoding | Other | None
    encoding = (weight_encoding if scheme.is_affine else other_weight_encoding)(scheme, site, values)
    if encoding is None:
        raise UserError("the layer stays in float", request.layer, "Choose a bit width for its weight")
    quantized = round_values(values, encoding)
    return WeightPreview(
        request.layer,
        request.scheme,
        histogram_of(quantized),
        sqnr_db(values, quantized),
        cosine(values, quantized),
        _channel_sqnr_db(values, quantized, site.channel_axis),
        *_ends(encoding, values.shape[site.channel_axis] if site.channel_axis is not None else 1),
    )


def _layer(model: OpenedModel, name: str) -> LayerInfo:
    try:
        return model.info.layer(name)
    except KeyError:
        raise UserError("the model has no such layer", name, "Choose one of the layers in the table") from None


def _channel_sqnr_db(
    values: NDArray[np.float32], quantized: NDArray[np.float32], axis: int | None
) -> NDArray[np.float64]:
    if axis is None:
        return np.array([sqnr_db(values, quantized)])
    rows = zip(np.moveaxis(values, axis, 0), np.moveaxis(quantized, axis, 0), strict=True)
    return np.array([sqnr_db(a, b) for a, b in rows])


def _ends(encoding: Encoding | Other, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the representable range of the tensor or of each channel; a channel's groups by their extremes."""
    if isinstance(encoding, OutlierEncoding):
        return _ends(encoding.inner, channels)
    assert not isinstance(encoding, DynamicEncoding)  # activations only
    low, high = encoding.low, encoding.high
    if isinstance(encoding, LevelEncoding):
        rows = channels if encoding.axis is not None else 1
        low, high = low.reshape(rows, -1), high.reshape(rows, -1)
        return (low.min(axis=1), high.max(axis=1)) if rows > 1 else (low.min(), high.max())
    return (low.min(axis=1), high.max(axis=1)) if low.ndim == 2 else (low, high)
