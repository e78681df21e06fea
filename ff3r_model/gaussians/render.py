"""Rendering of Gaussians as images, depth and features: by gsplat on a GPU, by an exact compositor elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ff3r_model.core.geometry import invert_rigid, quaternion_to_matrix, transform_points
from ff3r_model.core.types import Cameras, Gaussians, rgb_from_harmonics
from ff3r_model.gaussians import rasterize_gsplat, rasterize_torch
from ff3r_model.gaussians.projected import ProjectedGaussians
from ff3r_model.gaussians.spherical_harmonics import basis


@dataclass(frozen=True)
class RenderConfig:
    """What the paper leaves open about rendering; the defaults are gsplat's."""

    near: float = 0.01
    """Gaussians whose centre is nearer are not seen, in the unit of the means."""
    low_pass: float = 0.3
    """Square pixels added to every projected variance, so that none falls between the pixels."""


@dataclass(frozen=True)
class Rendering:
    """What each camera sees."""

    colors: Float[Tensor, "views height width 3"]
    """RGB on black; at least 0, and above 1 only where the harmonics are."""
    depth: Float[Tensor, "views height width"]
    """Expected z, Σ w z / Σ w; 0 where nothing is seen."""
    alpha: Float[Tensor, "views height width"]
    """Σ w: how much of a pixel the Gaussians cover."""
    features: Float[Tensor, "views height width channels"]
    """Σ w · feature, compact."""


def render(
    gaussians: Gaussians, cameras: Cameras, height: int, width: int, *, config: RenderConfig | None = None
) -> Rendering:
    """Render all cameras; the weights are w_i = α_i Π_{j<i} (1 − α_j), nearest first.

    Differentiable in every attribute of the Gaussians and in poses and intrinsics, on a GPU as elsewhere.
    """
    config = config or RenderConfig()
    pairs = zip(cameras.camera_from_world, cameras.intrinsics, strict=True)
    views = [_render_view(gaussians, pose, intrinsics, height, width, config) for pose, intrinsics in pairs]
    image = torch.stack(views)
    colors, features, depth, alpha = image.split((3, image.shape[-1] - 5, 1, 1), dim=-1)
    expected = depth / alpha.clamp(min=1e-10)
    return Rendering(colors, expected[..., 0], alpha[..., 0], features)


def _render_view(
    gaussians: Gaussians,
    camera_from_world: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    height: int,
    width: int,
    config: RenderConfig,
) -> Float[Tensor, "height width channels"]:
    """RGB, features, Σ w z and Σ w of one camera."""
    # Turn centres and axes into the camera's frame.
    points = transform_points(camera_from_world, gaussians.means)
    rotations = camera_from_world[:3, :3] @ quaternion_to_matrix(gaussians.quaternions)
    axes = rotations * gaussians.scales[:, None, :]
    # What is blended: colours as seen from the camera's centre, features, z, and coverage.
    centre = invert_rigid(camera_from_world)[:3, 3]
    values = [_colors(gaussians, centre), gaussians.features, points[:, 2:], torch.ones_like(points[:, :1])]
    seen = ProjectedGaussians(
        points=points,
        axes=axes,
        opacities=gaussians.opacities,
        values=torch.cat(values, dim=1),
        intrinsics=intrinsics,
        height=height,
        width=width,
        near=config.near,
        low_pass=config.low_pass,
    )
    return rasterize_gsplat.rasterize(seen) if points.is_cuda else rasterize_torch.rasterize(seen)


def _colors(gaussians: Gaussians, centre: Float[Tensor, " 3"]) -> Float[Tensor, "n 3"]:
    """RGB of each Gaussian seen from `centre`, at least 0."""
    bands = gaussians.harmonics.shape[1]
    if bands == 1:
        return rgb_from_harmonics(gaussians.harmonics[:, 0]).clamp(min=0)
    weights = basis(normalize(gaussians.means - centre, dim=1), bands)
    return (torch.einsum("nb,nbc->nc", weights, gaussians.harmonics) + 0.5).clamp(min=0)
