"""Reading and writing of granularities and bit widths."""

from __future__ import annotations

import pytest

from qstudio.core.errors import UserError
from qstudio.core.scheme import FLOAT_BITS, Granularity, Scheme, format_bits, parse_bits


@pytest.mark.parametrize("text", ["tensor", "channel", "group:32"])
def test_granularities_survive_the_round_trip(text):
    assert str(Granularity.parse(text)) == text


@pytest.mark.parametrize("text", ["", "row", "group", "group:", "group:1", "group:-4", "group:x", "Tensor"])
def test_other_granularities_are_refused_with_the_choices(text):
    with pytest.raises(UserError) as caught:
        Granularity.parse(text)
    assert "group:N" in caught.value.fix


@pytest.mark.parametrize(("text", "bits"), [("8", 8), (2, 2), ("16", 16), ("float", FLOAT_BITS), ("32", FLOAT_BITS)])
def test_bit_widths_are_read_and_written(text, bits):
    assert parse_bits(text) == bits
    assert parse_bits(format_bits(bits)) == bits


@pytest.mark.parametrize("text", ["17", "0", "-8", "8.5", "eight", ""])
def test_other_bit_widths_are_refused(text):
    with pytest.raises(UserError):
        parse_bits(text)


def test_only_32_bits_mean_float():
    assert Scheme("weight", FLOAT_BITS).is_float
    assert not Scheme("weight", 16).is_float
