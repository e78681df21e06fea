"""LSeg's image side, a semantic encoder: images → tokens, and dense features in the text's embedding space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import LSegConfig
from ff3r_model.network.dpt import Pyramid, resize_layers
from ff3r_model.network.encoder import VisionTransformer
from ff3r_model.network.semantic_encoder import SemanticEncoder, Semantics

STRIDE = 32
"""The decoder's coarsest map: image sides must be multiples of it."""


class ProjectReadout(nn.Module):
    """Lets every patch token see the class token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, tokens: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n patches width"]:
        patches = tokens[:, 1:]
        return self.project(torch.cat([patches, tokens[:, :1].expand_as(patches)], dim=-1))


class LSeg(SemanticEncoder):
    """ViT with a DPT decoder, up to the features that are compared with text. Names follow the LSeg checkpoint."""

    def __init__(self, config: LSegConfig, text_width: int) -> None:
        super().__init__()
        self.config = config
        width = config.vit.width
        self.pretrained = nn.ModuleDict({"model": VisionTransformer(config.vit)})
        for level, (count, resize) in enumerate(
            zip(config.channels, resize_layers(config.channels), strict=True), start=1
        ):
            # Published as numbered steps: 0 readout, 3 projection, 4 resize; the others have no weights.
            steps = {"0": ProjectReadout(width), "3": nn.Conv2d(width, count, 1), "4": resize}
            self.pretrained[f"act_postprocess{level}"] = nn.ModuleDict(steps)
        self.scratch = Pyramid(config.channels, config.features, batch_norm=config.batch_norm, relu_skip=False)
        self.scratch.head1 = nn.Conv2d(config.features, text_width, 1)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Semantics:
        """Of images in [0, 1] whose sides are multiples of 32. Features have half the images' resolution."""
        grid = (images.shape[-2] // self.config.vit.patch, images.shape[-1] // self.config.vit.patch)
        vit = self.pretrained["model"]
        taps = vit.tap(2 * images - 1, self.config.layers)
        maps = [self._map(level, tokens, grid) for level, tokens in enumerate(taps, start=1)]
        tokens = vit.norm(taps[-1][:, 1:]).transpose(1, 2).unflatten(2, grid)
        return Semantics(tokens, self.scratch.head1(self.scratch(maps)))

    def _map(self, level: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        steps = self.pretrained.get_submodule(f"act_postprocess{level}")
        assert isinstance(steps, nn.ModuleDict)
        return steps["4"](steps["3"](steps["0"](tokens).transpose(1, 2).unflatten(2, grid)))

    def resize(self, images: Float[Tensor, "n 3 h w"], grid: tuple[int, int]) -> Float[Tensor, "n 3 hs ws"]:
        """The images at about one of our patches per patch of the geometry's `grid`, sides multiples of 32."""
        sides = [max(STRIDE, (side * self.config.vit.patch + STRIDE // 2) // STRIDE * STRIDE) for side in grid]
        return F.interpolate(images, (sides[0], sides[1]), mode="bilinear", align_corners=False)
