from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qstudio.core.errors import UserError
from qstudio.data.dataset import Dataset
from qstudio.data.load import load_dataset
from qstudio.data.samples import choose_samples

CALIBRATION = [169, 257, 311, 423, 914]
EVALUATION = [325, 354, 425, 427, 444]


def single(folder: Path, count: int, name: str = "a.npz") -> Dataset:
    np.savez(folder / name, x=np.arange(count, dtype=np.float32)[:, None])
    return load_dataset(str(folder / name))


def test_the_training_split_calibrates() -> None:
    digits = load_dataset("digits")
    chosen = choose_samples(digits, 100, None, seed=0)
    assert chosen.calibration is digits.train
    assert chosen.evaluation is digits.test
    assert len(chosen.calibration_indices) == 100
    np.testing.assert_array_equal(chosen.evaluation_indices, np.arange(602))
    assert chosen.notes == ()


def test_of_one_split_calibration_samples_are_left_out(tmp_path: Path) -> None:
    chosen = choose_samples(single(tmp_path, 1000), 200, None, seed=3)
    both = np.concatenate([chosen.calibration_indices, chosen.evaluation_indices])
    np.testing.assert_array_equal(np.sort(both), np.arange(1000))
    assert len(chosen.evaluation_indices) == 800


def test_evaluation_does_not_depend_on_the_number_of_calibration_samples(tmp_path: Path) -> None:
    data = single(tmp_path, 1000)
    few, many = (choose_samples(data, count, 300, seed=0) for count in (50, 700))
    np.testing.assert_array_equal(few.evaluation_indices, many.evaluation_indices)
    assert set(few.calibration_indices) < set(many.calibration_indices)


def test_other_data_calibrates_and_all_is_evaluated(tmp_path: Path) -> None:
    data, other = single(tmp_path, 30), single(tmp_path, 50, "b.npz")
    chosen = choose_samples(data, 20, None, 0, other)
    assert chosen.calibration is other.test
    assert len(chosen.evaluation_indices) == 30
    again = choose_samples(data, 20, None, 0, single(tmp_path, 30))
    assert "use the same samples" in again.notes[0]


def test_the_choice_is_the_same_everywhere() -> None:
    digits = load_dataset("digits")
    chosen = choose_samples(digits, 5, 5, seed=7)
    assert chosen.calibration_indices.tolist() == CALIBRATION
    assert chosen.evaluation_indices.tolist() == EVALUATION
    assert choose_samples(digits, 5, 5, seed=8).calibration_indices.tolist() != CALIBRATION


def test_more_calibration_samples_than_there_are(tmp_path: Path) -> None:
    chosen = choose_samples(single(tmp_path, 11), 512, None, 0)
    assert (len(chosen.calibration_indices), len(chosen.evaluation_indices)) == (5, 6)
    assert "5 are for calibration" in chosen.notes[0]
    digits = choose_samples(load_dataset("digits"), 5000, 5000, 0)
    assert (len(digits.calibration_indices), len(digits.evaluation_indices)) == (1195, 602)
    assert "there are 1,195 samples for calibration, 5,000 were wanted" in digits.notes[0]
    with pytest.raises(UserError, match="one sample is not enough"):
        choose_samples(single(tmp_path, 1), 1, None, 0)


@pytest.mark.parametrize(("calibration", "evaluation", "seed"), [(0, None, 0), (1, 0, 0), (1, None, -1)])
def test_bad_numbers(calibration: int, evaluation: int | None, seed: int) -> None:
    with pytest.raises(UserError, match="--"):
        choose_samples(load_dataset("digits"), calibration, evaluation, seed)
