"""The export is as fast as what onnxruntime's own quantizer makes of the same model."""

from __future__ import annotations

import pytest
from export_cases import case_model, export, quantize_static_of

from qstudio.backends.timing import measure_in_turns, measure_pair

LIMIT = 1.03


@pytest.mark.benchmark
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", ["resnet20_cifar10", "resnet8_cifar10", "kws_dscnn"])
def test_as_fast_as_quantize_static(name, batch, tmp_path):
    """Best of several interleaved rounds of each, every round with sessions of its own.

    Where the system puts a session's worker thread decides between two speeds 1.5 times apart, for the whole life of
    the session and at random (0.154 and 0.238 ms for one and the same file); the best round is the one placed well.
    """
    model, x = case_model(name)
    ours = export(model, x).model
    theirs = quantize_static_of(model, x, tmp_path)
    runs = 300 if batch == 1 else 20
    pairs = [measure_pair(theirs, ours, batch, threads=2, runs=runs) for _ in range(7)]
    best_ours = min(pair.exported.median for pair in pairs)
    best_theirs = min(pair.float.median for pair in pairs)
    ratio = best_ours / best_theirs
    print(f"\n{name} batch {batch}: quantize_static {best_theirs:.3f} ms, ours {best_ours:.3f} ms, ratio {ratio:.3f}")
    assert ratio <= LIMIT


@pytest.mark.benchmark
@pytest.mark.parametrize("bits", [2, 4])
def test_packed_weights_cost_no_time(bits):
    """Packed weights are unpacked when the file is loaded: a smaller file at the speed of int8.

    Peers' int4 exports run at 0.1 to 0.5 of float's speed, because DequantizeLinear unpacks them in every inference.
    """
    model, x = case_model("resnet20_cifar10")
    whole, packed = (export(model, x, wbits=bits, packed=packed).model for packed in (False, True))
    rounds = [measure_in_turns([model, whole, packed], threads=1, runs=100) for _ in range(5)]
    original, best_whole, best_packed = (
        min(latency.median for latency in column) for column in zip(*rounds, strict=True)
    )
    sizes = whole.ByteSize(), packed.ByteSize()
    print(f"\nint{bits}: {sizes}, float {original:.3f} ms, int8 {best_whole:.3f} ms, packed {best_packed:.3f} ms")
    assert sizes[1] < 0.6 * sizes[0]
    assert best_packed <= 1.1 * best_whole
    assert best_packed < original
