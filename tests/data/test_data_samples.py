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


def test_the_first_samples_are_taken_as_they_are_stored(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    chosen = choose_samples(digits, 7, 5, 7, choice="first")
    assert chosen.calibration_indices.tolist() == list(range(7))
    assert chosen.evaluation_indices.tolist() == EVALUATION
    assert chosen.notes == ("Calibrated with the first 7 samples as they are stored",)
    one = choose_samples(single(tmp_path, 40), 10, None, 0, choice="first")
    np.testing.assert_array_equal(one.evaluation_indices, np.arange(10, 40))


@pytest.mark.parametrize(
    ("wanted", "words"), [(60, "Calibrated with 6 samples"), (64, "Calibrated with 6 to 7 samples")]
)
def test_balanced_samples_are_equally_many_of_each_class(wanted: int, words: str) -> None:
    digits = load_dataset("digits")
    chosen = choose_samples(digits, wanted, 5, 3, choice="balanced")
    assert digits.train is not None
    assert digits.train.labels is not None
    counts = np.bincount(digits.train.labels[chosen.calibration_indices], minlength=10)
    assert counts.max() - counts.min() <= 1
    assert chosen.notes[0] == words + " of each of 10 classes"
    more = choose_samples(digits, wanted + 30, 5, 3, choice="balanced")
    assert set(chosen.calibration_indices) < set(more.calibration_indices)
    other = choose_samples(digits, wanted, 5, 4, choice="balanced")
    assert other.calibration_indices.tolist() != chosen.calibration_indices.tolist()


def test_of_a_rare_class_there_are_as_many_as_there_are(tmp_path: Path) -> None:
    labels = np.array([0] * 50 + [1] * 3)
    np.savez(tmp_path / "a.npz", x=np.arange(53, dtype=np.float32)[:, None], y=labels)
    data = load_dataset(str(tmp_path / "a.npz"))
    chosen = choose_samples(data, 20, None, 0, choice="balanced")
    assert np.bincount(labels[chosen.calibration_indices]).tolist() == [17, 3]
    assert not set(chosen.calibration_indices) & set(chosen.evaluation_indices)
    assert len(chosen.evaluation_indices) == 33


def test_a_choice_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Choose one of random, first, balanced"):
        choose_samples(load_dataset("digits"), 5, 5, 0, choice="best")
    with pytest.raises(UserError, match=r"a\.npz has no labels"):
        choose_samples(single(tmp_path, 30), 5, 5, 0, choice="balanced")
