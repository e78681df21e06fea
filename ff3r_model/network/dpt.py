"""Dense prediction transformer decoders: tokens of four layers → a map at the image's resolution.

Names follow the published checkpoints of VGGT and LSeg, which share this decoder's middle.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import DPTConfig

Map = Float[Tensor, "n _ _ _"]


class ResidualUnit(nn.Module):
    """Two convolutions with a skip. `relu_skip`: VGGT's skip adds relu(x), LSeg's adds x."""

    def __init__(self, channels: int, *, batch_norm: bool, relu_skip: bool) -> None:
        super().__init__()
        self.relu_skip = relu_skip
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=not batch_norm)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=not batch_norm)
        self.bn1 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.bn2 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

    def forward(self, x: Map) -> Map:
        active = x.relu()
        out = self.bn2(self.conv2(self.bn1(self.conv1(active)).relu()))
        return out + (active if self.relu_skip else x)


class Refinement(nn.Module):
    """Joins a finer map to the coarser result so far, and enlarges."""

    def __init__(self, channels: int, *, joins: bool, batch_norm: bool, relu_skip: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        self.resConfUnit1 = ResidualUnit(channels, batch_norm=batch_norm, relu_skip=relu_skip) if joins else None
        self.resConfUnit2 = ResidualUnit(channels, batch_norm=batch_norm, relu_skip=relu_skip)

    def forward(self, x: Map, finer: Map | None, size: tuple[int, int]) -> Map:
        if self.resConfUnit1 is not None:
            x = x + self.resConfUnit1(finer)
        x = F.interpolate(self.resConfUnit2(x), size, mode="bilinear", align_corners=True)
        return self.out_conv(x)


class Pyramid(nn.Module):
    """Four maps, fine to coarse → one at twice the finest's resolution.

    Published names put a decoder's last layers in here too; whoever owns the decoder sets and calls them.
    """

    output_conv1: nn.Conv2d
    output_conv2: nn.Sequential
    head1: nn.Conv2d

    def __init__(self, channels: Sequence[int], features: int, *, batch_norm: bool = False, relu_skip: bool) -> None:
        super().__init__()
        for level, count in enumerate(channels, start=1):
            setattr(self, f"layer{level}_rn", nn.Conv2d(count, features, 3, padding=1, bias=False))
            refinement = Refinement(features, joins=level < 4, batch_norm=batch_norm, relu_skip=relu_skip)
            setattr(self, f"refinenet{level}", refinement)

    def narrowed(self, maps: Sequence[Map]) -> list[Map]:
        """The maps, all brought to one width."""
        return [getattr(self, f"layer{level}_rn")(x) for level, x in enumerate(maps, start=1)]

    def forward(self, maps: Sequence[Map]) -> Map:
        refinements = [getattr(self, f"refinenet{level}") for level in range(1, 5)]
        return join(refinements, self.narrowed(maps))


def join(refinements: Sequence[nn.Module], maps: Sequence[Map]) -> Map:
    """Four maps of one width, fine to coarse → one at twice the finest's resolution."""
    one, two, three, four = maps
    # From the coarsest on, join the next finer map and enlarge to the one after it.
    x = refinements[3](four, None, _size(three))
    x = refinements[2](x, three, _size(two))
    x = refinements[1](x, two, _size(one))
    height, width = _size(one)
    return refinements[0](x, one, (2 * height, 2 * width))


def resize_layers(channels: Sequence[int]) -> list[nn.Module]:
    """What brings four maps on the patch grid to 4, 2, 1 and 1/2 times its resolution."""
    return [
        nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
        nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
        nn.Identity(),
        nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
    ]


class AppearanceSkip(nn.Module):
    """RGB → features at full resolution: detail that patches have lost. The paper names it, not its layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n channels h w"]:
        return self.conv2(F.gelu(self.conv1(2 * images - 1)))


class DPTDecoder(nn.Module):
    """VGGT's DPT, and Depth Anything 3's: one norm, positions added twice, convolutions at full resolution last."""

    def __init__(self, config: DPTConfig, width: int, out: int) -> None:
        super().__init__()
        half, full = config.hidden
        self.norm = nn.LayerNorm(width)
        self.projects = nn.ModuleList(nn.Conv2d(width, count, 1) for count in config.channels)
        self.resize_layers = nn.ModuleList(resize_layers(config.channels))
        self.scratch = Pyramid(config.channels, config.features, relu_skip=config.relu_skip)
        self.scratch.output_conv1 = nn.Conv2d(config.features, half, 3, padding=1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(half, full, 3, padding=1), nn.ReLU(), nn.Conv2d(full, out, 1)
        )

    def maps(self, layers: Sequence[Tensor], grid: tuple[int, int], aspect: float) -> list[Map]:
        """The four layers' patch tokens as maps of growing stride."""
        result = []
        for tokens, project, resize in zip(layers, self.projects, self.resize_layers, strict=True):
            patches = self.norm(tokens).transpose(1, 2).unflatten(2, grid)
            result.append(resize(add_positions(project(patches), aspect)))
        return result

    def forward(
        self,
        layers: Sequence[Float[Tensor, "n patches width"]],
        grid: tuple[int, int],
        size: tuple[int, int],
        skip: Float[Tensor, "n hidden h w"] | None = None,
    ) -> Float[Tensor, "n out h w"]:
        """`skip` joins at full resolution, where two convolutions follow."""
        aspect = size[1] / size[0]
        # Join the four layers' maps, coarse to fine, up to twice the finest's resolution.
        x = self.scratch.output_conv1(self.scratch(self.maps(layers, grid, aspect)))
        # Enlarge to the image's resolution, and add the detail that patches have lost.
        x = add_positions(F.interpolate(x, size, mode="bilinear", align_corners=True), aspect)
        return self.scratch.output_conv2(x if skip is None else x.add_(skip))  # in place: maps are large here


class DepthHead(DPTDecoder):
    """Depth along z and its confidence."""

    def __init__(self, config: DPTConfig, width: int, appearance: bool) -> None:
        super().__init__(config, width, out=2)
        self.appearance = AppearanceSkip(config.hidden[0]) if appearance else None

    def forward(  # type: ignore[override]
        self, layers: Sequence[Float[Tensor, "n patches width"]], grid: tuple[int, int], images: Tensor
    ) -> Float[Tensor, "n 2 h w"]:
        """Depth (> 0, window units) and confidence (> 1)."""
        skip = None if self.appearance is None else self.appearance(images)
        depth, confidence = super().forward(layers, grid, _size(images), skip).unbind(1)
        return torch.stack([depth.exp(), 1 + confidence.exp()], dim=1)


POSITION_STRENGTH = 0.1
POSITION_BASE = 100.0


def add_positions(x: Map, aspect: float) -> Map:
    """Adds sines and cosines of each cell's place, by the image's aspect ratio (width / height)."""
    channels, height, width = x.shape[1:]
    diagonal = (1 + aspect**2) ** 0.5
    u = _waves(channels // 2, width, aspect / diagonal, x)[:, None, :].expand(-1, height, -1)
    v = _waves(channels // 2, height, 1 / diagonal, x)[:, :, None].expand(-1, -1, width)
    return x + POSITION_STRENGTH * torch.cat([u, v])


def _waves(channels: int, count: int, span: float, like: Tensor) -> Float[Tensor, "channels count"]:
    """Sines, then cosines, of `count` cell centres spread over [-span, span]."""
    edge = span * (count - 1) / count
    places = torch.linspace(-edge, edge, count, device=like.device)
    exponent = torch.arange(channels // 2, device=like.device) / (channels / 2)
    angles = POSITION_BASE ** -exponent[:, None] * places
    return torch.cat([angles.sin(), angles.cos()]).to(like.dtype)


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
