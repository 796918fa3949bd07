"""What the window says about the integer kernels."""

from __future__ import annotations

import dataclasses

from qstudio.core.results import IntegerParity, Parity
from qstudio.ui.runs.figures import parity_words

PARITY = Parity(99.9, 1, 99.8, 99.8, 1000)


def test_runs_that_were_not_compared_say_nothing_of_it():
    assert "integer arithmetic" not in parity_words(PARITY)


def test_equal_codes_are_said_to_be_equal():
    exact = IntegerParity(100.0, 0, True, 128, 30)
    text = parity_words(dataclasses.replace(PARITY, integer_exact=exact))
    assert "every code of these kernels" in text
    assert "30 operators, 128 samples" in text


def test_the_first_tensor_that_differs_is_named():
    exact = IntegerParity(98.5, 2, False, 128, 30, ("up",), ("conv1", "conv2"))
    text = parity_words(dataclasses.replace(PARITY, integer_exact=exact))
    assert "98.5" in text
    assert "2 LSB" in text
    assert "conv1" in text
    assert "conv2" not in text
