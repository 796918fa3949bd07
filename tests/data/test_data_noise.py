"""Noise in the place of calibration data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qstudio.core.errors import UserError
from qstudio.data.dataset import Dataset
from qstudio.data.load import load_dataset
from qstudio.data.noise import noise_dataset
from qstudio.data.samples import choose_samples


def coloured(folder: Path, layout: str | None = None) -> Dataset:
    """Images whose channels differ in mean and deviation."""
    draw = np.random.default_rng(0).integers(0, 256, (200, 6, 6, 3))
    images = (draw * np.array([0.2, 0.5, 1.0]) + np.array([10.0, 40.0, 0.0])).astype(np.uint8)
    np.savez(folder / "a.npz", x=images, y=np.zeros(200, np.int64))
    return load_dataset(str(folder / "a.npz"), layout=layout)


@pytest.mark.parametrize("layout", [None, "nhwc>nhwc"])
@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_noise_has_the_mean_and_deviation_of_each_channel(tmp_path: Path, kind: str, layout: str | None) -> None:
    data = coloured(tmp_path, layout)
    noise = noise_dataset(data, f"noise:{kind}", seed=1)
    drawn = noise.test.batch(np.arange(400))
    real = data.test.batch(np.arange(200))
    axes = (0, 1, 2) if layout else (0, 2, 3)
    assert drawn.dtype == np.float32
    assert noise.sample_shape == data.sample_shape
    np.testing.assert_allclose(drawn.mean(axes), real.mean(axes), atol=0.01)
    np.testing.assert_allclose(drawn.std(axes), real.std(axes), rtol=0.03)
    spread = np.abs(drawn - drawn.mean(axes, keepdims=True)) / drawn.std(axes, keepdims=True)
    assert (spread.max() < 1.8) == (kind == "uniform")


def test_a_sample_of_noise_is_the_same_whoever_asks(tmp_path: Path) -> None:
    data = coloured(tmp_path)
    noise = noise_dataset(data, "noise", seed=1)
    np.testing.assert_array_equal(noise.test.batch([5, 9])[1], noise_dataset(data, "noise", 1).test.batch([9])[0])
    assert noise.sha256 == noise_dataset(data, "noise:gaussian", 1).sha256
    others = {noise_dataset(data, "noise:uniform", 1).sha256, noise_dataset(data, "noise", 2).sha256, noise.sha256}
    assert len(others) == 3


def test_a_choice_with_noise_says_so_and_leaves_the_evaluation_alone(tmp_path: Path) -> None:
    data = coloured(tmp_path)
    chosen = choose_samples(data, 64, None, 0, noise_dataset(data, "noise:uniform", 0))
    assert len(chosen.calibration_indices) == 64
    assert len(chosen.evaluation_indices) == 200
    assert chosen.notes[0].startswith("The calibration data was uniform noise")


def test_what_noise_cannot_replace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Choose noise:gaussian or noise:uniform"):
        noise_dataset(coloured(tmp_path), "noise:pink", 0)
    (tmp_path / "a.txt").write_text("words of a text " * 400)
    with pytest.raises(UserError, match="token ids"):
        noise_dataset(load_dataset(str(tmp_path / "a.txt")), "noise", 0)
