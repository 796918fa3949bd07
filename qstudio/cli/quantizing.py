"""`qstudio quantize`: one PTQ run, as the window's Run PTQ."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from qstudio.cli.asking import Asker
from qstudio.cli.choices import recipe_choices, recipe_of, run_options
from qstudio.cli.plain import plain_run
from qstudio.cli.tables import milliseconds, number, size, table
from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.core.results import IntegerParity, LatencyPair, Metrics, Parity, RunResult, SizeBytes
from qstudio.core.storage import STORAGES, StorageChoice, StorageFigures
from qstudio.engine.messages import ListDevices, OpenModel
from qstudio.session.data_words import data_spec
from qstudio.session.recipe_file import write_encodings, write_recipe


def run(arguments: Namespace, asker: Asker) -> tuple[dict[str, Any], str]:
    """Quantize a model; return the result for --json and for people.

    Raises:
        UserError: Something in the input has to be mended.
    """
    choices = recipe_choices(arguments)
    spec = data_spec(arguments)
    assert spec is not None, "--data is required"
    run_options(arguments)
    check_output(arguments.output, arguments.model)
    check_output(arguments.save_encodings, arguments.model)
    model: ModelInfo = asker.ask(OpenModel(arguments.model))
    recipe = recipe_of(choices, model, asker)
    options = run_options(arguments, choose_device(arguments.device, asker))
    result: RunResult = asker.ask(options.request(arguments.model, spec, recipe, arguments.output))
    save_asked(arguments, result)
    return plain_run(result, model, spec.source), run_text(result, model, spec.source)


def save_asked(arguments: Namespace, result: RunResult) -> None:
    """Write the recipe and the encodings of a run where that was asked for (UserError)."""
    if arguments.save_recipe:
        write_recipe(result.recipe, arguments.save_recipe)
    if arguments.save_encodings:
        write_encodings(result.encodings, arguments.encodings_format, arguments.save_encodings)


def check_output(output: str, model: str) -> None:
    """Refuse what would fail after minutes of work: a folder that is not there, the model's own file."""
    if not output:
        return
    target = Path(output)
    folder = target.parent
    if target.is_dir():
        raise UserError("this is a folder", output, "Give the name of a file, such as model_int8.onnx")
    if not folder.is_dir():
        raise UserError("the folder does not exist", str(folder), "Make it first, or choose another")
    if not os.access(folder, os.W_OK):
        raise UserError("the folder cannot be written to", str(folder), "Choose another folder")
    if target.exists() and Path(model).exists() and target.samefile(model):
        raise UserError("the export would overwrite the model itself", output, "Choose another name")


def choose_device(wanted: str, asker: Asker) -> str:
    """Return the id of the device that is meant by auto, cpu, cuda, cuda:N or mps.

    Raises:
        UserError: It does not exist or is not available; with the reason.
    """
    name = wanted.strip().lower()
    if name == "cpu":
        return name
    devices = [device for device in asker.ask(ListDevices()) if device.runs_simulation]
    usable = [device.id for device in devices if device.available]
    if name == "auto":
        return next((device for device in usable if device != "cpu"), "cpu")
    name = "cuda:0" if name == "cuda" else name
    found = next((device for device in devices if device.id == name), None)
    fix = f"Choose {' or '.join(usable)}"
    if found is None:
        raise UserError(f"there is no device '{wanted}'", "--device", fix)
    if not found.available:
        raise UserError(f"{found.title} is not available: {found.reason}", "--device", fix)
    return name


def run_text(result: RunResult, model: ModelInfo, data: str) -> str:
    """Return a run as tables and sentences for people."""
    parts = [
        f"{model.path}: {len(result.layers)} layers, data {data}, "
        f"{result.calibration_samples:,} calibration samples, seed {result.seed}, {result.device}",
        _layers(result),
        _metrics(result),
        "\n".join(
            line
            for line in (
                _size(result.size_bytes),
                _latency(result.latency_ms),
                *_storage(result.storage),
                *parity_lines(result.parity),
                f"file     {result.export_path}" if result.export_path else "",
                f"recipe   {result.recipe_hash[:12]}",
            )
            if line
        ),
        "\n".join(f"note: {note}" for note in (*result.notes, *(result.latency_ms.notes if result.latency_ms else ()))),
    ]
    return "\n\n".join(part for part in parts if part)


def _layers(result: RunResult) -> str:
    rows = []
    pruned = any(layer.sparsity is not None for layer in result.layers)
    for layer in result.layers:
        schemes = dict(layer.schemes)
        rows.append(
            (
                layer.name,
                layer.type,
                schemes.get("weight", "-"),
                number(layer.weight_sqnr_db, 1),
                schemes.get("activation", "-"),
                number(layer.sqnr_db, 1),
                number(layer.cosine, 4),
                *((number(layer.sparsity, 1),) if pruned else ()),
            )
        )
    head = ("layer", "type", "weight", "weight dB", "activation", "output dB", "cosine", "pruned %")
    words = "(dB: signal to quantization noise; 30 and more is good, under 20 is bad)"
    sides = "lllrlrrr"
    shown = table(head, rows, sides) if pruned else table(head[:-1], rows, sides[:-1])
    return f"{shown}\n{words}"


def _metrics(result: RunResult) -> str:
    rows = []
    for name in ("float", "simulated", "exported"):
        metrics: Metrics | None = getattr(result, name)
        if metrics is not None:
            interval = metrics.top1_interval
            rows.append(
                (
                    name,
                    number(metrics.top1, 2),
                    f"{interval[0]:.1f} .. {interval[1]:.1f}" if interval else "-",
                    number(metrics.top5, 2),
                    number(metrics.loss, 4),
                    number(metrics.agreement, 2),
                    f"{metrics.samples:,}",
                )
            )
    head = ("", "top-1 %", "95 % interval", "top-5 %", "loss", "agreement %", "samples")
    return table(head, rows, "lrrrrrr") if rows else ""


def _size(sizes: SizeBytes | None) -> str:
    if sizes is None:
        return ""
    ratio = f" ({sizes.float / sizes.quantized:.1f}x smaller)" if sizes.quantized else ""
    sparse = f"; without the zeros of pruned weights {size(sizes.sparse)}" if sizes.sparse is not None else ""
    return f"size     {size(sizes.float)} -> {size(sizes.quantized)}{ratio}, as a file {size(sizes.file)}{sparse}"


def _storage(choice: StorageChoice | None) -> list[str]:
    if choice is None:
        return []
    lines: list[str] = []
    for name in STORAGES:
        figures: StorageFigures = getattr(choice, name)
        speed = "" if figures.latency_ms is None else f", {milliseconds(figures.latency_ms)} ms"
        word = " (this file)" if name == choice.chosen else ""
        lines.append(f"{'' if lines else 'storage':8} {name:6} {size(figures.file_bytes)}{speed}{word}")
    return lines


def _latency(pair: LatencyPair | None) -> str:
    if pair is None:
        return ""

    def figures(name: str) -> str:
        latency = getattr(pair, name)
        median, p10, p90 = map(milliseconds, (latency.median, latency.p10, latency.p90))
        return f"{name} {median} ms ({p10} .. {p90})"

    speed = pair.float.median / pair.exported.median if pair.exported.median else 0.0
    verdict = f"{speed:.2f}x faster" if speed >= 1 else f"{1 / speed:.2f}x slower" if speed else "not comparable"
    threads = "1 thread" if pair.exported.threads == 1 else f"{pair.exported.threads} threads"
    return (
        f"latency  {figures('float')}, {figures('exported')}: {verdict}\n"
        f"         median (p10 .. p90) of {pair.exported.runs} runs, batch {pair.exported.batch}, {threads}, "
        f"{pair.processor}{' (' + ', '.join(pair.instructions) + ')' if pair.instructions else ''}"
    )


def parity_lines(parity: Parity | None) -> list[str]:
    """Return in words how far the exported file computes what was simulated; nothing where it was not run."""
    if parity is None:
        return []
    return [
        f"parity   the exported file gives the simulation's class on {parity.agreement:.2f} % of {parity.samples:,} "
        f"samples; codes differ by {parity.max_lsb} LSB at most, {parity.codes_equal:.2f} % are equal",
        f"         with onnxruntime's integer kernels {parity.fused_agreement:.2f} % "
        f"(onnxruntime against itself, unfused and fused: {parity.reference_agreement:.2f} %)",
        *_integer(parity.integer_exact),
    ]


def _integer(exact: IntegerParity | None) -> list[str]:
    if exact is None:
        return []
    more = ""
    if exact.differing:
        count = len(exact.differing)
        more += f"; {count} tensor{'s differ' if count > 1 else ' differs'}: {', '.join(exact.differing[:4])}"
    if exact.float_layers:
        count = len(exact.float_layers)
        more += f"; {count} layer{'s compute' if count > 1 else ' computes'} in float"
    return [
        f"         without saturation at 16 bits {exact.codes_equal:.2f} % of its codes are those of integer arithmetic"
        f" ({exact.operators} operators, {exact.samples:,} samples, {exact.max_lsb} LSB at most){more}"
    ]
