"""Covariance of the cameras' poses in the map, from what a window's tracks say of its cameras."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.types import Similarity, WindowQuality
from ff3r_model.slam.refinement.window_quality import ERROR_FACTOR, ERROR_FLOOR, LEAST_NOISE


def covariance_in_map(
    quality: WindowQuality, map_from_window: Similarity, map_from_camera: Float[Tensor, "views 4 4"]
) -> Float[Tensor, "views 6 6"]:
    """Covariance of each camera's position (map units) and rotation (radians), both about the map's axes.

    The rotation's error is a small turn on the left of map_from_camera, as ROS's fixed axes x, y, z have it. Relative
    to the window's first registered camera: how far that one is off in the map is not in it. NaN where a view is not
    registered.
    """
    axes = map_from_camera[:, :3, :3].double().cpu()
    # camera_from_window moves by exp(ξ) on its left, ξ = (ρ, φ) in the camera's axes. So, to first order, the centre
    # moves by −scale · R ρ and the pose turns by −R φ on its left, R = map_from_camera.
    turn = torch.zeros(len(axes), 6, 6, dtype=torch.float64)
    turn[:, :3, :3] = map_from_window.scale * axes
    turn[:, 3:, 3:] = axes
    spread = turn @ (quality.pose_covariance.double() * _factor(quality) ** 2) @ turn.transpose(1, 2)
    return spread + _floor(quality, map_from_camera[:, :3, 3].double().cpu())


def _factor(quality: WindowQuality) -> float:
    """How many pixels the noise is taken for, so that one standard deviation is the pose error that a window claims.

    That is a mean over pairs, which 95 of 100 windows keep to; single cameras are often off by more than the mean.
    """
    noise = quality.reprojection if math.isfinite(quality.reprojection) else LEAST_NOISE
    return ERROR_FACTOR * max(noise, LEAST_NOISE)


def _floor(quality: WindowQuality, centres: Float[Tensor, "views 3"]) -> Float[Tensor, "views 6 6"]:
    """What a pose is at least taken to be off by: an angle of rotation, and of the way from the first camera."""
    angle = math.radians(ERROR_FLOOR)
    first = quality.registered.index(True) if True in quality.registered else 0
    way = (centres - centres[first]).norm(dim=1, keepdim=True).expand(-1, 3)
    return torch.diag_embed(torch.cat([angle * way, torch.full_like(way, angle)], dim=1) ** 2)
