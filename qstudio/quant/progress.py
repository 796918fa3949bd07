"""How far a run is: the progress of its phases as one figure."""

from __future__ import annotations

from qstudio.core.context import JobContext
from qstudio.core.pruning import prunes
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS
from qstudio.quant.evaluate import Report


class RunProgress:
    """Turns the progress of each phase into the progress of the run."""

    SHARES = (
        ("prune", 0.05, "Pruning"),
        ("prepare", 0.05, "Refining the network"),
        ("calibrate", 0.08, "Collecting statistics"),
        ("refine", 0.3, "Refining the weights"),
        ("train", 0.0, "Training"),
        ("float", 0.25, "Evaluating the float model"),
        ("simulate", 0.3, "Evaluating the quantized model"),
        ("compare", 0.04, "Comparing layers"),
        ("export", 0.01, "Exporting"),
        ("verify", 0.32, "Running the export in onnxruntime"),
        ("time", 0.1, "Measuring latency"),
        ("done", 0.0, "Done"),
    )
    """(phase, share of the whole, note); shares as measured on ResNet-20 with 10,000 images, without a training."""

    LEARNING = ("adaround", "brecq")
    """Refinements that take some ten times as long as the rest of the run."""

    STEP = 4.0
    """What training on a sample costs, in evaluations of a sample: forward, backward, quantizers, and the teacher."""

    def __init__(self, ctx: JobContext, measure_latency: bool, recipe: Recipe, training: float = 0.0) -> None:
        """`training` is how many samples are trained on in all epochs, for each one that is evaluated on."""
        self._ctx = ctx
        chosen = {text.partition(":")[0] for text in recipe.refinements}
        stages = {REFINEMENTS[name].stage for name in chosen}
        there = {
            "prune": prunes(recipe),
            "prepare": "network" in stages,
            "refine": "values" in stages,
            "time": measure_latency,
            "train": training > 0,
        }
        factor = {"refine": 30.0} if chosen.intersection(self.LEARNING) else {}
        shares = {phase: share * factor.get(phase, 1.0) for phase, share, _ in self.SHARES}
        shares["train"] = self.STEP * training * shares["float"]
        self._shares = [(phase, shares[phase], note) for phase, _, note in self.SHARES if there.get(phase, True)]
        self._total = sum(share for _, share, _ in self._shares)
        self.quiet = Checked(ctx)

    def part(self, phase: str) -> Report:
        """Return the report function of one phase; it raises JobCancelled when the run is to stop."""
        before = 0.0
        for name, share, note in self._shares:
            if name == phase:
                return lambda done, total: self._ctx.report(
                    (before + share * done / max(total, 1)) / self._total, 1.0, note
                )
            before += share
        raise KeyError(phase)

    def context(self, phase: str) -> JobContext:
        """Return the context of one phase that words its own notes; a phase that is left out only checks."""
        before = 0.0
        for name, share, _ in self._shares:
            if name == phase:
                return _Within(self._ctx, before / self._total, share / self._total)
            before += share
        return self.quiet


class Checked:
    """A context whose progress is not shown, but which stops when the run is stopped."""

    def __init__(self, ctx: JobContext) -> None:
        self._ctx = ctx

    def report(self, done: float, total: float, note: str = "") -> None:
        """Check for cancellation."""
        self._ctx.check()

    def partial(self, value: object) -> None:
        """Drop the value."""

    def check(self) -> None:
        """Check for cancellation."""
        self._ctx.check()


class _Within(Checked):
    """A context whose progress is a stretch of the run's."""

    def __init__(self, ctx: JobContext, before: float, share: float) -> None:
        super().__init__(ctx)
        self._before, self._share = before, share

    def report(self, done: float, total: float, note: str = "") -> None:
        """Tell the progress of the run."""
        self._ctx.report(self._before + self._share * done / max(total, 1e-9), 1.0, note)
