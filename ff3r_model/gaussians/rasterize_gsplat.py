"""The same picture as `splat`, painted by gsplat on a GPU. The one place that imports it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rasterize(
    points: Float[Tensor, "n 3"],
    axes: Float[Tensor, "n 3 3"],
    opacities: Float[Tensor, " n"],
    values: Float[Tensor, "n channels"],
    intrinsics: Float[Tensor, "3 3"],
    height: int,
    width: int,
    *,
    near: float,
    low_pass: float,
) -> Float[Tensor, "height width channels"]:
    """Σ w · value per pixel, of Gaussians in the camera's frame.

    gsplat has no gradient by the intrinsics K, so it is given the constant K₀ = K and Gaussians moved by K₀⁻¹K, the
    identity, which has one. Raises ImportError, with the command to install it, where gsplat is missing.
    """
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise ImportError("rendering on a GPU needs gsplat: pip install 'ff3r_ros[gpu]'") from error
    fixed = intrinsics.detach()
    move = torch.linalg.inv(fixed) @ intrinsics
    axes = move @ axes
    identity = torch.eye(4, dtype=points.dtype, device=points.device)
    image, _, _ = rasterization(
        means=points @ move.T,
        quats=None,
        scales=None,
        covars=axes @ axes.mT,
        opacities=opacities,
        colors=values,
        viewmats=identity[None],
        Ks=fixed[None],
        width=width,
        height=height,
        near_plane=near,
        eps2d=low_pass,
        packed=False,
    )
    return image[0]
