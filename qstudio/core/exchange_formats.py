"""The files of other tools that encodings are written to; see `qstudio.core.exchange`. Imports nothing heavy."""

from __future__ import annotations

FORMATS: dict[str, str] = {
    "aimet": "AIMET encodings 1.0.0: a JSON file with scale, offset and bits of every tensor, for AIMET and QAIRT",
    "onnxruntime": "onnxruntime's TensorQuantOverrides: a JSON file, {tensor: [{quant_type, scale, zero_point}]}, for "
    "quantize_static(extra_options={'TensorQuantOverrides': ...}); write quant_type there as QuantType.NAME",
}
"""Files that encodings are written to, and what reads them."""
