"""Geometry-guided feature warping, equations 2 to 4: features of views that see one point should agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, grid_sample

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.core.types import Cameras


@dataclass(frozen=True)
class Correspondence:
    """Where the pixels of source views lie in target views."""

    pixels: Float[Tensor, "pairs h w 2"]
    """(u, v), centres at integer + 0.5."""
    seen: Bool[Tensor, "pairs h w"]
    """Inside the target view, in front of it and not hidden."""


def correspondences(
    depth: Float[Tensor, "views h w"],
    cameras: Cameras,
    sources: Int[Tensor, " pairs"],
    targets: Int[Tensor, " pairs"],
    tolerance: float,
) -> Correspondence:
    """Equation 2: p' ~ K_t T_t T_s⁻¹ D_s(p) K_s⁻¹ p, and the mask of equation 4.

    A pixel is seen if p' lies within the target view, in front of it, and there the target's own depth differs from
    the point's by less than `tolerance`, relative. Depth 0 is unknown and never seen.
    """
    count, height, width = len(sources), *depth.shape[1:]
    points = unproject(depth[sources], cameras.intrinsics[sources]).flatten(1, 2)
    target_from_source = cameras.camera_from_world[targets] @ invert_rigid(cameras.camera_from_world[sources])
    pixels, z = project(transform_points(target_from_source, points), cameras.intrinsics[targets])
    pixels, z = pixels.view(count, height, width, 2), z.view(count, height, width)
    there = sample(depth[targets, None], pixels, mode="nearest")[:, 0]
    size = pixels.new_tensor([width, height])
    inside = ((pixels > 0) & (pixels < size)).all(-1) & (z > 0) & (depth[sources] > 0)
    return Correspondence(pixels, inside & (there > 0) & ((there - z).abs() < tolerance * z))


def sample(
    maps: Float[Tensor, "n channels h w"], pixels: Float[Tensor, "n rows columns 2"], mode: str = "bilinear"
) -> Float[Tensor, "n channels rows columns"]:
    """Equation 3: the maps at (u, v), the border's value beyond it."""
    size = pixels.new_tensor([maps.shape[-1], maps.shape[-2]])
    grid = (pixels / size * 2 - 1).clamp(-2, 2)
    return grid_sample(maps, grid, mode=mode, padding_mode="border", align_corners=False)


def warping_loss(
    features: Float[Tensor, "views channels h w"],
    depth: Float[Tensor, "views h w"],
    cameras: Cameras,
    pairs: Int[Tensor, "pairs 2"],
    tolerance: float,
) -> Float[Tensor, ""]:
    """Equations 2 to 4: Σ M (1 − cos(F_i, F_j→i)) / Σ M over sampled pairs of views, each in both directions.

    F_j→i(p) is view j's feature map where pixel p of view i lies in it. Where M is empty the loss is 0.
    """
    both = torch.cat([pairs, pairs.flip(1)])
    sources, targets = both.unbind(1)
    found = correspondences(depth, cameras, sources, targets, tolerance)
    warped = sample(features[targets], found.pixels)
    distance = 1 - cosine_similarity(features[sources], warped, dim=1)
    return torch.where(found.seen, distance, 0.0).sum() / found.seen.sum().clamp(min=1)


def sample_pairs(views: int, count: int) -> Int[Tensor, "pairs 2"]:
    """`count` different pairs of different views at random; all where there are no more."""
    first, second = torch.triu_indices(views, views, 1)
    chosen = torch.randperm(len(first))[:count]
    return torch.stack([first[chosen], second[chosen]], dim=1)
