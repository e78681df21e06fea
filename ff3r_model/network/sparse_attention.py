"""Sparse global attention of long windows: fewer keys, without training; an approximation, never the default."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, check_range
from ff3r_model.network.layers import Block, Rotary


@dataclass(frozen=True)
class SparseConfig:
    """What global attention leaves out. The idea is AVGGT's; the details and the defaults are ours."""

    early: int = 1
    """So many of the first global layers look at each view alone."""
    stride: int = 2
    """In the later ones a patch is seen from other views only if its row and column are in every `stride`-th. A view's
    own tokens, and every view's special tokens, are always seen."""
    view_chunk: int = 8
    """Views whose queries are answered together: bounds memory, changes no result."""

    def __post_init__(self) -> None:
        check_range(self, NOT_NEGATIVE, "early")
        check_range(self, AT_LEAST_ONE, "stride", "view_chunk")


@dataclass(frozen=True)
class Split:
    """The tokens of one view, parted."""

    shared: Int[Tensor, " kept"]
    """What every view sees."""
    own: Int[Tensor, " rest"]
    """What only the view itself sees."""


def split_tokens(grid: tuple[int, int], special: int, stride: int, device: torch.device) -> Split:
    """Special tokens and a sparse grid of patches, and the rest; no value is read back from the device."""
    rows, columns = ((torch.arange(side, device=device) % stride == stride // 2) for side in grid)
    patches = (rows[:, None] & columns).flatten()
    hidden = torch.cat([torch.zeros(special, dtype=torch.bool, device=device), ~patches])
    kept = special + len(range(stride // 2, grid[0], stride)) * len(range(stride // 2, grid[1], stride))
    order = hidden.to(torch.uint8).argsort(stable=True)
    return Split(order[:kept], order[kept:])


def sparse_block(
    block: Block, tokens: Float[Tensor, "batch views tokens width"], rope: Rotary, split: Split, view_chunk: int
) -> Float[Tensor, "batch views tokens width"]:
    """A global block in which each view sees all its own tokens and only the shared ones of the others."""
    views, flat = tokens.shape[1], tokens.flatten(1, 2)
    q, k, v = (x.unflatten(2, (views, -1)) for x in block.attn.project(block.norm1(flat), rope.repeat(views)))
    common = [x[..., split.shared, :].flatten(2, 3) for x in (k, v)]
    seen = []
    for start in range(0, views, view_chunk):
        own = [x[:, :, start : start + view_chunk, split.own].transpose(1, 2) for x in (k, v)]
        keys, values = (
            torch.cat([shared[:, None].expand(-1, rest.shape[1], -1, -1, -1), rest], dim=-2)
            for shared, rest in zip(common, own, strict=True)
        )
        queries = q[:, :, start : start + view_chunk].transpose(1, 2)
        answers = F.scaled_dot_product_attention(queries.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1))
        seen.append(answers.unflatten(0, queries.shape[:2]))
    mixed = torch.cat(seen, dim=1).transpose(2, 3).flatten(3).flatten(1, 2)
    return block.finish(flat, block.attn.proj(mixed)).view(tokens.shape)
