"""Jobs of pictures: one sample through the layers, one layer's weight as an image."""

from __future__ import annotations

import numpy as np

from qstudio.core.context import JobContext
from qstudio.core.errors import UserError
from qstudio.core.inspection import SampleTrace, WeightPictures
from qstudio.engine.jobs.preview import bench_of
from qstudio.engine.jobs.resident import opened_dataset, opened_model
from qstudio.engine.messages import PictureWeights, TraceSample
from qstudio.quant.evaluation.keys import digest
from qstudio.quant.evaluation.schemes import content
from qstudio.quant.keep import Kept, samples_key
from qstudio.quant.preview import left_out
from qstudio.quant.sample_maps import MapSize
from qstudio.quant.trace_sample import Traced, check_index, run_sample, sample_trace
from qstudio.quant.weight_pictures import weight_pictures


def picture_weights(request: PictureWeights, ctx: JobContext) -> WeightPictures:
    """Return one layer's weight as pictures, float and as the scheme rounds it.

    Raises:
        UserError: The layer does not exist or has no weight.
    """
    model = opened_model(request.model)
    try:
        site = model.info.layer(request.layer).weight
    except KeyError:
        raise UserError("the model has no such layer", request.layer, "Choose one of the layers in the table") from None
    if site is None:
        raise UserError("the layer has no weight", request.layer, "Choose another layer")
    return weight_pictures(site, model.value(site.id), request.scheme)


_traced: Kept[Traced] = Kept(4, 2**28, lambda traced: traced.size_bytes)
"""Samples that were looked at last: another layer's maps are then there at once."""


def trace_sample(request: TraceSample, ctx: JobContext) -> SampleTrace:
    """Run one sample through the float and the quantized network; streams the trace before the flips are known.

    Raises:
        UserError: Model, data or recipe cannot be used, or there is no sample of that index.
        JobCancelled: Asked to stop.
    """
    asked = request.preview
    dataset = opened_dataset(asked.data)
    split = dataset.test
    check_index(split, request.index)
    bench = bench_of(asked, ctx)
    encodings = bench.encodings(asked.recipe)
    size = MapSize(request.max_channels, request.max_side)

    def trace(traced: Traced) -> SampleTrace:
        return sample_trace(
            traced,
            bench.network,
            split,
            request.index,
            asked.recipe.sha256(),
            wanted=request.layers,
            size=size,
            class_names=dataset.class_names,
            notes=left_out(asked.recipe),
        )

    key = (
        bench.network.sha256,
        digest(content(encodings)),
        samples_key(dataset, split, np.array([request.index], np.int64)),
    )
    traced = _traced.get(key)
    if traced is None:
        traced = run_sample(
            bench.network,
            encodings,
            split,
            request.index,
            ctx=ctx,
            on_values=lambda values: ctx.partial(trace(values)),
        )
        _traced.put(key, traced)
    return trace(traced)
