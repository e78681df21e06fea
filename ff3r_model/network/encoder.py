"""The vision transformer that turns an image into patch tokens: DINOv2's and LSeg's, by configuration."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import ViTConfig
from ff3r_model.network.layers import Block

STEM_WIDTH = 24
INTERPOLATION = {
    "bicubic": ("bicubic", True),
    "bilinear": ("bilinear", False),
    "bilinear_antialiased": ("bilinear", True),
}
"""Mode of the position embedding's resizing by size, and whether it is antialiased."""
SCALE_OFFSET = 0.1
"""DINOv2's, so that rounding never loses a row of patches."""


class PatchEmbed(nn.Module):
    """One linear map per patch, or (`stem="conv"`) two small convolutions at half resolution before it."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.stem: nn.Module = nn.Identity()
        if config.stem == "linear":
            self.proj = nn.Conv2d(3, config.width, config.patch, config.patch)
            return
        self.stem = nn.Sequential(
            nn.Conv2d(3, STEM_WIDTH, 3, stride=2, padding=1),
            nn.GroupNorm(4, STEM_WIDTH),
            nn.GELU(),
            nn.Conv2d(STEM_WIDTH, STEM_WIDTH, 3, padding=1),
            nn.GroupNorm(4, STEM_WIDTH),
            nn.GELU(),
        )
        self.proj = nn.Conv2d(STEM_WIDTH, config.width, config.patch // 2, config.patch // 2)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n patches width"]:
        return self.proj(self.stem(images)).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Class token, registers where configured, and one token per patch."""

    def __init__(self, config: ViTConfig, qk_norm_from: int | None = None) -> None:
        """`qk_norm_from`: the first block that normalises queries and keys; None: no block does."""
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid**2 + 1, width))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, width))
            # Published beside the registers, of use only to DINOv2's own training.
            self.mask_token = nn.Parameter(torch.zeros(1, width), requires_grad=False)
        plain = config.depth if qk_norm_from is None else qk_norm_from
        self.blocks = nn.ModuleList(
            Block(width, config.heads, layer_scale=config.layer_scale, qk_norm=index >= plain, eps=1e-6)
            for index in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, height: int, width: int) -> Float[Tensor, "1 tokens width"]:
        """Class token's and patches' position embeddings for a grid of `height` × `width` patches."""
        grid = self.config.grid
        if (height, width) == (grid, grid):
            return self.pos_embed
        patches = self.pos_embed[:, 1:].float().transpose(1, 2).unflatten(2, (grid, grid))
        if self.config.interpolation == "bicubic_scaled":
            scale = ((height + SCALE_OFFSET) / grid, (width + SCALE_OFFSET) / grid)
            resized = F.interpolate(patches, scale_factor=scale, mode="bicubic")
        else:
            mode, antialias = INTERPOLATION[self.config.interpolation]
            resized = F.interpolate(patches, (height, width), mode=mode, antialias=antialias)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2).to(self.pos_embed)], dim=1)

    def embed(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n tokens width"]:
        """Tokens before the first block: class, registers, patches."""
        n, _, height, width = images.shape
        tokens = torch.cat([self.cls_token.expand(n, -1, -1), self.patch_embed(images)], dim=1)
        tokens = tokens + self.positions(height // self.config.patch, width // self.config.patch)
        if not self.config.registers:
            return tokens
        return torch.cat([tokens[:, :1], self.register_tokens.expand(n, -1, -1), tokens[:, 1:]], dim=1)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n patches width"]:
        """Normalised patch tokens of normalised images."""
        return self.all_tokens(images)[:, 1 + self.config.registers :]

    def all_tokens(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n tokens width"]:
        """After the final norm: class token, registers, patches."""
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def values(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n patches width"]:
        """Normalised patch tokens, of which each attends to itself alone in the last block: it stays where it is."""
        tokens = self.embed(images)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return self.norm(last.by_values(tokens[:, 1 + self.config.registers :]))

    def tap(self, images: Float[Tensor, "n 3 h w"], layers: tuple[int, ...]) -> list[Float[Tensor, "n tokens width"]]:
        """All tokens after each of `layers`, before the final norm."""
        tokens, taps = self.embed(images), {}
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in layers:
                taps[index] = tokens
        return [taps[index] for index in layers]
