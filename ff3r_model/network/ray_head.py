"""Depth Anything 3's ray map: the second chain of its DualDPT. FF3R does without; parity checks ask for it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import DPTConfig
from ff3r_model.network.dpt import DPTDecoder, Map, Refinement, add_positions, join


class ChannelNorm(nn.LayerNorm):
    """A LayerNorm over the channels of a map."""

    def forward(self, x: Map) -> Map:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class RayHead(nn.Module):
    """Rays of a grid of 8 cells per patch and axis, from what a depth head makes of the tokens."""

    def __init__(self, config: DPTConfig) -> None:
        super().__init__()
        wide, narrow, last = config.features, *config.hidden
        for level in range(1, 5):
            refinement = Refinement(wide, joins=level < 4, batch_norm=False, relu_skip=config.relu_skip)
            setattr(self, f"refinenet{level}", refinement)
        widths = [wide, narrow, wide, narrow, wide, narrow]
        self.output_conv1 = nn.Sequential(
            *(nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(widths))
        )
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(narrow, last, 3, padding=1), ChannelNorm(last), nn.ReLU(), nn.Conv2d(last, 7, 1)
        )

    def forward(
        self,
        depth_head: DPTDecoder,
        layers: Sequence[Float[Tensor, "n patches width"]],
        grid: tuple[int, int],
        aspect: float,
    ) -> Float[Tensor, "n 7 h8 w8"]:
        """Direction (3), origin (3) and confidence (> 1); `aspect` is the images' width / height."""
        maps = depth_head.scratch.narrowed(depth_head.maps(layers, grid, aspect))
        x = self.output_conv1(join([getattr(self, f"refinenet{level}") for level in range(1, 5)], maps))
        rays, confidence = self.output_conv2(add_positions(x, aspect)).split([6, 1], dim=1)
        return torch.cat([rays, 1 + confidence.exp()], dim=1)
