"""Prunings as texts: what can be written, what comes of it, what is refused in words."""

import pytest

from qstudio.core.errors import UserError
from qstudio.core.pruning import METHODS, Pruning, check_pruning, parse_pruning, prunes, removes_filters, share_after
from qstudio.core.recipe import Recipe, Rule, make_values
from qstudio.core.scheme import Scheme
from qstudio.core.size import sparse_saving_bytes


@pytest.mark.parametrize(
    ("text", "canonical", "meaning"),
    [
        ("none", "none", None),
        ("", "none", None),
        ("l1_filter:0", "none", Pruning("l1_filter", 0.0)),
        ("L1_Filter:30%", "l1_filter:30", Pruning("l1_filter", 30.0)),
        ("magnitude:12.5", "magnitude:12.5", Pruning("magnitude", 12.5)),
        ("taylor_filter:50:global", "taylor_filter:50:global", Pruning("taylor_filter", 50.0, True)),
        ("taylor:50:layer", "taylor:50", Pruning("taylor", 50.0)),
    ],
)
def test_a_text_has_one_meaning_and_one_form(text, canonical, meaning):
    assert parse_pruning(text) == meaning
    assert check_pruning(text) == canonical
    assert check_pruning(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("l3_filter:30", "there is no pruning 'l3_filter'"),
        ("l1_filter", "is not a share"),
        ("l1_filter:100", "is not a share"),
        ("l1_filter:-1", "is not a share"),
        ("l1_filter:nan", "is not a share"),
        ("l1_filter:30:world", "'world' is not a scope"),
    ],
)
def test_what_is_not_a_pruning_is_refused_in_words(text, words):
    with pytest.raises(UserError, match=words) as refused:
        Recipe().with_default(pruning=text)
    assert refused.value.fix


def test_every_method_says_what_it_does_and_where_it_is_from():
    for method in METHODS.values():
        assert method.formula
        assert method.source
        assert method.summary
        assert method.structured or not method.over_inputs


def test_a_recipe_keeps_its_prunings_through_a_file():
    recipe = Recipe(rules=(Rule("layer3.*", make_values(pruning="l1_filter:50:global")),))
    recipe = recipe.with_default(pruning="magnitude:30").with_layers(("fc",), pruning="none")
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.sha256() == recipe.sha256()
    assert [again.settings(name).pruning for name in ("conv1", "layer3.0", "fc")] == [
        "magnitude:30",
        "l1_filter:50:global",
        "none",
    ]
    assert recipe.sha256() != Recipe().sha256()


def test_a_recipe_says_whether_it_prunes():
    assert not prunes(Recipe())
    assert not prunes(Recipe().with_layers(("fc",), pruning="none"))
    assert prunes(Recipe().with_layers(("fc",), pruning="taylor:10"))
    smaller = Recipe(rules=(Rule("*", make_values(pruning="l2_filter:5")),))
    assert prunes(smaller)
    assert removes_filters(smaller)
    assert not removes_filters(Recipe().with_layers(("fc",), pruning="taylor:10"))


def test_iterative_pruning_follows_the_cubic_schedule_of_zhu_and_gupta():
    # s_t = s_f + (s_i - s_f) (1 - t / (n dt))^3 with s_i = 0: of 80 % in 4 steps 46.25, 70, 78.75, 80
    assert [80 * share_after(step, 4) for step in range(5)] == pytest.approx([0, 46.25, 70, 78.75, 80])
    assert share_after(1, 1) == 1.0


def test_a_sparse_format_takes_a_bit_a_weight_and_the_codes_that_are_not_zero():
    # 1,000 weights of 8 bits, 300 of them not zero: 1,000 B dense, 125 B of bits and 300 B of codes
    assert sparse_saving_bytes(1000, 300, Scheme("weight", 8)) == 1000 - 125 - 300
    assert sparse_saving_bytes(1000, 300, Scheme("weight", 4)) == 500 - 125 - 150
    assert sparse_saving_bytes(1000, 1000, Scheme("weight", 4)) == 0
    assert sparse_saving_bytes(1000, 500, Recipe().with_default(weight_bits="float").settings("x").weight_scheme()) == (
        4000 - 125 - 2000
    )
