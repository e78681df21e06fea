"""Alternating frame and global attention over the tokens of all views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import FF3RConfig
from ff3r_model.network.encoder import VisionTransformer
from ff3r_model.network.layers import Block, Rotary, patch_positions, rotary
from ff3r_model.network.sparse_attention import SparseConfig, sparse_block, split_tokens

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
GlobalStep = Callable[[int, nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Aggregated:
    """What the heads read: the kept layers, frame and global halves side by side."""

    layers: tuple[Float[Tensor, "batch views tokens width"], ...]
    special: int
    """Tokens before the patches: the camera token first, then the registers."""
    camera: Float[Tensor, "batch views width"]
    """The last layer's camera tokens, as the camera head reads them."""


class Normalisation(nn.Module):
    """Images in [0, 1], as everywhere here, by the mean and deviation that the published networks were trained with."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN, device="cpu")[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD, device="cpu")[:, None, None], persistent=False)

    def forward(self, images: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch 3 h w"]:
        return (images - self.mean) / self.std


class Aggregator(nn.Module):
    """VGGT's: images → tokens that have seen every view. Names follow its checkpoint."""

    def __init__(self, config: FF3RConfig) -> None:
        super().__init__()
        sizes, width = config.aggregator, config.width
        self.config = sizes
        self.patch = config.encoder.patch
        self.special = 1 + sizes.registers
        self.patch_embed = VisionTransformer(config.encoder)
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, sizes.registers, width))
        self.frame_blocks = self._blocks(width)
        self.global_blocks = self._blocks(width)
        self.normalise = Normalisation()

    def _blocks(self, width: int) -> nn.ModuleList:
        sizes = self.config
        return nn.ModuleList(
            Block(width, sizes.heads, layer_scale=sizes.layer_scale, qk_norm=True) for _ in range(sizes.depth)
        )

    @property
    def all_blocks(self) -> list[nn.Module]:
        """The encoder's, then those within and across views."""
        return [*self.patch_embed.blocks, *self.frame_blocks, *self.global_blocks]

    def encode(self, images: Float[Tensor, "batch views 3 h w"]) -> Float[Tensor, "batch views patches width"]:
        """Patch tokens of each view, which knows nothing of the others yet."""
        return self.patch_embed(self.normalise(images).flatten(0, 1)).unflatten(0, tuple(images.shape[:2]))

    def with_special(
        self, patches: Float[Tensor, "batch views patches width"]
    ) -> Float[Tensor, "batch views tokens width"]:
        """Special tokens, of which the first view has its own version, before the patches."""
        batch, views = patches.shape[:2]
        special = torch.cat([self.camera_token, self.register_token], dim=2)
        special = torch.cat([special[:, :1], special[:, 1:].expand(-1, views - 1, -1, -1)], dim=1)
        return torch.cat([special.expand(batch, -1, -1, -1).to(patches.dtype), patches], dim=2)

    def rope(self, height: int, width: int, device: torch.device) -> Rotary:
        """Rotary angles of one view's tokens for an image of `height` × `width` pixels."""
        positions = patch_positions(height // self.patch, width // self.patch, self.special, device)
        head = self.camera_token.shape[-1] // self.config.heads
        return rotary(positions, head, self.config.rope_base)

    def forward(self, images: Float[Tensor, "batch views 3 h w"]) -> Aggregated:
        return self.aggregate(self.encode(images), (images.shape[-2], images.shape[-1]))

    def aggregate(
        self,
        encoded: Float[Tensor, "batch views patches width"],
        size: tuple[int, int],
        sparse: SparseConfig | None = None,
        known: Float[Tensor, "batch views 9"] | None = None,
    ) -> Aggregated:
        """What `encode` gave, views together; `size`: the images' height and width. `sparse` approximates.

        Raises ValueError for `known` cameras: VGGT has nothing that reads them.
        """
        if known is not None:
            raise ValueError("VGGT takes no known cameras; Depth Anything 3 does")
        tokens = self.with_special(encoded)
        batch, views, count, _ = tokens.shape
        rope = self.rope(*size, encoded.device)
        grid = (size[0] // self.patch, size[1] // self.patch)
        across = across_views(rope, views, grid, self.special, sparse)
        kept = []
        for index, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            within = frame_block(tokens.reshape(batch * views, count, -1), rope).view(batch, views, count, -1)
            tokens = across(index, global_block, within)
            if index in self.config.layers:
                kept.append(torch.cat([within, tokens], dim=-1))
        return Aggregated(tuple(kept), self.special, kept[-1][:, :, 0])


def across_views(
    rope: Rotary, views: int, grid: tuple[int, int], special: int, sparse: SparseConfig | None
) -> GlobalStep:
    """How the tokens of all views see each other in the global block of a number, `rope` being of one view's tokens."""
    rope_all = rope.repeat(views)

    def exact(index: int, block: nn.Module, tokens: Tensor) -> Tensor:
        return block(tokens.flatten(1, 2), rope_all).view(tokens.shape)

    if sparse is None:
        return exact
    split = split_tokens(grid, special, sparse.stride, rope.cos.device)

    def approximate(index: int, block: nn.Module, tokens: Tensor) -> Tensor:
        if index < sparse.early:
            return block(tokens.flatten(0, 1), rope).view(tokens.shape)
        assert isinstance(block, Block)
        return sparse_block(block, tokens, rope, split, sparse.view_chunk)

    return approximate
