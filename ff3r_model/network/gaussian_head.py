"""The Feature-Gaussian decoder: fused tokens, appearance and semantics → one Gaussian per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import FF3RConfig
from ff3r_model.network.dpt import AppearanceSkip, DPTDecoder


@dataclass(frozen=True)
class RawGaussians:
    """The decoder's output per pixel, before activation; `network.decode` activates it."""

    log_scale: Float[Tensor, "batch views 3 h w"]
    quaternion: Float[Tensor, "batch views 4 h w"]
    """wxyz, not normalised."""
    harmonics: Float[Tensor, "batch views bands_times_3 h w"]
    """Band by band, RGB within each."""
    opacity_logit: Float[Tensor, "batch views 1 h w"]
    confidence_logit: Float[Tensor, "batch views 1 h w"]
    feature: Float[Tensor, "batch views channels h w"]
    """Compact; `feature_decoder` takes it to the text's space."""


def channel_counts(config: FF3RConfig) -> tuple[int, ...]:
    """Channels of each part of `RawGaussians`, in its order."""
    return (3, 4, 3 * config.bands, 1, 1, config.feature_channels)


def split(raw: Float[Tensor, "batch views all h w"], config: FF3RConfig) -> RawGaussians:
    """The decoder's channels by name (views of `raw`, no copies)."""
    return RawGaussians(*raw.split(channel_counts(config), dim=2))


class GaussianHead(nn.Module):
    """DPT over the kept layers, the last one fused, with skips from the image and from LSeg at full resolution."""

    def __init__(self, config: FF3RConfig) -> None:
        super().__init__()
        hidden = config.gaussian.hidden[0]
        self.decoder = DPTDecoder(config.gaussian, 2 * config.width, sum(channel_counts(config)))
        self.appearance = AppearanceSkip(hidden)
        self.semantic = nn.Conv2d(config.text_width, hidden, 1)

    def forward(
        self,
        layers: Sequence[Float[Tensor, "n patches width"]],
        grid: tuple[int, int],
        images: Float[Tensor, "n 3 h w"],
        semantic: Float[Tensor, "n hidden hs ws"],
    ) -> Float[Tensor, "n all h w"]:
        """`semantic`: LSeg's features as the layer of this name projects them."""
        size = (images.shape[-2], images.shape[-1])
        semantic = F.interpolate(semantic, size, mode="bilinear", align_corners=False)
        return self.decoder(layers, grid, size, self.appearance(images).add_(semantic))

    def start_plain(self) -> None:
        """Initial weights: every Gaussian nearly the same, unrotated."""
        last = self.decoder.scratch.output_conv2[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.trunc_normal_(last.weight, std=0.02)
        nn.init.zeros_(last.bias)
        with torch.no_grad():
            last.bias[3] = 1.0
