"""Depth Anything 3's backbone: a DINOv2 whose later blocks look, in turns, within a view and across all views."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ff3r_model.network.aggregator import Aggregated, Normalisation, across_views
from ff3r_model.network.config import DA3Config, ViTConfig
from ff3r_model.network.da3_cameras import CameraEncoder
from ff3r_model.network.encoder import VisionTransformer
from ff3r_model.network.layers import Rotary, patch_positions, rotary
from ff3r_model.network.sparse_attention import SparseConfig

FEW = 3
"""Views from which on the reference view is chosen; of fewer it is the first."""


class DA3Aggregator(VisionTransformer):
    """Images → tokens that have seen every view. Names follow the published checkpoints."""

    def __init__(self, encoder: ViTConfig, config: DA3Config) -> None:
        super().__init__(encoder, qk_norm_from=config.start)
        self.da3 = config
        self.patch = encoder.patch
        self.special = 1
        self.camera_token = nn.Parameter(torch.zeros(1, 2, encoder.width))
        self.norm = nn.LayerNorm(encoder.width)
        self.camera_encoder = CameraEncoder(encoder.width)
        self.normalise = Normalisation()

    @property
    def all_blocks(self) -> list[nn.Module]:
        """Plain ones, then those within and across views in turns."""
        return list(self.blocks)

    @property
    def global_blocks(self) -> list[nn.Module]:
        """Those across views."""
        return [self.blocks[index] for index in range(self.da3.start, len(self.blocks)) if index % 2]

    def encode(self, images: Float[Tensor, "batch views 3 h w"]) -> Float[Tensor, "batch views tokens width"]:
        """Tokens of each view, which knows nothing of the others yet.

        First the class token that reference views are chosen by, one block older than the patches after it.
        """
        tokens = self.embed(self.normalise(images).flatten(0, 1))
        for block in self.blocks[: self.da3.start - 1]:
            tokens = block(tokens)
        patches = self.blocks[self.da3.start - 1](tokens)[:, 1:]
        return torch.cat([tokens[:, :1].to(patches.dtype), patches], dim=1).unflatten(0, tuple(images.shape[:2]))

    def rope(self, height: int, width: int, device: torch.device) -> Rotary:
        """Rotary angles within a view for an image of `height` × `width` pixels."""
        return self._rotary(patch_positions(height // self.patch, width // self.patch, self.special, device))

    def rope_across(self, tokens: int, device: torch.device) -> Rotary:
        """Rotary angles of one view's tokens in blocks across views: all patches stand at (1, 1)."""
        place = torch.cat([torch.zeros(1, 2, device=device), torch.ones(tokens - 1, 2, device=device)])
        return self._rotary(place.long())

    def _rotary(self, positions: Int[Tensor, "tokens 2"]) -> Rotary:
        return rotary(positions, self.camera_token.shape[-1] // self.config.heads, self.da3.rope_base)

    def camera_tokens(self, classes: Float[Tensor, "batch views width"]) -> Float[Tensor, "batch views width"]:
        """One learned token for the reference view, another one for all others."""
        views = torch.arange(classes.shape[1], device=classes.device)
        is_reference = (views == reference_views(classes)[:, None])[..., None]
        return torch.where(is_reference, self.camera_token[:, :1], self.camera_token[:, 1:])

    def aggregate(
        self,
        encoded: Float[Tensor, "batch views tokens width"],
        size: tuple[int, int],
        sparse: SparseConfig | None = None,
        known: Float[Tensor, "batch views 9"] | None = None,
    ) -> Aggregated:
        """What `encode` gave, views together; `size`: the images' height and width. `sparse` approximates.

        `known`: pose encodings of camera_from_world, as `encode_known` makes them, that tell the network where the
        views are; it still predicts them.
        """
        # The camera's token takes the place of the class token.
        camera = self.camera_tokens(encoded[:, :, 0]) if known is None else self.camera_encoder(known)
        tokens = torch.cat([camera[:, :, None].to(encoded.dtype), encoded[:, :, 1:]], dim=2)
        batch, views, count, _ = tokens.shape
        rope = self.rope(*size, encoded.device)
        grid = (size[0] // self.patch, size[1] // self.patch)
        across = across_views(self.rope_across(count, encoded.device), views, grid, self.special, sparse)
        # Within a view and across all in turns. What is read is both, and the norm goes over the second half alone.
        within, kept, done = tokens, [], 0
        for index in range(self.da3.start, len(self.blocks)):
            block = self.blocks[index]
            if index % 2:
                tokens, done = across(done, block, tokens), done + 1
            else:
                within = tokens = block(tokens.flatten(0, 1), rope).view(batch, views, count, -1)
            if index in self.da3.layers:
                kept.append(torch.cat([within, self.norm(tokens).to(within.dtype)], dim=-1))
        return Aggregated(tuple(kept), self.special, torch.cat([within[:, :, 0], tokens[:, :, 0]], dim=-1))


def reference_views(classes: Float[Tensor, "batch views width"]) -> Int[Tensor, " batch"]:
    """The most average view of each window, by its class tokens ("saddle_balanced"); the first of fewer than three.

    Of mean cosine to the other views, norm, and variance of the unit token, each scaled to [0, 1] over the views, the
    sum of |figure - 0.5| is smallest. All of it can be exported, with any number of views.
    """
    with torch.autocast(classes.device.type, enabled=False):
        classes = classes.float()
        norm = classes.norm(dim=-1)
        unit = classes / norm[..., None]
        places = torch.arange(classes.shape[1], device=classes.device)
        others = places[-1].clamp_min(1)
        cosine = ((unit @ unit.mT).sum(dim=-1) - 1) / others
        figures = torch.stack([cosine, norm, unit.var(dim=-1)])
        low, high = figures.amin(dim=-1, keepdim=True), figures.amax(dim=-1, keepdim=True)
        score = ((figures - low) / (high - low + 1e-8) - 0.5).abs().sum(dim=0)
        few = (places[-1] < FEW - 1) & (places > 0)
        return score.masked_fill(few, torch.inf).argmin(dim=-1)
