"""Global attention with fewer keys against attention under a mask, written out; and where it must be exact."""

from __future__ import annotations

import pytest
import torch

from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.layers import Block, patch_positions, rotary
from ff3r_model.network.sparse_attention import SparseConfig, sparse_block, split_tokens

GRID, SPECIAL, VIEWS = (3, 5), 2, 4
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("stride", "rows", "columns"), [(1, {0, 1, 2}, {0, 1, 2, 3, 4}), (2, {1}, {1, 3}), (3, {1}, {1, 4})]
)
def test_special_tokens_and_a_sparse_grid_are_shared(stride: int, rows: set[int], columns: set[int]) -> None:
    split = split_tokens(GRID, SPECIAL, stride, CPU)
    expected = {0, 1} | {SPECIAL + row * 5 + column for row in rows for column in columns}
    assert set(split.shared.tolist()) == expected and len(split.shared) == len(expected)
    assert set(split.own.tolist()) == set(range(SPECIAL + 15)) - expected


@pytest.mark.parametrize("view_chunk", [1, 3, 8])
def test_a_sparse_block_is_attention_under_a_mask(view_chunk: int) -> None:
    torch.manual_seed(0)
    block = Block(24, 2, layer_scale=0.5, qk_norm=True).double()
    rope = rotary(patch_positions(*GRID, SPECIAL, CPU), 12, 100.0)
    count = SPECIAL + 15
    tokens = torch.randn(2, VIEWS, count, 24, dtype=torch.float64)
    split = split_tokens(GRID, SPECIAL, 2, CPU)
    got = sparse_block(block, tokens, rope, split, view_chunk)
    shared = torch.zeros(count, dtype=torch.bool)
    shared[split.shared] = True
    view = torch.arange(VIEWS).repeat_interleave(count)
    allowed = (view[:, None] == view) | shared.repeat(VIEWS)
    flat = tokens.flatten(1, 2)
    normed = block.norm1(flat)
    q, k = block.attn.queries_keys(normed, rope.repeat(VIEWS))
    v = block.attn.qkv(normed)[..., 48:].unflatten(-1, (2, 12)).transpose(1, 2)
    scores = (q @ k.transpose(-1, -2) / 12**0.5).masked_fill(~allowed, -torch.inf)
    mixed = block.attn.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    expected = flat + block.ls1(mixed)
    expected = expected + block.ls2(block.mlp(block.norm2(expected)))
    torch.testing.assert_close(got.flatten(1, 2), expected)


def test_stride_one_without_early_layers_is_exact_and_less_is_not() -> None:
    torch.manual_seed(0)
    network = FF3R(FF3RConfig.nano()).eval()
    images = torch.rand(1, 3, 3, 42, 56)
    with torch.inference_mode():
        frames = network.encode_frames(images)
        exact = network.decode_window(images, frames)
        same = network.decode_window(images, frames, SparseConfig(early=0, stride=1))
        fewer = network.decode_window(images, frames, SparseConfig())
    torch.testing.assert_close(same.depth, exact.depth, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same.tokens, exact.tokens, rtol=1e-4, atol=1e-4)
    assert (fewer.tokens - exact.tokens).abs().max() > 1e-3


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="stride"):
        SparseConfig(stride=0)
