"""Which statistics belong to which model, data and options: they are kept under a hash of all they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import qstudio
from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.model_info import ModelInfo, SiteInfo
from qstudio.core.sample_choice import is_noise
from qstudio.core.statistics import SiteStatistics
from qstudio.session.options import RunOptions

KEPT_KEYS = 6
"""Keys whose statistics are kept: weights, and activations of the options chosen last."""


def weights_key(model: ModelInfo) -> str:
    """Return the key of a model's weights."""
    return _key("weights", model.sha256)


def activations_key(model: ModelInfo, dataset: DatasetInfo, options: RunOptions) -> str:
    """Return the key of the activations over the calibration samples.

    Empty where calibration data of its own is chosen: its content is not known here, so that what was kept could be
    stale.
    """
    own = options.calibration_data
    if own is not None and not is_noise(own.source):
        return ""
    drawn = (options.calibration_samples, options.calibration_choice, options.seed, options.eval_samples, repr(own))
    return _key("activations", model.sha256, dataset.sha256, dataset.preprocess, dataset.sizes, *drawn)


def _key(*parts: object) -> str:
    text = json.dumps([qstudio.__version__, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fits_weights(found: Mapping[str, SiteStatistics], model: ModelInfo) -> bool:
    """Return whether statistics are those of all weights of a model, with as many channels as they have."""
    sites = [layer.weight for layer in model.weighted_layers if layer.weight is not None]
    return bool(found) and all(site.id in found and _fits(found[site.id], site) for site in sites)


def fits_activations(found: Mapping[str, SiteStatistics], model: ModelInfo) -> bool:
    """Return whether statistics are of activations of a model, with as many channels as they have."""
    sites = {layer.activation.id: layer.activation for layer in model.layers if layer.activation is not None}
    return bool(found) and all(name in sites and _fits(statistics, sites[name]) for name, statistics in found.items())


def _fits(statistics: SiteStatistics, site: SiteInfo) -> bool:
    axis = site.channel_axis
    wanted = site.shape[axis] if axis is not None and axis < len(site.shape) else None
    counts = statistics.channel_counts
    channels = len(statistics.channel_min)
    return (wanted is None or channels in (1, wanted)) and (counts is None or len(counts) == channels)
