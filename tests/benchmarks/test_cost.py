"""The operations that benchmarks count, against a count by hand."""

from __future__ import annotations

import torch

from benchmarks.network.cost import flops
from ff3r_model.network.layers import Block


def test_a_blocks_operations_are_counted_with_its_attention() -> None:
    batch, tokens, width = 3, 20, 48
    block = Block(width, 4, layer_scale=0.5).eval()
    with torch.inference_mode():
        counted = flops(lambda: block(torch.zeros(batch, tokens, width)))
    weights = 3 * width**2 + width**2 + 2 * 4 * width**2
    assert counted == batch * (2 * tokens * weights + 4 * tokens**2 * width)
