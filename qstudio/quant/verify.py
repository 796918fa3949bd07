"""Compare the simulation with the exported file, run in onnxruntime: on the integer grid and by argmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor

from qstudio.backends.ort import make_session, run_batches, with_outputs
from qstudio.backends.qdq import dequantized_name
from qstudio.core.encodings import DynamicEncoding, FloatEncoding
from qstudio.core.processor import processor
from qstudio.core.results import Parity
from qstudio.data.dataset import Split
from qstudio.quant.code_steps import Comparable, code_steps
from qstudio.quant.evaluate import Report, batch_size, feeds
from qstudio.quant.integer.parity import integer_parity, saturation_shares
from qstudio.quant.simulate import SimulatedModel

CODE_SAMPLES = 256
"""Samples on which every code is compared."""

_SUSPICIOUS = 99.5
"""Percent of agreement between fused and unfused below which a run without saturation is added; 99.8 is usual."""

_NAMED = 4
"""Layers named in a note."""


@dataclass(frozen=True, eq=False)
class Verified:
    """What running the export brought."""

    parity: Parity
    exported_scores: NDArray[np.float32]
    """[N, K] of the fused run, which is what a user of the file gets."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SiteDifference:
    """How far the codes of one tensor differ between the simulation and the export."""

    tensor: str
    max_lsb: int
    differing: int
    compared: int


def exported_scores(
    exported: onnx.ModelProto,
    model: SimulatedModel,
    split: Split,
    indices: NDArray[np.int64],
    *,
    optimize: bool,
    precise: bool = False,
    threads: int = 0,
    report: Report | None = None,
) -> NDArray[np.float32]:
    """Return the export's first output for every sample, [N, K], in the simulation's batches.

    `precise` asks for integer kernels that cannot saturate in 16 bits; it makes a difference on x86 without VNNI only.
    """
    session = make_session(exported, threads=threads, optimize=optimize, precise=precise)
    size = batch_size(model.network, split)
    name = model.network.outputs[0]
    rows = []
    done = 0
    batches = (batch.inputs for batch in split.batches(indices, size))
    for outputs in run_batches(session, batches, outputs=[name]):
        rows.append(outputs[name].reshape(len(outputs[name]), -1).astype(np.float32))
        done += len(rows[-1])
        if report is not None:
            report(done, len(indices))
    return np.concatenate(rows)


def code_differences(
    exported: onnx.ModelProto,
    model: SimulatedModel,
    split: Split,
    indices: NDArray[np.int64],
    *,
    threads: int = 0,
    report: Report | None = None,
) -> tuple[SiteDifference, ...]:
    """Return the differences of the codes of every rounded tensor, the export running without optimisation.

    Memory is one batch of the network's sites, twice.
    """
    network = model.network
    names = _names_in_export(exported, model)
    session = make_session(with_outputs(exported, list(names.values())), threads=threads, optimize=False)
    comparable = _comparable(model)
    encoding_of = {t: comparable[s.id] for s in network.activation_sites for t in s.quantized_at if t in names}
    worst = dict.fromkeys(names, 0)
    differing = dict.fromkeys(names, 0)
    compared = dict.fromkeys(names, 0)
    done = 0
    with network.executor.evaluating():
        for batch, inputs, rows in feeds(network, split, indices):
            count = len(batch.indices)
            simulated: dict[str, NDArray[np.float32]] = {}

            def keep(tensor: str, values: Tensor, kept: dict = simulated, count: int = count, rows: int = rows) -> None:
                if tensor in names:
                    # A tensor may have its samples along a flattened first axis (a detector's boxes): each sample
                    # then has several rows, and only what fills up the batch is dropped.
                    kept[tensor] = values[: values.shape[0] // rows * count if count < rows else None].cpu().numpy()

            model.run(inputs, observe=keep)
            (outputs,) = run_batches(session, [batch.inputs], outputs=list(names.values()))
            for tensor, name in names.items():
                steps = code_steps(simulated.pop(tensor), outputs[name], encoding_of[tensor])
                worst[tensor] = max(worst[tensor], int(steps.max(initial=0)))
                differing[tensor] += int(np.count_nonzero(steps))
                compared[tensor] += steps.size
            done += count
            if report is not None:
                report(done, len(indices))
    return tuple(SiteDifference(t, worst[t], differing[t], compared[t]) for t in names)


def verify(
    exported: onnx.ModelProto,
    model: SimulatedModel,
    simulated_scores: NDArray[np.float32],
    split: Split,
    indices: NDArray[np.int64],
    *,
    threads: int = 0,
    report: Report | None = None,
) -> Verified:
    """Run the export without and with optimisation on all samples, and compare.

    The fused run is also compared, on some samples and without saturation, with integer arithmetic
    (`qstudio.quant.integer`); layers in which 8-bit products saturate on x86 without VNNI are named.

    Args:
        exported: The QDQ model.
        model: The simulation it was made from.
        simulated_scores: The simulation's output on the same samples, [N, K].
        split: Where the samples are.
        indices: Which samples.
        threads: Of the sessions; 0 = all cores.
        report: Told the progress; raises to stop.
    """
    some = indices[:CODE_SAMPLES]
    total = 2 * len(indices) + len(some)

    def part(offset: int) -> Report | None:
        return None if report is None else lambda done, _: report(offset + done, total)

    differences = code_differences(exported, model, split, some, threads=threads, report=part(0))
    plain = exported_scores(exported, model, split, indices, optimize=False, threads=threads, report=part(len(some)))
    fused = exported_scores(
        exported, model, split, indices, optimize=True, threads=threads, report=part(len(some) + len(indices))
    )
    # Not foreseen in the progress: it stands still meanwhile, and can still be stopped.
    waiting = None if report is None else lambda done=0, _=0: report(total, total)
    exact = integer_parity(exported, model, split, indices, threads=threads, check=waiting)
    shares = saturation_shares(exported, model, split, indices, threads=threads, check=waiting)
    compared = sum(d.compared for d in differences)
    differing = sum(d.differing for d in differences)
    parity = Parity(
        agreement=_agreement(simulated_scores, plain),
        max_lsb=max((d.max_lsb for d in differences), default=0),
        fused_agreement=_agreement(simulated_scores, fused),
        reference_agreement=_agreement(plain, fused),
        samples=len(indices),
        code_samples=len(some) if differences else 0,
        codes_equal=100.0 * (1 - differing / compared) if compared else 100.0,
        fused_max_lsb=_output_lsb(model, simulated_scores, fused),
        integer_exact=exact,
        saturating=shares,
    )
    precise_agreement = None
    if parity.reference_agreement < _SUSPICIOUS and saturates():
        precise = exported_scores(
            exported, model, split, indices, optimize=True, precise=True, threads=threads, report=waiting
        )
        precise_agreement = _agreement(plain, precise)
    note = _saturation_note(parity, precise_agreement)
    return Verified(parity, fused, (note,) if note else ())


def saturates() -> bool:
    """Return whether this processor's int8 kernels may add two products in 16 bits (x86 with AVX2, without VNNI)."""
    instructions = processor()[1]
    return "avx2" in instructions and not any("vnni" in i or "amx" in i for i in instructions)


def _saturation_note(parity: Parity, precise_agreement: float | None) -> str:
    """Return what is to be known about saturation on this processor, or elsewhere if this one does not do it."""
    if not parity.saturating:
        return ""
    named = [f"{layer} ({share:.2g} % of its sums)" for layer, share in parity.saturating[:_NAMED]]
    more = len(parity.saturating) - len(named)
    where = ", ".join(named) + (f" and {more} more" if more > 0 else "")
    cure = "7-bit weights there avoid it, and so does session.x64quantprecision=1 (slower)"
    if not saturates():
        return (
            "on x86 processors without VNNI onnxruntime's int8 kernels saturate sums of two products at 16 bits in"
            f" {where}; {cure}"
        )
    effect = ""
    if precise_agreement is not None:
        effect = (
            f" The fused run agrees with the unfused one on {parity.reference_agreement:.2f} % of the samples, and on"
            f" {precise_agreement:.2f} % without saturation."
        )
    return (
        f"{processor()[0]} has no VNNI: onnxruntime's int8 kernels saturate sums of two products at 16 bits in"
        f" {where}.{effect} {cure[0].upper()}{cure[1:]}"
    )


def _names_in_export(exported: onnx.ModelProto, model: SimulatedModel) -> dict[str, str]:
    """Return tensor -> name under which the export offers its rounded values, for every rounded tensor."""
    written = {name for node in exported.graph.node for name in node.output}
    names = {}
    comparable = _comparable(model)
    for site in model.network.activation_sites:
        if site.id in comparable:
            for tensor in site.quantized_at:
                inner = dequantized_name(tensor)
                names[tensor] = inner if inner in written else tensor
    return {tensor: name for tensor, name in names.items() if name in written}


def _comparable(model: SimulatedModel) -> dict[str, Comparable]:
    """Return the encodings of the activation sites that the export rounds too, by site id."""
    others = {s: e for s, e in model.others.items() if isinstance(e, (FloatEncoding, DynamicEncoding))}
    return {**others, **model.activations}


def _agreement(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    return 100.0 * float((first.argmax(axis=1) == second.argmax(axis=1)).mean())


def _output_lsb(model: SimulatedModel, first: NDArray[np.float32], second: NDArray[np.float32]) -> int | None:
    """Return the largest difference of the first output in its steps; None where it is not quantized."""
    name = model.network.outputs[0]
    for site in model.network.activation_sites:
        if name in site.members and site.id in model.activations:
            return int(code_steps(first, second, model.activations[site.id]).max(initial=0))
    return None
