"""The export is as fast as what onnxruntime's own quantizer makes of the same model."""

from __future__ import annotations

import numpy as np
import pytest
from export_cases import case_model, export, quantize_static_of

from qstudio.backends.timing import measure_pair

LIMIT = 1.03


@pytest.mark.benchmark
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", ["resnet20_cifar10", "resnet8_cifar10", "kws_dscnn"])
def test_as_fast_as_quantize_static(name, batch, tmp_path):
    """Median of several interleaved rounds, so that one slow moment of the machine does not decide."""
    model, x = case_model(name)
    ours = export(model, x).model
    theirs = quantize_static_of(model, x, tmp_path)
    runs = 300 if batch == 1 else 30
    pairs = [measure_pair(theirs, ours, batch, threads=2, runs=runs) for _ in range(3)]
    ratios = [pair.exported.median / pair.float.median for pair in pairs]
    ratio = float(np.median(ratios))
    print(
        f"\n{name} batch {batch}: quantize_static {np.median([p.float.median for p in pairs]):.3f} ms, "
        f"ours {np.median([p.exported.median for p in pairs]):.3f} ms, ratio {ratio:.3f} {np.round(sorted(ratios), 3)}"
    )
    assert ratio <= LIMIT
