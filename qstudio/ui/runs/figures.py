"""What the figures of a run mean, in numbers and words; shared by strip, table and detail."""

from __future__ import annotations

import math

from qstudio.core.flips import paired_half_width
from qstudio.core.results import IntegerParity, LatencyPair, Metrics, Parity, RunResult
from qstudio.core.results import rate as rate
from qstudio.core.storage import INT8, PACKED, StorageChoice
from qstudio.engine.messages import JobState
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.text import format_bytes, format_interval, format_ms, format_percent, format_points, tr

STATE_WORDS: dict[JobState, str] = {
    JobState.QUEUED: "waiting",
    JobState.RUNNING: "running",
    JobState.CANCELLING: "stopping",
    JobState.DONE: "done",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.KILLED: "killed",
}

PHASE_WORDS: dict[str, str] = {
    "": "Starting",
    "calibrate": "Calibrated",
    "simulate": "Simulated",
    "export": "Exported",
    "verify": "Verified",
    "time": "Timed",
}


def best_metrics(result: RunResult | None) -> Metrics | None:
    """Return the exported model's metrics, else the simulated ones."""
    if result is None:
        return None
    return result.exported or result.simulated


def drop(result: RunResult | None) -> float | None:
    """Return quantized minus float top-1 in points; negative is worse. None without labels."""
    metrics = best_metrics(result)
    if metrics is None or result is None or result.float is None or metrics.top1 is None or result.float.top1 is None:
        return None
    return metrics.top1 - result.float.top1


def drop_interval(metrics: Metrics | None) -> float | None:
    """Return the half width of the 95 % interval of the difference to float, in points: paired samples."""
    if metrics is None or metrics.flips_to_wrong is None or metrics.flips_to_right is None or not metrics.samples:
        return None
    return paired_half_width(metrics.flips_to_wrong, metrics.flips_to_right, metrics.samples)


def drop_text(result: RunResult | None) -> str:
    """Return the difference to float with its interval: "-0.13 ±0.25"; empty when there is none."""
    value = drop(result)
    if value is None:
        return ""
    half = drop_interval(best_metrics(result))
    return format_points(value) + (f" ±{half:.2f}" if half is not None else "")


def drop_words(result: RunResult | None) -> str:
    """Return in words whether the samples can tell the quantized network from float."""
    value, metrics = drop(result), best_metrics(result)
    half = drop_interval(metrics)
    if value is None or half is None or metrics is None:
        return ""
    if abs(value) <= half:
        return tr("No difference that {n} samples could show.").format(n=f"{metrics.samples:,}")
    word = tr("worse") if value < 0 else tr("better")
    return tr("{d} points {word} than float on {n} samples.").format(
        d=f"{abs(value):.2f}", word=word, n=f"{metrics.samples:,}"
    )


def metrics_text(metrics: Metrics | None) -> str:
    """Return "81.03 % ±0.8 (10,000 samples)"; agreement is named where there are no labels."""
    if metrics is None:
        return ""
    text = f"{format_percent(rate(metrics))} {format_interval(metrics.top1_interval)}".rstrip()
    if metrics.top1 is None:
        text += " " + tr("agreement")
    return f"{text} ({metrics.samples:,} {tr('samples')})"


def parity_words(parity: Parity | None) -> str:
    """Return in words whether the exported file computes what was simulated."""
    if parity is None:
        return tr("Not compared yet: does the exported file compute what was simulated?")
    codes = (
        tr("all its compared codes are equal")
        if parity.max_lsb == 0
        else tr("{e} of its codes are equal, the others {lsb} LSB apart at most").format(
            e=format_percent(parity.codes_equal), lsb=parity.max_lsb
        )
    )
    first = tr(
        "The exported file gives the simulated answer on {a} of {n} samples without graph optimisation; {codes}."
    ).format(a=format_percent(parity.agreement), n=f"{parity.samples:,}", codes=codes)
    second = tr(
        "With onnxruntime's integer kernels it agrees on {f}; onnxruntime itself changes "
        "{c} of its answers when it fuses."
    ).format(f=format_percent(parity.fused_agreement), c=format_percent(100 - parity.reference_agreement))
    return " ".join(part for part in (first, second, _integer_words(parity.integer_exact)) if part)


def _integer_words(exact: IntegerParity | None) -> str:
    """Return in words whether the integer kernels compute what integer arithmetic predicts."""
    if exact is None:
        return ""
    count, samples = f"{exact.operators:,}", f"{exact.samples:,}"
    if not exact.differing:
        return tr(
            "Without saturation at 16 bits every code of these kernels is what integer arithmetic predicts "
            "({k} operators, {n} samples)."
        ).format(k=count, n=samples)
    return tr(
        "Without saturation at 16 bits {e} of the codes of these kernels are what integer arithmetic predicts, the "
        "others {lsb} LSB apart at most ({k} operators, {n} samples); the first tensor that differs is {t}."
    ).format(e=format_percent(exact.codes_equal), lsb=exact.max_lsb, k=count, n=samples, t=exact.differing[0])


def storage_words(choice: StorageChoice | None) -> str:
    """Return what both ways to store weights below 8 bits cost; empty where the files would be equal."""
    if choice is None:
        return ""
    lines = [tr("Weights below 8 bits as")]
    for name, figures in ((INT8, choice.int8), (PACKED, choice.packed)):
        speed = f", {format_ms(figures.latency_ms)}" if figures.latency_ms is not None else ""
        here = f" ({tr('this file')})" if name == choice.chosen else ""
        lines.append(f"{name}: {tr('file')} {format_bytes(figures.file_bytes)}{speed}{here}")
    return "\n".join(lines)


def latency_words(latency: LatencyPair | None) -> str:
    """Return in words how fast the exported model is here."""
    if latency is None:
        return tr("Latency was not measured.")
    ratio = latency.float.median / latency.exported.median if latency.exported.median else math.nan
    if ratio >= 1.05:
        head = tr("{r} times as fast as float here").format(r=f"{ratio:.2f}")
    elif ratio > 0.95:
        head = tr("int8 is not faster here: about equal to float ({r}x)").format(r=f"{ratio:.2f}")
    else:
        head = tr("int8 is not faster here: {r} times as slow as float").format(r=f"{1 / ratio:.2f}")
    how = tr("batch {b}, {t} threads, median of {n} runs after {w} warm-up runs").format(
        b=latency.float.batch, t=latency.float.threads, n=latency.float.runs, w=latency.float.warmup
    )
    where = ", ".join((latency.processor, *latency.instructions))
    sentences = (f"{head} ({how}). {where}", *latency.notes)
    return "\n".join(sentence.rstrip(".") + "." for sentence in sentences)


def latency_text(latency: LatencyPair | None) -> str:
    """Return "0.78 → 0.34 ms (2.29x)", or "not measured"."""
    if latency is None:
        return tr("not measured")
    ratio = latency.float.median / latency.exported.median if latency.exported.median else math.nan
    return f"{format_ms(latency.float.median, False)} → {format_ms(latency.exported.median)} ({ratio:.2f}x)"


def same_recipe(session: Session, run: Run) -> bool:
    """Return whether a run was made with the present recipe on the open model, whatever the other options."""
    model = session.model
    return model is not None and run.model_sha256 == model.sha256 and run.recipe_hash == session.recipe.sha256()


def state_text(run: Run) -> str:
    """Return the state of a run in a word."""
    return tr(STATE_WORDS[run.state])
