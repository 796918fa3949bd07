"""A program that works on a project until it is killed: `project_writer.py PROJECT SEED`.

After each edit and each state of a run that a window would show, it says so on stdout: what was said is in the file.
"""

from __future__ import annotations

import random
import sys

from session_fakes import FakeEngine, dataset, model, result, statistics

from qstudio.engine.messages import JobState, PtqPartial
from qstudio.session.session import Session


def main(path: str, seed: int) -> None:
    draw = random.Random(seed)
    engine = FakeEngine()
    session = Session(engine)
    session.open_model(path + ".onnx")
    engine.finish(engine.one("OpenModel"), model(path + ".onnx"))
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    session.project.save_as(path)
    names = tuple(f"layer {n}" for n in range(50))
    edits = runs = 0
    while True:
        chance = draw.random()
        if chance < 0.8:
            edits += 1
            session.set_layers(
                f"edit {edits}", tuple(draw.sample(names, draw.randint(1, 50))), weight_bits=edits % 15 + 1
            )
            print(f"edit {edits} {session.recipe.sha256()}", flush=True)
        elif chance < 0.9:
            for job in engine.pending("WeightStatistics"):
                engine.finish(job, tuple(statistics(f"{name}.weight") for name in ("conv1", "conv2", "fc")))
            session.undo()
            session.redo()
        else:
            runs += 1
            session.run_ptq()
            job = engine.one("RunPtq")
            assert job.on_partial is not None
            job.on_partial(PtqPartial("simulate", result(session.recipe, float(runs))))
            print(f"partial {runs}", flush=True)
            engine.finish(job, result(session.recipe, runs + 0.5), JobState.DONE)
            print(f"run {runs}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
