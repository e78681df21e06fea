"""What both rasterizers take: Gaussians in one camera's frame, and the image that they are projected to."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ProjectedGaussians:
    """Gaussians as one camera sees them, in any order, with values to blend."""

    points: Float[Tensor, "n 3"]
    """Centres in the camera's frame."""
    axes: Float[Tensor, "n 3 3"]
    """Columns: each Gaussian's axes in the camera's frame, as long as the standard deviation along each."""
    opacities: Float[Tensor, " n"]
    values: Float[Tensor, "n channels"]
    intrinsics: Float[Tensor, "3 3"]
    height: int
    """Pixels."""
    width: int
    near: float
    """Gaussians whose z is not above this are not seen."""
    low_pass: float
    """Square pixels added to every projected variance."""
