"""`qstudio benchmark`: how long one inference takes here."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from qstudio.cli.asking import Asker
from qstudio.cli.plain import plain
from qstudio.cli.tables import milliseconds
from qstudio.core.results import Latency
from qstudio.engine.messages import Benchmark


def run(arguments: Namespace, asker: Asker) -> tuple[dict[str, Any], str]:
    """Time a model file; return the result for --json and for people.

    Raises:
        UserError: The file cannot be run.
    """
    request = Benchmark(arguments.model, arguments.batch, arguments.threads, arguments.runs, arguments.warmup)
    latency: Latency = asker.ask(request)
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    rate = 1000.0 * latency.batch / latency.median if latency.median else 0.0
    text = (
        f"{arguments.model}: {milliseconds(latency.median)} ms "
        f"(p10 {milliseconds(latency.p10)} .. p90 {milliseconds(latency.p90)}), batch {latency.batch}, {threads}\n"
        f"{rate:,.0f} samples a second; median of {latency.runs} runs after {latency.warmup} more (onnxruntime, CPU)"
    )
    return {"model": arguments.model, "latency_ms": plain(latency)}, text
