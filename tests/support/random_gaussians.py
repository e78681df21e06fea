"""Random Gaussians, the same at every call."""

from __future__ import annotations

import torch

from ff3r_model.core.types import Gaussians


def gaussians(count: int = 20, bands: int = 4, channels: int = 3) -> Gaussians:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Gaussians(
        normal(count, 3), normal(count, 3).exp(), torch.nn.functional.normalize(normal(count, 4), dim=1),
        normal(count, bands, 3), normal(count).sigmoid(), normal(count), normal(count, channels),
    )  # fmt: skip
