"""Rasterization by gsplat on a GPU: the same picture as rasterize_torch.py's. The one place that imports it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.gaussians.projected import ProjectedGaussians


def rasterize(seen: ProjectedGaussians) -> Float[Tensor, "height width channels"]:
    """Σ w · value per pixel.

    gsplat has no gradient by the intrinsics K, so it is given the constant K₀ = K and Gaussians moved by K₀⁻¹K, the
    identity, which has one. Raises ImportError, with the command to install it, where gsplat is missing.
    """
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise ImportError("rendering on a GPU needs gsplat: pip install 'ff3r_ros[gpu]'") from error
    fixed = seen.intrinsics.detach()
    move = torch.linalg.inv(fixed) @ seen.intrinsics
    axes = move @ seen.axes
    identity = torch.eye(4, dtype=seen.points.dtype, device=seen.points.device)
    image, _, _ = rasterization(
        means=seen.points @ move.T,
        quats=None,
        scales=None,
        covars=axes @ axes.mT,
        opacities=seen.opacities,
        colors=seen.values,
        viewmats=identity[None],
        Ks=fixed[None],
        width=seen.width,
        height=seen.height,
        near_plane=seen.near,
        eps2d=seen.low_pass,
        packed=False,
    )
    return image[0]
