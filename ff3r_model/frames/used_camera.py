"""Intrinsics that a run works with, in pixels of the images as they come: given by somebody, or estimated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.frames.prepare import Crop


@dataclass(frozen=True)
class UsedCamera:
    """What a run takes its camera for."""

    width: int
    """Of the images as they come, pixels, like `height`."""
    height: int
    crop: Crop
    """What the network sees of them."""
    intrinsics: Float[Tensor, "3 3"] | None
    """In pixels of the images; None where nobody knows them."""
    focal_sigma: float = 0.0
    """Standard deviation of the focal length's logarithm; 0 where it was given."""

    @property
    def estimated(self) -> bool:
        """Whether the run found the focal length itself."""
        return self.focal_sigma > 0

    def with_estimate(self, focal: float, sigma: float) -> UsedCamera:
        """The camera with a focal length, of the long side of what the network sees, and its logarithm's deviation.

        Pixels are taken for squares and the principal point for the middle.
        """
        crop = self.crop
        pixels = focal * max(crop.crop_width, crop.crop_height)
        middle = crop.left + crop.crop_width / 2, crop.top + crop.crop_height / 2
        matrix = torch.tensor([[pixels, 0, middle[0]], [0, pixels, middle[1]], [0, 0, 1]], dtype=torch.float64)
        return replace(self, intrinsics=matrix, focal_sigma=sigma)

    def described(self, given: str) -> str:
        """In words; `given` says who gave what was not estimated."""
        if self.intrinsics is None:
            return "not known, and nothing could be estimated: each window has a guess of its own"
        share = 100 * math.expm1(self.focal_sigma)
        source = f"estimated within {share:.0f} %" if self.estimated else given
        return f"{float(self.intrinsics[0, 0]):.0f} of {self.width}x{self.height} pixels, {source}"
