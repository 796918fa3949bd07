"""Learning rates, stages, and the optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from qstudio.core.training import Training
from qstudio.quant.qat.student import Student


@dataclass(frozen=True)
class Stage:
    """Epochs trained at one least bit width."""

    index: int
    bits: int
    first_epoch: int
    """Counted from 1."""
    epochs: int

    @property
    def last_epoch(self) -> int:
        """The epoch after which the stage is done."""
        return self.first_epoch + self.epochs - 1


def stages_of(bits: tuple[int, ...], epochs: int) -> tuple[Stage, ...]:
    """Return the stages: equal shares of the epochs, what does not divide goes to the last."""
    share = epochs // len(bits)
    found = []
    for index, width in enumerate(bits):
        last = index == len(bits) - 1
        found.append(Stage(index, width, 1 + index * share, epochs - index * share if last else share))
    return tuple(found)


def rate_factor(training: Training, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step relative to the largest.

    Linear from 0 over the warm-up, then constant or half a cosine to 0 (Loshchilov and Hutter, 2017).

    Args:
        training: Schedule and warm-up.
        step: Counted from 0 in the stage.
        steps: Of the stage.
        steps_per_epoch: Batches of an epoch.
    """
    warm = min(round(training.warmup_epochs * steps_per_epoch), steps // 2)
    if step < warm:
        return (step + 1) / (warm + 1)
    if training.schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


class Stepper:
    """The optimiser with its parameter groups: weights (decayed), biases, scales.

    Args:
        student: Whose leaves are learned.
        training: Optimiser, rates, decay, clipping.
    """

    def __init__(self, student: Student, training: Training) -> None:
        self._training = training
        self._leaves = list(student.leaves().values())
        parts = (
            (student.weight_leaves(), 1.0, training.weight_decay),
            (student.bias_leaves(), 1.0, 0.0),
            (student.scale_leaves(), training.scale_rate, 0.0),
        )
        groups = [{"params": leaves, "weight_decay": decay} for leaves, _, decay in parts if leaves]
        self._relative = [relative for leaves, relative, _ in parts if leaves]
        fused = self._leaves[0].device.type in ("cpu", "cuda")
        if training.optimizer == "adam":
            # Decoupled decay (AdamW): a decay that Adam divides by the gradient's size would not be one.
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, fused=fused)
        else:
            self.optimizer = torch.optim.SGD(
                groups,
                lr=training.learning_rate,
                momentum=training.momentum,
                nesterov=training.momentum > 0,
                fused=fused,
            )

    def step(self, factor: float) -> None:
        """Take one step with the gradients there are, at `factor` of the largest rate."""
        for group, relative in zip(self.optimizer.param_groups, self._relative, strict=True):
            group["lr"] = self._training.learning_rate * factor * relative
        if self._training.clip_norm:
            torch.nn.utils.clip_grad_norm_(self._leaves, self._training.clip_norm)
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the optimiser's state, by "position/name"."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{position}/{name}": value
            for position, values in state.items()
            for name, value in values.items()
            if isinstance(value, torch.Tensor)
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take the state that `tensors` returned."""
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            position, _, name = key.partition("/")
            state.setdefault(int(position), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
