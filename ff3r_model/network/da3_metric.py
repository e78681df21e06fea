"""Metric depth from one image (DA3Metric-Large): a DINOv2 and a plain DPT, for scale where nothing measures it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.aggregator import Normalisation
from ff3r_model.network.config import DPTConfig, Layers, ViTConfig
from ff3r_model.network.dpt import Pyramid, resize_layers
from ff3r_model.network.encoder import VisionTransformer

CANONICAL_FOCAL = 300.0
"""Pixels: the focal length at which the network's depth is in metres."""
SKY = 0.3
"""From this output on a pixel shows sky."""


@dataclass(frozen=True)
class MetricConfig:
    """Sizes of a metric network; the defaults are DA3Metric-Large's."""

    vit: ViTConfig = field(default_factory=lambda: ViTConfig(registers=0, interpolation="bicubic_scaled"))
    layers: Layers = (4, 11, 17, 23)
    """Blocks that the decoder reads."""
    decoder: DPTConfig = field(default_factory=lambda: DPTConfig(hidden=(128, 32), relu_skip=False))


class MetricHead(nn.Module):
    """DPT without norm and positions: depth and sky of one pass. Names follow the published checkpoint."""

    def __init__(self, config: DPTConfig, width: int) -> None:
        super().__init__()
        half, full = config.hidden
        self.projects = nn.ModuleList(nn.Conv2d(width, count, 1) for count in config.channels)
        self.resize_layers = nn.ModuleList(resize_layers(config.channels))
        self.scratch = Pyramid(config.channels, config.features, relu_skip=config.relu_skip)
        self.scratch.output_conv1 = nn.Conv2d(config.features, half, 3, padding=1)
        for name in ("output_conv2", "sky_output_conv2"):
            last = nn.Sequential(nn.Conv2d(half, full, 3, padding=1), nn.ReLU(), nn.Conv2d(full, 1, 1))
            setattr(self.scratch, name, last)

    def forward(
        self, layers: list[Float[Tensor, "n patches width"]], grid: tuple[int, int], size: tuple[int, int]
    ) -> Float[Tensor, "n 2 h w"]:
        maps = [
            resize(project(tokens.transpose(1, 2).unflatten(2, grid)))
            for tokens, project, resize in zip(layers, self.projects, self.resize_layers, strict=True)
        ]
        x = self.scratch.output_conv1(self.scratch(maps))
        x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        sky = self.scratch.get_submodule("sky_output_conv2")(x)
        return torch.cat([self.scratch.output_conv2(x).exp(), sky.relu()], dim=1)


class DA3Metric(nn.Module):
    """Images → depth at the canonical focal length, and sky. Names follow the published checkpoint."""

    def __init__(self, config: MetricConfig | None = None) -> None:
        super().__init__()
        self.config = config or MetricConfig()
        vit = VisionTransformer(self.config.vit)
        vit.norm = nn.LayerNorm(self.config.vit.width)
        self.backbone = nn.ModuleDict({"pretrained": vit})
        self.head = MetricHead(self.config.decoder, self.config.vit.width)
        self.normalise = Normalisation()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2 h w"]:
        """Depth as at a focal length of 300 pixels, and sky (≥ 0.3), of images in [0, 1], sides multiples of 14."""
        vit, patch = self.backbone["pretrained"], self.config.vit.patch
        assert isinstance(vit, VisionTransformer)
        size = (images.shape[-2], images.shape[-1])
        layers = [vit.norm(tokens)[:, 1:] for tokens in vit.tap(self.normalise(images), self.config.layers)]
        with torch.autocast(images.device.type, enabled=False):
            return self.head([x.float() for x in layers], (size[0] // patch, size[1] // patch), size)


def metres(output: Float[Tensor, "n 2 h w"], intrinsics: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n h w"]:
    """Depth in metres, 0 where there is sky: output · (fx + fy) / 2 / 300, focal lengths in the image's pixels."""
    focal = (intrinsics[:, 0, 0] + intrinsics[:, 1, 1]) / 2
    depth, sky = output.unbind(1)
    return (depth * (focal / CANONICAL_FOCAL)[:, None, None]).masked_fill(sky >= SKY, 0)
