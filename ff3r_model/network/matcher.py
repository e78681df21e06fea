"""Matches between views read off a global block's attention, and their flow into the camera tokens. Ours.

VGGT learns to pose cameras from attention alone, given a large network and much data. A small one learns it when
the attention is also taught the known matches and the camera tokens are told where each patch went.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import MatcherConfig
from ff3r_model.network.layers import Block, Mlp, Rotary


class Matcher(nn.Module):
    """Adds to every camera token a message from each other view: where this view's patches lie over there."""

    def __init__(self, config: MatcherConfig, width: int, heads: int) -> None:
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.pair = Mlp(7, config.width, config.width)
        self.first = nn.Parameter(torch.zeros(2, config.width))
        self.sender = nn.Linear(width, config.width)
        self.message = Mlp(config.width, 2 * config.width, width)

    def logits(self, q: Tensor, k: Tensor) -> Float[Tensor, "batch views patches views patches"]:
        """Log-probability, per patch and per other view, of each patch over there being its match."""
        scores = torch.einsum("bvpc,buqc->bvpuq", q, k) * (self.log_scale.exp() / q.shape[-1] ** 0.5)
        return scores.float().log_softmax(dim=-1)

    def flow(self, matches: Tensor, grid: tuple[int, int]) -> Float[Tensor, "batch views views patches 7"]:
        """Per pair of views and patch: where it is, where it went, how far, and how sure the match is."""
        here = grid_coordinates(grid, matches)
        probability = matches.exp()
        there = (probability @ here).transpose(2, 3)
        here = here.expand_as(there)
        sure = probability.amax(dim=-1).transpose(2, 3)[..., None]
        return torch.cat([here, there, there - here, sure], dim=-1)

    def forward(
        self, tokens: Float[Tensor, "batch views tokens width"], block: Block, rope: Rotary, grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "batch views tokens width"], Float[Tensor, "batch views patches views patches"]]:
        """The tokens with messages added to the camera tokens, and the matches' log-probabilities."""
        batch, views, count, _ = tokens.shape
        q, k = block.attn.queries_keys(block.norm1(tokens.flatten(0, 1)), rope)
        special = count - grid[0] * grid[1]
        q, k = (x[:, :, special:].transpose(1, 2).flatten(2).unflatten(0, (batch, views)) for x in (q, k))
        matches = self.logits(q, k)
        flow = self.flow(matches, grid)
        weight = flow[..., -1:] / flow[..., -1:].sum(dim=3, keepdim=True)
        pair = (weight * self.pair(flow)).sum(dim=3)
        camera = tokens[:, :, 0]
        message = self.message((pair + self._sender(camera)).relu()).mean(dim=2)
        camera = camera + message.to(camera.dtype)
        return torch.cat([camera[:, :, None], tokens[:, :, 1:]], dim=2), matches

    def _sender(self, camera: Float[Tensor, "batch views width"]) -> Float[Tensor, "batch 1 views channels"]:
        views = camera.shape[1]
        first = torch.cat([self.first[:1], self.first[1:].expand(views - 1, -1)])
        return (self.sender(camera) + first)[:, None]


def grid_coordinates(grid: tuple[int, int], like: Tensor) -> Float[Tensor, "patches 2"]:
    """(x, y) of each patch's centre in units of half the grid's longer side, from its middle."""
    height, width = grid
    y, x = torch.meshgrid(
        torch.arange(height, device=like.device, dtype=like.dtype) + 0.5 - height / 2,
        torch.arange(width, device=like.device, dtype=like.dtype) + 0.5 - width / 2,
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1).flatten(0, 1) * (2 / max(height, width))
