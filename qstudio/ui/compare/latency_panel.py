"""Latency, honestly: what was measured how, why it is not faster, and what each operator takes."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QLabel, QScrollArea, QTabWidget, QVBoxLayout, QWidget

from qstudio.core.results import Latency, LatencyPair, OperatorTime, SpeedReason
from qstudio.core.storage import INT8, PACKED, StorageChoice
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.compare.text_table import TextColumn, TextRow, TextTable
from qstudio.ui.plots.latency_bars import LatencyBar, LatencyBars
from qstudio.ui.shown_panel import ShownPanel
from qstudio.ui.text import NO_VALUE, tr

INSTRUCTION_WORDS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx_vnni_int8": "AVX-VNNI-INT8",
    "amx_int8": "AMX int8",
    "neon": "NEON",
    "neon_dotprod": "NEON dot products",
    "neon_i8mm": "NEON int8 matrix products",
    "sve": "SVE",
}
REASON_TITLES = {
    "float_layers": "Layers in float",
    "between": "Operators in float",
    "conversions": "Q/DQ not fused",
    "constants": "Unpacked in every run",
    "depthwise": "Asymmetric depthwise",
    "packed": "Packed weights",
    "narrow": "Fewer than 8 bits",
    "instructions": "Processor",
    "slower": "Slower kernels",
    "small": "Small operators",
    "threads": "Threads",
}


def processor_words(pair: LatencyPair) -> str:
    """Return the processor and what it can do for 8-bit integers, in words."""
    known = [INSTRUCTION_WORDS[name] for name in pair.instructions if name in INSTRUCTION_WORDS]
    words = f"{pair.processor}: {', '.join(known) if known else tr('no instructions for 8-bit integers are known')}"
    if "x86" in pair.instructions and not any("vnni" in i or "amx" in i for i in pair.instructions):
        words += f" ({tr('no VNNI')})"
    return words


def how_words(latency: Latency) -> str:
    """Return how a latency was measured."""
    threads = tr("1 thread") if latency.threads == 1 else tr("{n} threads").format(n=latency.threads)
    return tr("batch {b}, {t}, median of {r} runs after {w} warm-up runs").format(
        b=latency.batch, t=threads, r=latency.runs, w=latency.warmup
    )


def latency_bars(pair: LatencyPair, storage: StorageChoice | None) -> tuple[LatencyBar, ...]:
    """Return the bars of a run: float, exported, the other storage where it was timed, the simulation."""
    bars = [
        LatencyBar(tr("float"), pair.float.median, pair.float.p10, pair.float.p90, "float", help=how_words(pair.float)),
        LatencyBar(
            tr("exported"),
            pair.exported.median,
            pair.exported.p10,
            pair.exported.p90,
            "quantized",
            help=how_words(pair.exported),
        ),
    ]
    if storage is not None:
        other = PACKED if storage.chosen == INT8 else INT8
        figures = storage.packed if other == PACKED else storage.int8
        bars[1] = LatencyBar(f"{tr('exported')}, {storage.chosen}", *_figures(bars[1]), help=bars[1].help)
        if figures.latency_ms is not None:
            words = tr("The same network with the other storage of weights below 8 bits; median only")
            bars.append(
                LatencyBar(f"{tr('exported')}, {other}", figures.latency_ms, None, None, "quantized", help=words)
            )
    if pair.simulated is not None:
        s = pair.simulated
        told = tr("What QStudio computes to look inside: rounded floats in onnxruntime's order. It is not a speed.")
        bars.append(LatencyBar(tr("simulated"), s.median, s.p10, s.p90, "muted", False, f"{how_words(s)}\n{told}"))
    return tuple(bars)


def _figures(bar: LatencyBar) -> tuple[float, float | None, float | None, str]:
    return bar.median, bar.p10, bar.p90, bar.color


def verdict_words(pair: LatencyPair) -> str:
    """Return whether the exported model is faster, in one sentence."""
    ratio = pair.float.median / pair.exported.median if pair.exported.median else float("inf")
    if ratio >= 1.05:
        return tr("The exported model is {r} times as fast as float here.").format(r=f"{ratio:.2f}")
    if ratio > 0.95:
        return tr("The exported model is about as fast as float here ({r}x).").format(r=f"{ratio:.2f}")
    return tr("The exported model is slower than float here: it takes {r} times as long.").format(r=f"{1 / ratio:.2f}")


def operator_rows(operators: tuple[OperatorTime, ...]) -> list[TextRow]:
    """Return the rows of the table of operators."""
    rows = []
    for number, row in enumerate(operators):
        a, b = row.float_ms, row.exported_ms
        name = row.layers[0] if row.layers else tr("(conversions)")
        if len(row.layers) > 1:
            name = f"{name} +{len(row.layers) - 1}"
        ratio = a / b if a and b else None
        color = "" if ratio is None or 0.95 < ratio < 1.05 else "better" if ratio > 1 else "worse"
        texts = (
            name,
            NO_VALUE if a is None else f"{a:.3f}",
            NO_VALUE if b is None else f"{b:.3f}",
            NO_VALUE if ratio is None else f"{ratio:.2f}x",
            ", ".join(row.float_operators) or NO_VALUE,
            ", ".join(row.exported_operators) or NO_VALUE,
        )
        keys = (float(number), a, b, ratio, texts[4], texts[5])
        layer = row.layers[0] if row.layers else ""
        told = ", ".join(row.layers) or tr("What onnxruntime or the export puts between the layers")
        rows.append(TextRow(texts, keys, told, ("", "", "", color, "", ""), layer))
    return rows


OPERATOR_COLUMNS = (
    TextColumn("Layer", "Nodes of your file that are computed here; click selects the first.", "layer3.0.conv1 MM"),
    TextColumn(
        "Float, ms", "Median under onnxruntime's profiler, which itself takes some microseconds.", "00.000 M", True
    ),
    TextColumn("Exported, ms", "The same of the exported model.", "Exported, ms", True),
    TextColumn("Speed-up", "Float over exported; above 1 is faster.", "00.00x M", True),
    TextColumn("Float kernel", "What onnxruntime runs in float.", "ReorderOutput"),
    TextColumn("Exported kernel", "What it runs in the export: names with Q compute in integers.", "DequantizeLinear"),
)


class LatencyPanel(ShownPanel):
    """Bars and how they were measured, reasons with what to do, operators side by side; of run A."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._shown: tuple[object, object] = (None, None)
        self.bars = LatencyBars()
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setTextFormat(Qt.TextFormat.PlainText)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.reasons = QLabel()
        self.reasons.setWordWrap(True)
        self.reasons.setTextFormat(Qt.TextFormat.RichText)
        self.reasons.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.reasons.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self.reasons.setContentsMargins(0, 8, 8, 8)
        self.reasons.linkActivated.connect(self._on_reason)
        self.operators = TextTable(tr("Time per operator"), OPERATOR_COLUMNS)
        self.operators.rows_selected.connect(self._on_operators_selected)
        self.operators.notice_posted.connect(session.notice_posted.emit)
        self.bars.notice_posted.connect(session.notice_posted.emit)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setWidget(self.reasons)
        area.setAccessibleName(tr("Why it is not faster"))
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.addTab(area, tr("Why"))
        self.tabs.addTab(self.operators, tr("Operators"))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 8, 8)
        layout.setSpacing(8)
        layout.addWidget(self.bars)
        layout.addWidget(self.words)
        layout.addWidget(self.tabs, 1)
        bridge.compare_changed.connect(self.mark_stale)

    def refresh(self) -> None:
        """Show run A's latencies, or why there are none."""
        run, other = self._session.compare.first, self._session.compare.second
        result = run.result if run is not None else None
        state = (result, other.result if other is not None else None)
        if result is not None and all(a is b for a, b in zip(state, self._shown, strict=True)):
            return
        self._shown = state
        pair = result.latency_ms if result is not None else None
        self.tabs.setVisible(pair is not None)
        if pair is None or result is None:
            self.words.setText("")
            self.bars.set_bars((), self._missing(run))
            self.bars.setMaximumHeight(16_777_215)
            self.operators.rows.set_rows(())
            return
        self.bars.set_bars((*latency_bars(pair, result.storage), *self._other_bar(pair, other)))
        self.bars.setMaximumHeight(self.bars.minimumSizeHint().height())
        how = how_words(pair.exported)
        lines = (verdict_words(pair), f"{how[0].upper()}{how[1:]}, {tr('in turns')}. {processor_words(pair)}.")
        self.words.setText("\n".join(lines))
        self.reasons.setText(self._reasons_text(pair.reasons))
        self.tabs.setTabText(0, f"{tr('Why')} ({len(pair.reasons)})" if pair.reasons else tr("Why"))
        self.operators.rows.set_rows(operator_rows(pair.operators))
        self.tabs.setTabEnabled(1, bool(pair.operators))
        self.tabs.setTabToolTip(
            1,
            tr("Time of each operator in float and exported")
            if pair.operators
            else tr("The run was made without a profile: run it again"),
        )

    @staticmethod
    def _other_bar(pair: LatencyPair, other: Run | None) -> tuple[LatencyBar, ...]:
        """Return the bar of run B, if it was timed on the same processor with the same batch and threads."""
        theirs = other.result.latency_ms if other is not None and other.result is not None else None
        if other is None or theirs is None or theirs.processor != pair.processor:
            return ()
        latency, mine = theirs.exported, pair.exported
        if (latency.batch, latency.threads) != (mine.batch, mine.threads):
            return ()
        told = tr("Run B's exported model; it was not timed in turns with these, so small differences mean nothing.")
        name = f"B: {other.title}"
        return (LatencyBar(name, latency.median, latency.p10, latency.p90, "muted", help=told),)

    @staticmethod
    def _missing(run: Run | None) -> str:
        if run is None:
            return tr("No run is selected: click one in the timeline, the scatter or the table of runs.")
        if not run.options.measure_latency:
            return tr("{run} was made without measuring latency: switch it on in the run bar and run again.").format(
                run=run.title
            )
        return tr("{run} has not been timed: that is the last step of a run.").format(run=run.title)

    def _reasons_text(self, reasons: tuple[SpeedReason, ...]) -> str:
        """Return the reasons as paragraphs: title, evidence, what to do, a link that selects the layers."""
        if not reasons:
            return tr("Nothing was found that holds the exported model back: all of it runs on integer kernels.")
        parts = []
        for number, reason in enumerate(reasons):
            title = tr(REASON_TITLES.get(reason.kind, reason.kind))
            fix = f"<br><i>{_plain(reason.fix)}.</i>" if reason.fix else ""
            link = ""
            if reason.layers:
                words = tr("select the layer") if len(reason.layers) == 1 else tr("select the layers")
                link = f' <a href="{number}">{words}</a>'
            parts.append(f"<p><b>{_plain(title)}.</b> {_plain(reason.what)}.{fix}{link}</p>")
        return "".join(parts)

    # ---- the person

    def _on_reason(self, number: str) -> None:
        run = self._session.compare.first
        pair = run.result.latency_ms if run is not None and run.result is not None else None
        if pair is not None:
            self._session.select(pair.reasons[int(number)].layers)

    def _on_operators_selected(self, names: tuple[str, ...]) -> None:
        if any(names):
            self._session.select(tuple(name for name in names if name))


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
