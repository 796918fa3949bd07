"""Raise a model's operator set with onnx's own converter."""

from __future__ import annotations

import onnx
from onnx import version_converter

from qstudio.core.errors import UserError

_LATEST = 25


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operator set; 1 where the model names none."""
    return max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=1)


def raise_opset(proto: onnx.ModelProto, minimum: int) -> onnx.ModelProto:
    """Return a model of at least the given operator set.

    Args:
        proto: The model; it is not changed. A model that is new enough already is returned as it is.
        minimum: Operator set wanted (13 for QDQ per channel, 19 float8, 21 int4 and blocks, 25 int2).

    Returns:
        A converted copy. Node and tensor names are kept; nodes that the converter adds get names after their outputs.

    Raises:
        UserError: when the converter has no way for one of the model's operators.
    """
    if opset_of(proto) >= minimum:
        return proto
    if minimum > _LATEST:
        raise UserError(f"operator set {minimum} is not known", proto.graph.name, f"Ask for {_LATEST} or less")
    try:
        converted = version_converter.convert_version(_with_types(proto), minimum)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        text = f"the model cannot be raised from operator set {opset_of(proto)} to {minimum} ({reason})"
        raise UserError(text, proto.graph.name, "Export it again with a newer opset_version") from error
    _restore(converted, proto)
    return converted


def _with_types(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model so that the converter takes it: it wants initializers among the inputs in old models."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for opset in copy.opset_import:
        opset.domain = "" if opset.domain == "ai.onnx" else opset.domain
    return copy


def _restore(converted: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Put back what the converter's internal form loses: names, other domains, and what the file says of itself."""
    converted.producer_name, converted.producer_version = original.producer_name, original.producer_version
    converted.doc_string = original.doc_string
    if not converted.metadata_props:
        converted.metadata_props.extend(original.metadata_props)
    present = {o.domain for o in converted.opset_import}
    converted.opset_import.extend(o for o in original.opset_import if o.domain not in present and o.domain != "ai.onnx")
    constants = {t.name for t in converted.graph.initializer}
    original_inputs = {i.name for i in original.graph.input}
    added = [i for i in converted.graph.input if i.name in constants and i.name not in original_inputs]
    for value in added:
        converted.graph.input.remove(value)
    names = {output: node.name for node in original.graph.node for output in node.output if output}
    for node in converted.graph.node:
        kept = next((names[o] for o in node.output if o in names), None)
        if kept is not None and not node.name:
            node.name = kept
