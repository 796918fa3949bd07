"""Why an exported model is not as fast as its bits promise: each reason with what was found, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qstudio.backends.optimized import INTEGER_PREFIXES, OptimizedGraph
from qstudio.core.results import OperatorTime, SpeedReason

_SHOWN = 4
_TINY_MS = 0.02
"""Below it an operator's call costs about as much as its arithmetic: onnxruntime takes 3 to 5 us for a call, whatever
it computes (measured on a single convolution of 8 x 8 x 8)."""
_TINY_SHARE = 0.3
_LOSS_SHARE = 0.05
"""Of the float time: what an integer kernel has to lose before it is named."""
_FASTER = 0.9
_SMALL_MS = 0.5


def speed_reasons(
    graph: OptimizedGraph, instructions: tuple[str, ...], macs: Mapping[str, int] | None = None
) -> tuple[SpeedReason, ...]:
    """Return what keeps an exported model from being fast on this processor.

    Every reason is about something that was found in the optimised graph or in the list of instruction sets.

    Args:
        graph: From `optimized_graph` of the exported model.
        instructions: Instruction sets that matter for int8, from `qstudio.core.processor`.
        macs: Multiply-accumulates of each layer by name, for the share that a reason concerns.
    """
    return tuple(
        reason
        for reason in (
            _float_layers(graph, macs or {}),
            _between(graph),
            _conversions(graph, macs or {}),
            _constants(graph, macs or {}),
            _depthwise(graph, macs or {}),
            _packed(graph),
            _narrow(graph),
            _instructions(graph, instructions),
        )
        if reason is not None
    )


def speed_notes(
    graph: OptimizedGraph, instructions: tuple[str, ...], macs: Mapping[str, int] | None = None
) -> tuple[str, ...]:
    """Return `speed_reasons` as plain sentences."""
    return tuple(note_of(reason) for reason in speed_reasons(graph, instructions, macs))


def note_of(reason: SpeedReason) -> str:
    """Return a reason and what to do as one text."""
    return f"{reason.what}. {reason.fix}" if reason.fix else reason.what


def _percent(names: Iterable[str], macs: Mapping[str, int]) -> float | None:
    total = sum(macs.values())
    return 100.0 * sum(macs.get(name, 0) for name in dict.fromkeys(names)) / total if total else None


def _share(percent: float | None) -> str:
    return "" if percent is None else f" ({percent:.0f} % of all multiply-accumulates)"


def _float_layers(graph: OptimizedGraph, macs: Mapping[str, int]) -> SpeedReason | None:
    if not graph.float_layers:
        return None
    names = tuple(name for name, _ in graph.float_layers)
    percent = _percent(names, macs)
    count = _many(len(names), "layer computes", "layers compute")
    what = (
        f"{count} in float{_share(percent)}, because onnxruntime has no integer kernel for the operator, the formats, "
        f"bit widths or groups: {_listed(graph.float_layers)}"
    )
    fix = "Choose 8 bits or fewer, format int, for weights and for the tensors that these layers read and put out"
    return SpeedReason("float_layers", what, fix, names, percent)


def _between(graph: OptimizedGraph) -> SpeedReason | None:
    if not graph.between:
        return None
    what = (
        f"{_many(len(graph.between), 'operator computes', 'operators compute')} in float between integer tensors: "
        f"onnxruntime has no integer kernel for it, or for a constant that is read: {_listed(graph.between)}"
    )
    fix = "Leave their outputs in float where the next layer is float too, or build the network without them"
    return SpeedReason("between", what, fix, tuple(name for name, _ in graph.between))


def _conversions(graph: OptimizedGraph, macs: Mapping[str, int]) -> SpeedReason | None:
    # One conversion at each end of the model is the way in and out.
    if len(graph.conversions) <= 2:
        return None
    beside = graph.conversion_layers
    where = _listed(tuple((name, "") for name in beside or graph.conversions))
    what = (
        f"{len(graph.conversions)} QuantizeLinear and DequantizeLinear nodes run where one at each end would do: they "
        f"were not fused at {where}"
    )
    fix = "Quantize neighbouring layers alike: every change between float and integers costs a pass over the tensor"
    return SpeedReason("conversions", what, fix, beside, _percent(beside, macs))


def _constants(graph: OptimizedGraph, macs: Mapping[str, int]) -> SpeedReason | None:
    if not graph.constant_conversions:
        return None
    layers = graph.constant_layers
    where = _listed(tuple((name, "") for name in layers or graph.constant_conversions))
    what = (
        f"{_many(len(graph.constant_conversions), 'weight or bias is', 'weights and biases are')} unpacked to float in "
        f"every run, for {where}"
    )
    fix = "Choose symmetric 8-bit weights in format int, and quantize what these layers read and put out"
    return SpeedReason("constants", what, fix, layers, _percent(layers, macs))


def _depthwise(graph: OptimizedGraph, macs: Mapping[str, int]) -> SpeedReason | None:
    names = graph.uneven_depthwise
    if not names:
        return None
    count = _many(len(names), "depthwise convolution has", "depthwise convolutions have")
    listed = _listed(tuple((name, "") for name in names))
    what = f"{count} asymmetric weights, for which onnxruntime has no fast kernel: {listed}"
    return SpeedReason("depthwise", what, "Choose symmetric weights", names, _percent(names, macs))


def _widths(named: tuple[tuple[str, int], ...]) -> str:
    bits = sorted({width for _, width in named})
    return str(bits[0]) if len(bits) == 1 else f"{bits[0]} to {bits[-1]}"


def _packed(graph: OptimizedGraph) -> SpeedReason | None:
    if not graph.packed:
        return None
    what = (
        f"{_many(len(graph.packed), 'constant is', 'constants are')} stored in {_widths(graph.packed)} bits and "
        "unpacked to bytes when the file is loaded, or in every run where they stand in groups: the file is smaller, "
        "the kernels are those of 8 bits"
    )
    return SpeedReason("packed", what, "Choose packed storage for the file's size, not for speed")


def _narrow(graph: OptimizedGraph) -> SpeedReason | None:
    if not graph.narrow:
        return None
    count = _many(len(graph.narrow), "weight has", "weights have")
    listed = _listed(tuple((name, "") for name, _ in graph.narrow))
    what = (
        f"{count} codes of {_widths(graph.narrow)} bits in a byte each: onnxruntime's integer kernels compute with 8 "
        f"bits whatever the codes need ({listed})"
    )
    fix = "Choose fewer bits for size, not for speed on this backend"
    return SpeedReason("narrow", what, fix, tuple(name for name, _ in graph.narrow))


def _instructions(graph: OptimizedGraph, instructions: tuple[str, ...]) -> SpeedReason | None:
    if not graph.integer:
        return None
    if "x86" in instructions and not any("vnni" in i or "amx" in i for i in instructions):
        wide = "" if "avx512f" in instructions else " nor AVX-512"
        what = (
            f"This processor has no VNNI instructions{wide}: 8-bit products gain little over float here, and full "
            "8-bit weights can saturate in 16 bits (choose 7-bit weights to be safe)"
        )
        return SpeedReason("instructions", what, "Measure on a processor with VNNI, where it is to be deployed on one")
    if "arm" in instructions and not any("dotprod" in i or "i8mm" in i for i in instructions):
        what = "This processor has no dot product instructions: 8-bit products gain little over float here"
        return SpeedReason("instructions", what, "Measure on ARMv8.2 or newer, where it is to be deployed on one")
    return None


# ---- from measured times


def timed_reasons(
    operators: Sequence[OperatorTime], float_ms: float, macs: Mapping[str, int] | None = None
) -> tuple[SpeedReason, ...]:
    """Return the reasons that measured times give: kernels slower than float, and operators too small to gain.

    Args:
        operators: From `qstudio.backends.profile.operator_times`; empty where nothing was profiled.
        float_ms: Median of the whole float model.
        macs: Multiply-accumulates of each layer by name.
    """
    found = [_slower(operators, macs or {}), _small(operators, float_ms, macs or {})]
    return tuple(reason for reason in found if reason is not None)


def _is_integer(row: OperatorTime) -> bool:
    return any(name.startswith(INTEGER_PREFIXES) for name in row.exported_operators)


def _slower(operators: Sequence[OperatorTime], macs: Mapping[str, int]) -> SpeedReason | None:
    total = sum(row.float_ms or 0.0 for row in operators)
    lost = [
        (row.exported_ms - row.float_ms, row)
        for row in operators
        if row.layers and _is_integer(row) and row.float_ms and row.float_ms >= _TINY_MS and row.exported_ms
    ]
    worst = sorted((item for item in lost if item[0] > _LOSS_SHARE * total), key=lambda item: -item[0])
    if not worst:
        return None
    names = tuple(name for _, row in worst for name in row.layers if name in macs or not macs)
    each = tuple((row.layers[0], f"{row.float_ms:.3f} to {row.exported_ms:.3f} ms") for _, row in worst)
    count = _many(len(worst), "operator takes", "operators take")
    what = f"{count} longer on integer kernels than in float, under the profiler: {_listed(each)}"
    fix = "Try these layers in float and measure again"
    return SpeedReason("slower", what, fix, names, _percent(names, macs))


def _small(operators: Sequence[OperatorTime], float_ms: float, macs: Mapping[str, int]) -> SpeedReason | None:
    fix = "Measure with a larger batch, or quantize the large layers only"
    timed = [row for row in operators if row.exported_ms is not None]
    if not timed:
        if float_ms >= _SMALL_MS:
            return None
        what = (
            f"The whole model takes {float_ms:.2f} ms: calling each layer costs about as much as its arithmetic, which "
            "is all that integers make faster"
        )
        return SpeedReason("small", what, fix)
    tiny = [row for row in timed if row.layers and _is_integer(row) and row.float_ms and row.float_ms < _TINY_MS]
    share = sum(row.exported_ms or 0.0 for row in tiny) / max(sum(row.exported_ms or 0.0 for row in timed), 1e-12)
    if share < _TINY_SHARE:
        return None
    names = tuple(name for row in tiny for name in row.layers)
    what = (
        f"{_many(len(tiny), 'operator takes', 'operators take')} under {_TINY_MS:g} ms in float, "
        f"{100 * share:.0f} % of the exported model's time: a call costs about as much as the arithmetic, which is all "
        f"that integers make faster: {_listed(tuple((row.layers[0], '') for row in tiny))}"
    )
    return SpeedReason("small", what, fix, names, _percent(names, macs))


def threads_reason(median_ms: float, threads: int, cores: int, single_ms: float | None) -> SpeedReason | None:
    """Return whether the threads are the reason: more than cores, or slower together than one alone.

    Args:
        median_ms: Of the exported model with `threads`.
        threads: That it was timed with.
        cores: That this process may use.
        single_ms: Median with one thread, timed in turns with that of `threads`; None where it was not.
    """
    if threads > cores:
        what = f"{threads} threads were timed where there are {cores} cores: they wait for each other"
        return SpeedReason("threads", what, f"Choose {cores} threads or fewer")
    if threads > 1 and single_ms is not None and single_ms < _FASTER * median_ms:
        what = (
            f"{threads} threads take {median_ms:.3f} ms where one takes {single_ms:.3f} ms: the layers are too small "
            "to be shared out"
        )
        return SpeedReason("threads", what, "Choose 1 thread, or a larger batch")
    return None


def _many(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _listed(names: tuple[tuple[str, str], ...]) -> str:
    shown = [f"{name} ({beside})" if beside else name for name, beside in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
