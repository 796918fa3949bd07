"""Learn the rounding of one unit so that its output comes close to the float network's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from qstudio.quant.executor import Executor, Parameters
from qstudio.quant.refine.soft_rounding import SoftWeight
from qstudio.quant.refine.step_size import CoinFlips, LearnedStep
from qstudio.quant.refine.units import Unit


@dataclass(frozen=True)
class Schedule:
    """How long and how hard to learn.

    Attributes:
        iterations: Steps of the optimiser for each unit.
        batch: Samples of a step.
        rounding_rate: Learning rate of V (Adam).
        scale_rate: Learning rate of the logarithms of steps and scales.
        bias_rate: Learning rate of biases, in units of the output's deviation.
        regularizer: Weight of the rounding term against the reconstruction, both about 1 at the start.
        warmup: Share of the iterations before the rounding term sets in.
        beta_start: Exponent at its beginning.
        beta_end: Exponent at the end.
        drop: Whether half of the activations stay unrounded in each step (QDrop, Wei et al., 2022).
    """

    iterations: int
    batch: int = 32
    rounding_rate: float = 0.2
    scale_rate: float = 1e-3
    bias_rate: float = 1e-3
    regularizer: float = 100.0
    warmup: float = 0.2
    beta_start: float = 8.0
    beta_end: float = 2.0
    drop: bool = False


@dataclass(frozen=True, eq=False)
class Problem:
    """One unit with all that is known of it.

    Attributes:
        unit: The unit; one output.
        executor: Runs its steps.
        inputs: For each input (float values, quantized values before rounding), samples first.
        target: Float output, samples first.
        parameters: Fixed parameters of the quantized network.
        weights: Soft weights by initializer.
        biases: Learned biases by (layer, initializer).
        steps: Quantizers by ONNX tensor.
    """

    unit: Unit
    executor: Executor
    inputs: Mapping[fx.Node, tuple[Tensor, Tensor]]
    target: Tensor
    parameters: Parameters
    weights: Mapping[str, SoftWeight]
    biases: Mapping[tuple[str, str], Tensor]
    steps: Mapping[str, LearnedStep]

    def output(self, chosen: Tensor | slice, parameters: Parameters, flips: CoinFlips | None = None) -> Tensor:
        """Return the unit's output on some samples under given parameters; with flips, half is left unrounded."""

        def rounding(tensor: str, values: Tensor) -> Tensor:
            step = self.steps.get(tensor)
            if step is None or tensor in entered:
                return values
            return step(values, None if flips is None else flips.like(values))

        values: dict[fx.Node, Tensor] = {}
        entered: set[str] = set()
        for node, (exact, quantized) in self.inputs.items():
            tensor = self.unit.tensors[node]
            step = self.steps.get(tensor)
            value = quantized[chosen]
            if step is not None:
                value = step(value)
            if flips is not None:
                value = torch.lerp(value, exact[chosen], flips.like(value))
            values[node] = value
            entered.add(tensor)
        return self.unit.run(self.executor, values, parameters, rounding)[self.unit.outputs[0]]

    def soft_parameters(self) -> Parameters:
        """Return the parameters with soft weights and learned biases in place."""
        soft: dict[str | tuple[str, str], Tensor] = {name: weight.soft() for name, weight in self.weights.items()}
        return {**self.parameters, **soft, **dict(self.biases.items())}


def reconstruct(problem: Problem, schedule: Schedule, seed: int, check: Callable[[float], None]) -> tuple[float, float]:
    """Learn the unit's soft weights, steps and biases, in place.

    The loss is the mean squared error of the output, in units of what rounding this unit's weights to nearest adds to
    it, plus the rounding term; so the two stand in the same proportion whatever the tensors' sizes are, and however
    large the errors are that come in with the inputs. Use inside `march.refining`.

    Args:
        problem: The unit.
        schedule: Iterations, rates.
        seed: Of the samples' order and of what is dropped.
        check: Called with the share done, now and then; raises to stop.

    Returns:
        (error before, error after) relative to the target's power: rounding to nearest, and the learned rounding.
    """
    power = float(problem.target.square().mean()) or 1.0
    before = error(problem, problem.parameters)
    own = _rounding_error(problem)
    scale = 1.0 / max(own, 1e-6 * power)
    groups = [
        ([w.logits for w in problem.weights.values()], schedule.rounding_rate),
        ([w.log_factor for w in problem.weights.values() if w.log_factor is not None], schedule.scale_rate),
        ([s.logarithm for s in set(problem.steps.values()) if s.logarithm is not None], schedule.scale_rate),
        (list(problem.biases.values()), schedule.bias_rate * math.sqrt(power)),
    ]
    learned = [tensor for tensors, _ in groups for tensor in tensors]
    optimiser = torch.optim.Adam([{"params": tensors, "lr": rate} for tensors, rate in groups if tensors])
    cosine = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: 0.5 * (1 + math.cos(math.pi * min(i / max(schedule.iterations, 1), 1.0)))
    )
    order = torch.Generator().manual_seed(seed)
    flips = CoinFlips(seed, problem.target.device) if schedule.drop else None
    count = len(problem.target)
    start = schedule.warmup * schedule.iterations
    total_weights = max(sum(w.logits.numel() for w in problem.weights.values()), 1)
    with torch.enable_grad():
        for iteration in range(schedule.iterations):
            if iteration % 20 == 0:
                check(iteration / schedule.iterations)
            chosen = torch.randperm(count, generator=order)[: schedule.batch].to(problem.target.device)
            output = problem.output(chosen, problem.soft_parameters(), flips)
            loss = (output - problem.target[chosen]).square().mean() * scale
            if iteration >= start:
                progress = (iteration - start) / max(schedule.iterations - start, 1)
                beta = schedule.beta_end + 0.5 * (schedule.beta_start - schedule.beta_end) * (
                    1 + math.cos(math.pi * progress)
                )
                for weight in problem.weights.values():
                    share = weight.logits.numel() / total_weights
                    loss = loss + schedule.regularizer * share * weight.undecided(beta)
            gradients = torch.autograd.grad(loss, learned, allow_unused=True)
            for tensor, gradient in zip(learned, gradients, strict=True):
                tensor.grad = gradient
            optimiser.step()
            cosine.step()
    return before, error(problem, {**problem.parameters, **hard_parameters(problem)})


def hard_parameters(problem: Problem) -> Parameters:
    """Return the learned weights on their grid, and the learned biases."""
    hard: dict[str | tuple[str, str], Tensor] = {}
    for name, weight in problem.weights.items():
        steps = torch.tensor(weight.steps(), dtype=torch.float32, device=problem.target.device)
        hard[name] = steps * weight.scale().detach()
    return {**hard, **{name: bias.detach() for name, bias in problem.biases.items()}}


def _rounding_error(problem: Problem, samples: int = 64) -> float:
    """Return the mean squared difference of the output between weights rounded to nearest and not rounded."""
    part = slice(0, samples)
    with torch.no_grad():
        rounded = problem.output(part, problem.parameters)
        return float((rounded - problem.output(part, problem.soft_parameters())).square().mean())


def error(problem: Problem, parameters: Parameters, most: int = 512) -> float:
    """Return the squared error of the output relative to the target's power, on the first samples."""
    noise = power = 0.0
    with torch.no_grad():
        for start in range(0, min(len(problem.target), most), 64):
            part = slice(start, start + 64)
            target = problem.target[part]
            noise += float((problem.output(part, parameters) - target).square().sum())
            power += float(target.square().sum())
    return noise / power if power > 0.0 else 0.0
