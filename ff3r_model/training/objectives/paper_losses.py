"""The paper's losses, equations 2 to 4 and 9 to 13: how FF3R learns from images and teachers, without annotations.

Pure functions of tensors. What the paper leaves open is a parameter; `PaperWeights` and `PaperConfig` hold the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, grid_sample, huber_loss, l1_loss

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.core.types import Cameras


@dataclass(frozen=True)
class PaperWeights:
    """λ of equations 9 and 13."""

    rgb: float = 1.0
    perceptual: float = 0.05
    """Of LPIPS within the RGB loss."""
    feature: float = 0.1
    warp: float = 0.1
    depth: float = 1.0
    camera: float = 10.0


def rgb_loss(
    rendered: Float[Tensor, "views 3 h w"], images: Float[Tensor, "views 3 h w"], perceptual: nn.Module, weight: float
) -> Float[Tensor, ""]:
    """Equation 9: mean |Î − I| + 0.05 · LPIPS(Î, I), RGB in [0, 1]."""
    return l1_loss(rendered, images) + weight * perceptual(rendered, images)


def feature_loss(
    rendered: Float[Tensor, "views channels h w"], teacher: Float[Tensor, "views channels h w"]
) -> Float[Tensor, ""]:
    """Equation 10: mean over pixels of 1 − cos(F̂, F), in the text's space.

    Pixels of which the teacher says nothing, F = 0, do not count.
    """
    known = (teacher != 0).any(dim=1)
    return torch.where(known, 1 - cosine_similarity(rendered, teacher, dim=1), 0.0).sum() / known.sum().clamp(min=1)


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


def camera_loss(
    encodings: Float[Tensor, "iterations batch views 9"],
    teacher: Float[Tensor, "batch views 9"],
    gamma: float,
    delta: float,
) -> Float[Tensor, ""]:
    """Equation 11: Huber(p̂ − p) of pose encodings, averaged over the camera head's iterations k with weights γ^(K−k).

    The teacher's quaternion takes the sign that is nearer, for both mean one rotation.
    """
    iterations = len(encodings)
    weights = gamma ** torch.arange(iterations - 1, -1, -1, dtype=encodings.dtype, device=encodings.device)
    dots = (encodings[..., 3:7] * teacher[..., 3:7]).sum(-1, keepdim=True)
    sign = torch.ones_like(encodings)
    sign[..., 3:7] = torch.where(dots < 0, -1.0, 1.0)
    wanted = sign * teacher
    errors = huber_loss(encodings, wanted, delta=delta, reduction="none").mean((1, 2, 3))
    return (weights * errors).sum() / weights.sum()


def confident(
    confidence: Float[Tensor, "views h w"], depth: Float[Tensor, "views h w"], share: float
) -> Bool[Tensor, "views h w"]:
    """The `share` of a window's pixels of known depth that are most confident; ties are kept."""
    known = depth > 0
    values = confidence[known]
    if not len(values):
        return known
    kept = max(1, round(share * len(values)))
    floor = values.kthvalue(len(values) - kept + 1).values
    return known & (confidence >= floor)


def depth_loss(
    rendered: Float[Tensor, "views h w"], teacher: Float[Tensor, "views h w"], mask: Bool[Tensor, "views h w"]
) -> Float[Tensor, ""]:
    """Equation 12: Σ M (D̂ − D)² / Σ M, M the most confident pixels; 0 where M is empty."""
    return torch.where(mask, rendered - teacher, 0.0).square().sum() / mask.sum().clamp(min=1)


def total_loss(terms: Mapping[str, Tensor], weights: PaperWeights) -> Float[Tensor, ""]:
    """Equation 13: L_rgb + λ₁ L_feature + λ₂ L_warp + λ₃ L_depth + λ₄ L_camera, of the terms that there are."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
