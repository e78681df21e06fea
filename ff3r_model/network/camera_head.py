"""Camera tokens → pose encodings, refined step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import CameraHeadConfig
from ff3r_model.network.layers import Block, Mlp

POSE = 9
"""Translation 3, quaternion xyzw 4, vertical and horizontal field of view 2."""

START_STD = 0.002
"""Of the last layer's initial weights."""


class CameraHead(nn.Module):
    """Iterative refinement: each step sees the encoding so far and adds to it. Names follow VGGT's checkpoint."""

    def __init__(self, config: CameraHeadConfig, width: int) -> None:
        super().__init__()
        self.config = config
        inner = config.width or width
        self.token_norm = nn.LayerNorm(width)
        self.proj = nn.Identity() if config.width is None else nn.Linear(width, inner)
        self.trunk = nn.ModuleList(
            Block(inner, config.heads, layer_scale=config.layer_scale) for _ in range(config.depth)
        )
        self.trunk_norm = nn.LayerNorm(inner)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE))
        self.embed_pose = nn.Linear(POSE, inner)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(inner, 3 * inner))
        self.pose_branch = Mlp(inner, inner // 2, POSE)
        self.register_buffer("prior", torch.tensor(config.prior, device="cpu"), persistent=False)

    def forward(self, camera: Float[Tensor, "batch views width"]) -> Float[Tensor, "iterations batch views 9"]:
        """Encodings of camera_from_world after each step; the last is the answer."""
        tokens = self.proj(self.token_norm(camera))
        raw = self.step(tokens, self.empty_pose_tokens)
        steps = [raw]
        for _ in range(self.config.iterations - 1):
            # The published training lets no gradient pass from step to step through the encoding.
            raw = raw.detach() + self.step(tokens, raw.detach())
            steps.append(raw)
        return self.activate(torch.stack(steps) + self.prior)

    def step(
        self, tokens: Float[Tensor, "batch views width"], encoding: Float[Tensor, "#batch #views 9"]
    ) -> Float[Tensor, "batch views 9"]:
        """What to add to `encoding`: the tokens, modulated by it, through the trunk."""
        shift, scale, gate = self.poseLN_modulation(self.embed_pose(encoding)).chunk(3, dim=-1)
        normalised = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        tokens = tokens + gate * (normalised * (1 + scale) + shift)
        for block in self.trunk:
            tokens = block(tokens)
        return self.pose_branch(self.trunk_norm(tokens))

    def start_plain(self) -> None:
        """Initial weights: cameras near the prior."""
        nn.init.trunc_normal_(self.pose_branch.fc2.weight, std=START_STD)

    @staticmethod
    def activate(encoding: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 9"]:
        """Fields of view are not negative; the rest stays."""
        return torch.cat([encoding[..., :7], encoding[..., 7:].relu()], dim=-1)
