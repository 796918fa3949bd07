"""Speed of one streaming pass, as a ratio within one run."""

from __future__ import annotations

import time

import pytest
import torch

from qstudio.quant.statistics import SiteAccumulator


@pytest.mark.benchmark
def test_one_pass_costs_at_most_half_more_than_a_bare_histogram():
    """16 tensors of 1,048,576 values, counts, moments, channels and outliers, against torch.histc alone."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(64, 16, 32, 32, generator=generator).relu() for _ in range(16)]

    def ours():
        accumulators = [SiteAccumulator(str(i)) for i in range(len(tensors))]
        for accumulator, values in zip(accumulators, tensors, strict=True):
            accumulator.add(values, range(64))

    def bare():
        for values in tensors:
            torch.histc(values, 2048)

    def best(work):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times)

    ratio = best(ours) / best(bare)
    print(f"\none pass / torch.histc: {ratio:.2f}")
    assert ratio <= 1.5
