"""FF3R: images → cameras, depth and semantic Gaussians in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.aggregator import Aggregated, Aggregator
from ff3r_model.network.camera_head import CameraHead
from ff3r_model.network.config import FF3RConfig
from ff3r_model.network.dpt import DepthHead
from ff3r_model.network.fusion import Fusion
from ff3r_model.network.gaussian_head import GaussianHead, RawGaussians, split
from ff3r_model.network.init import initialise
from ff3r_model.network.lseg import LSeg
from ff3r_model.types import MAX_VIEWS, MIN_VIEWS


@dataclass(frozen=True)
class NetworkOutput:
    """Everything the network says about a batch of windows."""

    pose_encodings: Float[Tensor, "iterations batch views 9"]
    """Per refinement step; the last is the answer. camera_from_world: translation 3, quaternion xyzw 4 (not
    normalised), vertical and horizontal field of view in radians."""
    depth: Float[Tensor, "batch views h w"]
    """z in the camera's frame, window units."""
    depth_confidence: Float[Tensor, "batch views h w"]
    """Above 1; larger is more certain."""
    gaussians: RawGaussians | None
    """None in lifting mode."""
    semantics: Float[Tensor, "batch views text hs ws"] | None
    """LSeg's features in the text's space, at its own resolution; None where not asked for."""
    lifted: Float[Tensor, "batch views channels hs ws"] | None
    """In lifting mode: LSeg's features, unit norm, projected to the compact space."""
    tokens: Float[Tensor, "batch views tokens width"]
    """Last aggregated layer: camera token, registers, patches."""


class FF3R(nn.Module):
    """The network as the paper draws it, at the size of its configuration."""

    def __init__(self, config: FF3RConfig) -> None:
        super().__init__()
        self.config = config
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config.camera, 2 * config.width)
        self.depth_head = DepthHead(config.depth, 2 * config.width, config.depth_skip)
        self.lseg = LSeg(config.lseg, config.text_width)
        if config.decode_gaussians:
            self.fusion = Fusion(config.fusion, 2 * config.width, config.lseg.vit.width, config.fusion_residual)
            self.gaussian_head = GaussianHead(config)
        self.feature_decoder = nn.Linear(config.feature_channels, config.text_width, bias=False)
        initialise(self)

    def forward(self, images: Float[Tensor, "batch views 3 h w"], semantics: bool = True) -> NetworkOutput:
        """2 to 64 views in [0, 1], sides multiples of the patch. Raises ValueError for anything else.

        `semantics=False` drops LSeg's features once used: for 64 large views they take gigabytes.
        """
        self.check(images)
        aggregated = self.aggregator(images)
        with torch.autocast(images.device.type, enabled=False):
            poses = self.camera_head(aggregated.camera.float())
        batch = images.shape[:2]
        dense = [self.decode(*chunk, semantics) for chunk in self._chunks(images, aggregated)]
        depth, raw, features, lifted = (_join(parts, batch) for parts in zip(*dense, strict=True))
        assert depth is not None
        return NetworkOutput(
            pose_encodings=poses,
            depth=depth[:, :, 0],
            depth_confidence=depth[:, :, 1],
            gaussians=None if raw is None else split(raw, self.config),
            semantics=features,
            lifted=lifted,
            tokens=aggregated.layers[-1],
        )

    def check(self, images: Float[Tensor, "batch views 3 h w"]) -> None:
        """Raises ValueError where the network cannot see these images."""
        views, (height, width), patch = images.shape[1], images.shape[-2:], self.config.encoder.patch
        if not MIN_VIEWS <= views <= MAX_VIEWS:
            raise ValueError(
                f"FF3R takes {MIN_VIEWS} to {MAX_VIEWS} views at once, not {views}: one view has no parallax, "
                f"and beyond {MAX_VIEWS} memory grows too large. Split the frames into overlapping windows."
            )
        if height % patch or width % patch or not height or not width:
            raise ValueError(f"image sides must be multiples of {patch}, not {height}×{width}; resize the images first")

    def _chunks(self, images: Tensor, aggregated: Aggregated) -> list[tuple[Tensor, list[Tensor]]]:
        """Images and kept patch tokens of `head_chunk` views at a time, whatever window they belong to."""
        flat = images.flatten(0, 1).split(self.config.head_chunk)
        layers = [x[:, :, aggregated.special :].flatten(0, 1).split(self.config.head_chunk) for x in aggregated.layers]
        return [(part, list(tokens)) for part, *tokens in zip(flat, *layers, strict=True)]

    def decode(self, images: Tensor, layers: list[Tensor], semantics: bool = True) -> tuple[Tensor | None, ...]:
        """Depth and its confidence, raw Gaussians, LSeg features, lifted features of some views."""
        patch = self.config.encoder.patch
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        with torch.autocast(images.device.type, enabled=False):
            depth = self.depth_head([x.float() for x in layers], grid, images.float())
        seen = self.lseg(self.lseg.resize(images, grid))
        kept = seen.features.float() if semantics else None
        if not self.config.decode_gaussians:
            return depth, None, kept, self._lift(seen.features)
        tokens = F.interpolate(seen.tokens, grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        fused = self.fusion(layers[-1], tokens)
        return depth, self.gaussian_head([*layers[:-1], fused], grid, images, seen.features).float(), kept, None

    def _lift(self, features: Float[Tensor, "n text h w"]) -> Float[Tensor, "n channels h w"]:
        """Coordinates of unit features in the decoder's basis, which is orthonormal in lifting mode."""
        return torch.einsum("dc,ndhw->nchw", self.feature_decoder.weight, F.normalize(features.float(), dim=1))


def _join(parts: Sequence[Tensor | None], batch: Sequence[int]) -> Tensor | None:
    """Chunks of views back into windows."""
    if parts[0] is None:
        return None
    return torch.cat([part for part in parts if part is not None]).unflatten(0, tuple(batch))
