"""Pinhole cameras for the synthetic world."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import rigid


def pinhole(height: int, width: int, field_of_view: float = 70.0) -> Float[Tensor, "3 3"]:
    """Intrinsics in pixels of a camera with square pixels and the given horizontal field of view in degrees."""
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def look_along(
    centre: Float[Tensor, "v 3"], forward: Float[Tensor, "v 3"], roll: Float[Tensor, " v"]
) -> Float[Tensor, "v 4 4"]:
    """world_from_camera of cameras that look along `forward` (never straight up or down), rolled by radians."""
    ahead = torch.nn.functional.normalize(forward, dim=-1)
    right = torch.linalg.cross(ahead, ahead.new_tensor([0.0, 0.0, 1.0]).expand_as(ahead))
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(ahead, right)
    cos, sin = roll.cos()[:, None], roll.sin()[:, None]
    axes = torch.stack([cos * right + sin * down, cos * down - sin * right, ahead], dim=-1)
    return rigid(axes, centre)
