"""The training loop: stages, epochs, steps, and a checkpoint after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qstudio.core.context import JobContext
from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.statistics import SiteStatistics
from qstudio.core.training import CurvePoint, Training
from qstudio.data.samples import Samples
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluate import predict
from qstudio.quant.network import Network
from qstudio.quant.prune.gradual import GradualPruning, Masks
from qstudio.quant.qat.batchnorm import FileNorm
from qstudio.quant.qat.checkpoint import CheckpointFolder, Progress, Saved, later
from qstudio.quant.qat.losses import Seen, Teacher, divergence, loss_of
from qstudio.quant.qat.samples import TrainingSamples
from qstudio.quant.qat.schedule import Stage, Stepper, rate_factor, stages_of
from qstudio.quant.qat.starting import float_statistics, stage_bits, stage_recipe, starting_encodings
from qstudio.quant.qat.student import Student

OnPoint = Callable[[CurvePoint], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """The best epoch of a training."""

    encodings: Encodings
    values: dict[str, NDArray[np.float32]]
    """Weights and biases before rounding, by initializer."""
    curve: tuple[CurvePoint, ...]
    best_epoch: int
    seconds: float
    resumed_after: int | None


class Trainer:
    """One training of one network.

    Args:
        network: The prepared float model; not changed.
        samples: What is trained on.
        calibration: Calibration samples, for the start of later stages.
        statistics: PTQ's activation statistics.
        recipe: All schemes.
        training: Everything that was chosen.
        ctx: Told the progress; stops between batches.
        on_point: Told each point of the curve.
        checkpoints: Where states are kept; None keeps none.
        original: The float network before it was pruned: teacher, and what is compared with; None = `network`.
        pruning: Of single weights, in steps; None where none are pruned.
        norms: Of each BatchNormalization that is kept, by the site of the weight it is folded into.

    Raises:
        UserError: The network's output is not a row of class scores.
    """

    def __init__(
        self,
        network: Network,
        samples: TrainingSamples,
        calibration: Samples,
        statistics: Mapping[str, SiteStatistics],
        recipe: Recipe,
        training: Training,
        ctx: JobContext,
        on_point: OnPoint | None = None,
        checkpoints: CheckpointFolder | None = None,
        original: Network | None = None,
        pruning: GradualPruning | None = None,
        norms: Mapping[str, FileNorm] | None = None,
    ) -> None:
        self._original, self._pruning, self._norms = original or network, pruning, norms or {}
        self._network, self._samples, self._calibration = network, samples, calibration
        self._statistics, self._recipe, self._training = statistics, recipe, training
        self._ctx, self._on_point, self._checkpoints = ctx, on_point, checkpoints
        self._stages = stages_of(stage_bits(recipe, network, training), training.epochs)
        held, split = samples.held_out, samples.split
        self._float_scores = predict(self._original, self._original.executor.run, split, held)
        self._labels = None if split.labels is None else torch.from_numpy(split.labels[held])
        if self._float_scores.shape[1] < 2:
            raise UserError("the model's output is not a row of class scores", network.outputs[0], "Train a classifier")
        if (
            self._labels is not None
            and not 0 <= int(self._labels.min()) <= int(self._labels.max()) < (self._float_scores.shape[1])
        ):
            raise UserError(
                f"labels up to {int(self._labels.max())} do not fit {self._float_scores.shape[1]} classes",
                "data",
                "Choose fitting data",
            )
        self._float_top1 = self._accuracy(self._float_scores)

    def run(self, *, further: bool = True) -> Trained:
        """Train, or continue from the checkpoint, and return the best epoch.

        Args:
            further: Train what is missing; else take the best epoch of the checkpoint as it is.

        Raises:
            UserError: The checkpoint does not fit, or holds no epoch of the last stage though one is asked for.
            JobCancelled: The training was stopped; the checkpoint has the best and the last whole epoch.
        """
        saved = self._saved()
        if not further and (saved is None or saved.best is None):
            raise UserError("no epoch at the recipe's own bits is done yet", "checkpoint", "Train on with --resume")
        state = self._begin() if saved is None else self._resume(saved)
        self._began = time.perf_counter() - state.progress.seconds
        if further:
            teacher = Teacher(self._original, self._samples, self._training, self._network)
            if saved is None:
                self._record(state, self._stages[0], 0, None, 0.0)
            for stage in self._stages[state.progress.stage :]:
                if stage.index != state.progress.stage:
                    state = self._next(state, stage)
                for epoch in range(state.progress.epoch + 1, stage.last_epoch + 1):
                    self._prune(state, epoch)
                    loss, rate = self._epoch(state, stage, epoch, teacher)
                    self._record(state, stage, epoch, loss, rate)
        assert state.best is not None, "the last stage has at least one epoch"
        assert state.progress.best_epoch is not None
        state.student.load(state.best)
        state.student.follow_weights()
        return Trained(
            state.student.learned_encodings(),
            state.student.float_values(),
            state.progress.curve,
            state.progress.best_epoch,
            state.progress.seconds,
            None if saved is None else saved.progress.epoch,
        )

    def _saved(self) -> Saved | None:
        if self._checkpoints is None:
            return None
        schemes = {
            str(stage.index): self._starting(self._stage_recipe(stage), self._statistics, {}).schemes
            for stage in self._stages
        }
        return self._checkpoints.read(schemes)

    def _stage_recipe(self, stage: Stage) -> Recipe:
        return self._recipe if stage.index == len(self._stages) - 1 else stage_recipe(self._recipe, stage.bits)

    def _starting(
        self, recipe: Recipe, statistics: Mapping[str, SiteStatistics], values: Mapping[str, NDArray[np.float32]]
    ) -> Encodings:
        return starting_encodings(self._network, recipe, statistics, values, self._training)

    def _begin(self) -> _State:
        start = self._starting(self._stage_recipe(self._stages[0]), self._statistics, {})
        return self._state(start, {}, Progress(0, 0), {} if self._pruning is None else self._pruning.start)

    def _resume(self, saved: Saved) -> _State:
        state = self._state(saved.start, saved.start_values, saved.progress, {})
        state.student.load(saved.leaves)
        state.stepper.load(saved.optimizer)
        state.student.follow_weights()
        state.best = saved.best
        return state

    def _next(self, before: _State, stage: Stage) -> _State:
        """Start a stage from the weights of the one before, ranges measured anew on the calibration samples."""
        values = before.student.latent_values()
        chosen = self._calibration
        statistics = float_statistics(
            self._network,
            values,
            chosen.calibration,
            chosen.calibration_indices,
            lambda done, total: self._ctx.check(),
        )
        start = self._starting(self._stage_recipe(stage), statistics, values)
        return self._state(start, values, later(before.progress, stage=stage.index), before.student.masks)

    def _prune(self, state: _State, epoch: int) -> None:
        """Prune a step further; the first one is done when training starts."""
        if self._pruning is not None and 1 < epoch <= self._pruning.steps:
            values = state.student.float_values()
            state.student.prune(self._pruning.masks(epoch, values, lambda done, total: self._ctx.check()))

    def _state(
        self, start: Encodings, values: dict[str, NDArray[np.float32]], progress: Progress, masks: Masks
    ) -> _State:
        student = Student(self._network, start, values, self._training, self._norms)
        student.prune(masks)
        return _State(student, Stepper(student, self._training), start, values, progress)

    def _epoch(self, state: _State, stage: Stage, epoch: int, teacher: Teacher) -> tuple[float, float]:
        """Train one epoch; return (mean loss of its samples, last learning rate).

        Raises:
            UserError: The loss is no longer a finite number.
        """
        training, per_epoch = self._training, self._samples.steps
        done = (epoch - stage.first_epoch) * per_epoch
        total, count, rate = 0.0, 0, 0.0
        for step, (positions, inputs, labels) in enumerate(self._samples.batches(epoch)):
            self._ctx.report(
                epoch - 1 + step / per_epoch, training.epochs, f"Training, epoch {epoch} of {training.epochs}"
            )
            rate = rate_factor(training, done + step, stage.epochs * per_epoch, per_epoch)
            feed = {self._network.inputs[0]: inputs}
            answer, features = teacher.answer(positions, feed) if teacher.needed else (None, {})
            seen = Seen(teacher.features)
            observe = seen if teacher.features else None
            live = training.batchnorm == "live" and done + step < training.batchnorm_freeze * stage.epochs * per_epoch
            outputs = state.student.run_live(feed, observe) if live else state.student.run(feed, observe)
            scores = outputs[self._network.outputs[0]]
            loss = loss_of(scores.reshape(len(scores), -1), labels, answer, seen.values, features, training)
            penalty = state.student.pact_penalty()
            state.stepper.zero_grad()
            (loss if penalty is None else loss + training.pact_decay * penalty).backward()
            state.student.mask_gradients()
            state.stepper.step(rate)
            state.student.hold()
            total += float(loss.detach()) * len(positions)
            count += len(positions)
            if not math.isfinite(total):
                raise UserError(f"the loss became infinite in epoch {epoch}", "training", "Choose a smaller --lr")
        return total / count, rate * training.learning_rate

    def _record(self, state: _State, stage: Stage, epoch: int, loss: float | None, rate: float) -> None:
        """Measure an epoch on the held-out samples, keep it if it is the best, and write the checkpoint."""
        self._ctx.report(epoch, self._training.epochs, "Measuring the quantized network")
        student, split = state.student, self._samples.split
        student.follow_weights()
        with torch.no_grad():
            parameters = student.parameters()
        scores = predict(
            self._network,
            lambda feed: student.run(feed, parameters=parameters),
            split,
            self._samples.held_out,
            lambda done, total: self._ctx.check(),
        )
        point = CurvePoint(
            epoch=epoch,
            bits=stage.bits,
            loss=loss,
            held_out_loss=self._held_out_loss(scores),
            quantized_top1=self._accuracy(scores),
            float_top1=self._float_top1,
            learning_rate=rate,
            scales=student.scales(),
            seconds=time.perf_counter() - self._began,
        )
        progress = later(state.progress, epoch=epoch, curve=(*state.progress.curve, point), seconds=point.seconds)
        score = (point.quantized_top1, -point.held_out_loss)
        done = self._pruning is None or epoch >= self._pruning.steps or self._pruning.steps == 1
        if done and stage.index == len(self._stages) - 1 and better(score, progress.best_score, len(scores)):
            progress = later(progress, best_epoch=epoch, best_score=score)
            state.best = {name: leaf.detach().clone() for name, leaf in student.tensors().items()}
        state.progress = progress
        if self._checkpoints is not None:
            self._checkpoints.write(progress, state.start, state.values, student.tensors(), state.stepper.tensors())
        if self._on_point is not None:
            self._on_point(point)

    def _accuracy(self, scores: NDArray[np.float32]) -> float:
        """Return the share of held-out samples in percent that are classed as labelled, or as by the float model."""
        wanted = self._float_scores.argmax(axis=1) if self._labels is None else self._labels.numpy()
        return 100.0 * float((scores.argmax(axis=1) == wanted).mean())

    def _held_out_loss(self, scores: NDArray[np.float32]) -> float:
        given = torch.from_numpy(scores)
        if self._labels is None:
            return float(divergence(given, torch.from_numpy(self._float_scores)))
        return float(F.cross_entropy(given, self._labels))


def better(score: tuple[float, float], best: tuple[float, float] | None, samples: int) -> bool:
    """Return whether an epoch is to be preferred to the best one so far.

    Accuracies that differ by less than the standard error of a difference count as equal, and the smaller loss decides:
    120 held-out samples cannot order two epochs 0.8 points apart, and the luckiest of many is often an early one.

    Args:
        score: (accuracy in percent, minus loss).
        best: Of the best epoch so far; None = there is none.
        samples: Held-out samples.
    """
    if best is None:
        return True
    # One sample right and one wrong are added, so that 100 % has an error too.
    share = (best[0] / 100 * samples + 1) / (samples + 2)
    error = 100 * math.sqrt(2 * share * (1 - share) / (samples + 2))
    return score[0] > best[0] + error or (score[0] >= best[0] - error and score[1] > best[1])


@dataclass(eq=False)
class _State:
    """What changes while a stage is trained."""

    student: Student
    stepper: Stepper
    start: Encodings
    values: dict[str, NDArray[np.float32]]
    """Where the stage's parameters started."""
    progress: Progress
    best: dict[str, Tensor] | None = None
