"""The progress of a run: one figure from 0 to 1 that never falls, whatever the phases count for themselves."""

from __future__ import annotations

import pytest

from qstudio.core.context import SilentContext
from qstudio.core.recipe import Recipe
from qstudio.quant.progress import RunProgress

AFTER = ("float", "simulate", "compare", "export", "verify", "time", "done")


class Heard(SilentContext):
    def __init__(self):
        super().__init__()
        self.shares = []

    def report(self, done, total, note=""):
        self.shares.append(done / total)


@pytest.mark.parametrize("training", [0.0, 0.5, 40.0])
def test_all_phases_make_one_figure(training):
    heard = Heard()
    progress = RunProgress(heard, True, Recipe(), training)
    progress.part("calibrate")(512, 512)
    for epoch in (5, 10, 20):
        progress.context("train").report(epoch, 20, "Training")
    trained = heard.shares[-1] if training else 0.0
    for phase in AFTER:
        progress.part(phase)(1, 2)
        progress.part(phase)(2, 2)
    assert heard.shares == sorted(heard.shares)
    assert heard.shares[-1] == pytest.approx(1.0)
    assert (trained > 0.9) == (training == 40.0), "a long training is most of the run"
