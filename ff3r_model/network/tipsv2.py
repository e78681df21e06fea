"""TIPSv2's image side, a semantic encoder: a ViT whose patch tokens are compared with text as they are.

Cao et al., "TIPSv2: Advancing Vision-Language Pretraining with Enhanced Patch-Text Alignment", CVPR 2026. Names follow
the published checkpoint (`vision_encoder.`).
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ff3r_model.network.config import TIPSv2Config
from ff3r_model.network.encoder import VisionTransformer
from ff3r_model.network.semantic_encoder import SemanticEncoder, Semantics


class TIPSv2(SemanticEncoder):
    """Patch tokens by the published "values" path: in the last block each patch attends to itself alone."""

    def __init__(self, config: TIPSv2Config) -> None:
        super().__init__()
        self.config = config
        self.vision_encoder = VisionTransformer(config.vit)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Semantics:
        """Of images in [0, 1], neither mean nor deviation taken off, whose sides are multiples of the patch.

        Tokens and features are the same: one token per patch, as wide as the text's space.
        """
        patch = self.config.vit.patch
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        values = self.vision_encoder.values(images).transpose(1, 2).unflatten(2, grid)
        return Semantics(values, values)

    def resize(self, images: Float[Tensor, "n 3 h w"], grid: tuple[int, int]) -> Float[Tensor, "n 3 hs ws"]:
        """The images at exactly one patch per patch of the geometry's `grid`: as they are, where patches are alike."""
        size = (grid[0] * self.config.vit.patch, grid[1] * self.config.vit.patch)
        if tuple(images.shape[-2:]) == size:
            return images
        return F.interpolate(images, size, mode="bilinear", align_corners=False)
