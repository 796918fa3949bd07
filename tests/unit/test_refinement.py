"""Refinements as a recipe names them: order, parameters, words."""

from __future__ import annotations

import pytest

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS, STAGES, check_refinements


def test_they_run_in_one_order_however_they_are_named() -> None:
    named = ("bias_correction", "adaround", "smoothquant", "cle")
    assert check_refinements(named) == ("fold", "cle", "smoothquant", "adaround", "bias_correction")
    assert check_refinements(reversed(named)) == check_refinements(named)
    assert check_refinements(()) == ()
    assert check_refinements(("fold",)) == ("fold",)


def test_parameters_are_kept_in_canonical_form() -> None:
    assert check_refinements(("adaround:batch=16:iterations=20",)) == ("fold", "adaround:iterations=20:batch=16")
    assert check_refinements(("adaround:iterations=500",)) == ("fold", "adaround")
    assert REFINEMENTS["gptq"].settings("gptq:act_order=1") == {"damping": 0.01, "act_order": 1.0}
    recipe = Recipe(refinements=check_refinements(("brecq:drop=0",)))
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.sha256() != Recipe(refinements=check_refinements(("brecq",))).sha256()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("magic",), "no refinement 'magic'"),
        (("gptq", "brecq"), "gptq and brecq both choose how weights are rounded"),
        (("cle", "cle:absorb=0"), "named twice"),
        (("cle:strength=2",), "cle has no parameter 'strength'"),
        (("bias_correction:x=1",), "bias_correction has no parameter 'x'"),
        (("adaround:iterations=0",), "'0' does not fit adaround's iterations"),
        (("adaround:iterations=1.5",), "Give a whole number from 1 to 100000"),
        (("adaround:rate",), "'' does not fit adaround's rate"),
        (("smoothquant:alpha=nan",), "Give a number from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_refinements(names)
    assert said in caught.value.sentence()


def test_every_refinement_explains_itself() -> None:
    for refinement in REFINEMENTS.values():
        assert refinement.stage in STAGES
        assert (refinement.target == "") == (refinement.stage == "import")
        for words in (refinement.title, refinement.summary, refinement.formula, refinement.source):
            assert words
        for parameter in refinement.parameters:
            assert parameter.low <= parameter.default <= parameter.high
            assert parameter.title
            assert parameter.help.endswith(".")
