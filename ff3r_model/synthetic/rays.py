"""Rays through the pixel centres of pinhole cameras."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Rays:
    """Rays of several views: direction = matrix @ (u, v, 1), with z = 1 in the camera's frame."""

    origin: Float[Tensor, "v 3"]
    matrix: Float[Tensor, "v 3 3"]
    directions: Float[Tensor, "3 pixels"]
    """View-major, in the world."""
    height: int
    width: int


def make_rays(poses: Float[Tensor, "v 4 4"], intrinsics: Float[Tensor, "v 3 3"], height: int, width: int) -> Rays:
    """The rays through all pixel centres."""
    matrix = poses[:, :3, :3] @ torch.linalg.inv(intrinsics)
    u = torch.arange(width, device=poses.device, dtype=poses.dtype) + 0.5
    v = torch.arange(height, device=poses.device, dtype=poses.dtype) + 0.5
    columns = matrix.permute(1, 0, 2)[..., None, None, :]
    directions = columns[..., 0] * u + (columns[..., 1] * v[:, None] + columns[..., 2])
    return Rays(poses[:, :3, 3].contiguous(), matrix, directions.reshape(3, -1), height, width)
