"""The columns of the table of runs: what they are called, what they mean, their text and sort key for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qstudio.engine.messages import JobState
from qstudio.session.options import Run
from qstudio.ui.runs.figures import best_metrics, drop, drop_text, rate, state_text
from qstudio.ui.runs.methods import method_text
from qstudio.ui.text import NO_VALUE, format_bytes, format_ms, format_percent, tr


@dataclass(frozen=True)
class RunColumn:
    """One column: its title, what it means, and its text and sort key for a run."""

    id: str
    title: str
    help: str
    widest: str
    text: Callable[[Run], str]
    key: Callable[[Run], float | None]
    right: bool = True


def _float(run: Run) -> float | None:
    return rate(run.result.float) if run.result else None


def _simulated(run: Run) -> float | None:
    return rate(run.result.simulated) if run.result else None


def _exported(run: Run) -> float | None:
    return rate(run.result.exported) if run.result else None


def _agreement(run: Run) -> float | None:
    metrics = best_metrics(run.result)
    return metrics.agreement if metrics else None


def _unfused(run: Run) -> float | None:
    return run.result.parity.agreement if run.result and run.result.parity else None


def _fused(run: Run) -> float | None:
    return run.result.parity.fused_agreement if run.result and run.result.parity else None


def _lsb(run: Run) -> float | None:
    return run.result.parity.max_lsb if run.result and run.result.parity else None


def _size(run: Run) -> float | None:
    return run.result.size_bytes.quantized if run.result and run.result.size_bytes else None


def _sparsity(run: Run) -> float | None:
    return run.result.sparsity if run.result else None


def _file(run: Run) -> float | None:
    return run.result.size_bytes.file if run.result and run.result.size_bytes else None


def _float_ms(run: Run) -> float | None:
    return run.result.latency_ms.float.median if run.result and run.result.latency_ms else None


def _exported_ms(run: Run) -> float | None:
    return run.result.latency_ms.exported.median if run.result and run.result.latency_ms else None


def _spread(run: Run) -> str:
    pair = run.result.latency_ms if run.result else None
    if pair is None:
        return NO_VALUE
    return f"{format_ms(pair.exported.p10, False)}..{format_ms(pair.exported.p90, False)}"


def _threads(run: Run) -> float | None:
    return run.result.latency_ms.exported.threads if run.result and run.result.latency_ms else None


def _percent(get: Callable[[Run], float | None]) -> Callable[[Run], str]:
    return lambda run: format_percent(get(run), unit=False)


def _ms(get: Callable[[Run], float | None]) -> Callable[[Run], str]:
    return lambda run: format_ms(get(run), unit=False)


def _whole(get: Callable[[Run], float | None]) -> Callable[[Run], str]:
    def text(run: Run) -> str:
        value = get(run)
        return NO_VALUE if value is None else f"{value:.0f}"

    return text


def _bytes(get: Callable[[Run], float | None]) -> Callable[[Run], str]:
    return lambda run: format_bytes(get(run))


def _state(run: Run) -> str:
    progress = run.progress
    if run.state is JobState.RUNNING and progress is not None and progress.total > 0:
        return f"{state_text(run)} {100 * progress.done / progress.total:.0f} %"
    return state_text(run)


def notes_of(run: Run) -> str:
    """Return what else is to be said of a run: why it stopped, why int8 is not faster, the engine's remarks."""
    parts = [run.error] if run.error else []
    result = run.result
    if result is not None:
        pair = result.latency_ms
        if pair is not None and pair.exported.median > 0.95 * pair.float.median:
            parts.append(tr("int8 is not faster here"))
        if pair is not None:
            parts.extend(pair.notes)
        parts.extend(result.notes)
    return "; ".join(part.rstrip(".") for part in parts)


COLUMNS: tuple[RunColumn, ...] = (
    RunColumn("run", "Run", "Number of the run.", "Run 100 M", lambda run: run.title, lambda run: run.id, False),
    RunColumn(
        "state",
        "State",
        "Where the run is; a run that stopped keeps what it has measured.",
        "running 100 %",
        _state,
        lambda run: list(JobState).index(run.state),
        False,
    ),
    RunColumn(
        "recipe",
        "Recipe",
        "Whether the run was made with the present recipe on the open model.",
        "current M",
        lambda run: "",
        lambda run: None,
        False,
    ),
    RunColumn(
        "method",
        "Method",
        "PTQ: quantized after training. Else trained with quantizers: the method and its epochs.",
        "DoReFa, 100 epochs",
        method_text,
        lambda run: run.training.settings.epochs if run.training else 0,
        False,
    ),
    RunColumn(
        "float",
        "Float, %",
        "Top-1 of the float model (agreement without labels).",
        "100.00 MM",
        _percent(_float),
        _float,
    ),
    RunColumn(
        "simulated",
        "Simulated, %",
        "Top-1 of the quantized network as QStudio computes it.",
        "Simulated, %",
        _percent(_simulated),
        _simulated,
    ),
    RunColumn(
        "exported",
        "Exported, %",
        "Top-1 of the written ONNX file in onnxruntime.",
        "Exported, %",
        _percent(_exported),
        _exported,
    ),
    RunColumn(
        "drop",
        "Difference",
        "Quantized minus float in points, with its 95 % interval from paired samples. Inside the interval: no "
        "difference was shown.",
        "-10.00 ±0.25 M",
        lambda run: drop_text(run.result) or NO_VALUE,
        lambda run: drop(run.result),
    ),
    RunColumn(
        "size", "Size", "Packed codes, scales, zero points and what stays float.", "1.16 MB M", _bytes(_size), _size
    ),
    RunColumn(
        "sparsity",
        "Sparsity, %",
        "Share of the float network's weights that pruning removed or left zero. Only removed filters make the network "
        "smaller and faster.",
        "Sparsity, %",
        _percent(_sparsity),
        _sparsity,
    ),
    RunColumn(
        "float_ms",
        "Float, ms",
        "Median time of one float inference, measured here.",
        "Float, ms",
        _ms(_float_ms),
        _float_ms,
    ),
    RunColumn(
        "exported_ms",
        "Exported, ms",
        "Median time of one inference of the exported file, measured here. Bold where it beats float.",
        "Exported, ms",
        _ms(_exported_ms),
        _exported_ms,
    ),
    RunColumn(
        "spread",
        "p10..p90, ms",
        "Nine tenths of the inferences took longer than p10, one tenth longer than p90.",
        "0.30..0.40 MM",
        _spread,
        _exported_ms,
    ),
    RunColumn(
        "agreement",
        "Agreement, %",
        "Share of samples on which the quantized network gives float's answer. 99 and more is good.",
        "Agreement, %",
        _percent(_agreement),
        _agreement,
    ),
    RunColumn(
        "unfused",
        "Parity, %",
        "Equal answers: simulation against onnxruntime without graph optimisation. 99.95 and more is good.",
        "100.00 MM",
        _percent(_unfused),
        _unfused,
    ),
    RunColumn(
        "fused",
        "Parity fused, %",
        "Equal answers: simulation against onnxruntime's fused integer kernels.",
        "Parity fused, %",
        _percent(_fused),
        _fused,
    ),
    RunColumn(
        "lsb",
        "Max LSB",
        "Largest difference of any compared code, in steps. 0 or 1 is good.",
        "Max LSB",
        _whole(_lsb),
        _lsb,
    ),
    RunColumn("file", "File", "The exported file on disk.", "1.16 MB M", _bytes(_file), _file),
    RunColumn("threads", "Threads", "Threads onnxruntime used.", "Threads", _whole(_threads), _threads),
    RunColumn(
        "notes", "Notes", "Why a run stopped, why int8 is not faster.", "M" * 20, notes_of, lambda run: None, False
    ),
)

COLUMN_IDS = tuple(column.id for column in COLUMNS)
