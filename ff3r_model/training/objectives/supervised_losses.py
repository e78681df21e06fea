"""Losses against known geometry and classes: how `nano` is taught by the synthetic world.

The paper trains from images alone; these supervised terms are ours, for rooms whose truth is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ff3r_model.core.geometry import (
    field_of_view,
    invert_rigid,
    project,
    quaternion_to_matrix,
    transform_points,
    unproject,
)
from ff3r_model.training.datasets.room_views import RoomWindow


@dataclass(frozen=True)
class LossWeights:
    """How the terms add up. All ours."""

    rotation: float = 1.0
    translation: float = 3.0
    pair: float = 1.0
    """Of `pair_loss`."""
    field_of_view: float = 1.0
    depth: float = 1.0
    depth_gradient: float = 0.5
    confidence: float = 0.1
    """α of VGGT's confidence-weighted depth: c·|error| − α·log c."""
    contrast: float = 0.3
    matching: float = 0.5
    flow: float = 0.3
    pose_probe: float = 0.2
    point_probe: float = 0.3
    semantics: float = 0.5
    feature: float = 0.5
    color: float = 0.5
    gaussian: float = 0.1
    gamma: float = 0.6
    """Discount of the camera head's earlier iterations."""
    temperature: float = 0.07
    """Of the cosine classification over phrases."""


def camera_losses(
    encodings: Float[Tensor, "iterations batch views 9"], truth: RoomWindow, gamma: float
) -> dict[str, Tensor]:
    """Chordal rotation error, Huber on translation, L1 on the field of view, over all iterations of the camera head.

    Rotations are compared as matrices: quaternions jump in sign and a Huber on them teaches small networks nothing.
    Their norm is held near 1, where turning them takes the least change.
    """
    iterations = encodings.shape[0]
    weights = gamma ** torch.arange(iterations - 1, -1, -1, dtype=torch.float32, device=encodings.device)
    weights = (weights / weights.sum())[:, None, None]
    encodings = encodings.float()
    rotation = quaternion_to_matrix(encodings[..., [6, 3, 4, 5]])
    target = truth.camera_from_world
    norm = (encodings[..., 3:7].norm(dim=-1) - 1).square()
    chordal = (rotation - target[..., :3, :3]).square().sum((-1, -2)).add(1e-8).sqrt()
    translation = F.smooth_l1_loss(
        encodings[..., :3], target[..., :3, 3].expand_as(encodings[..., :3]), beta=0.05, reduction="none"
    ).sum(-1)
    fov = field_of_view(truth.intrinsics, truth.depth.shape[-2], truth.depth.shape[-1])
    fov_error = (encodings[..., 7:] - fov).abs().sum(-1)
    return {
        "pair": (weights[..., 0] * pair_loss(rotation, encodings[..., :3], target)).sum(0).mean(),
        "rotation": (weights * (chordal + 0.1 * norm)).sum(0).mean(),
        "translation": (weights * translation).sum(0).mean(),
        "field_of_view": (weights * fov_error).sum(0).mean(),
    }


MIN_BASELINE = 0.05
"""Window units: views nearer to each other than this count as if they were so far apart."""


def pair_loss(
    rotation: Float[Tensor, "iterations batch views 3 3"],
    translation: Float[Tensor, "iterations batch views 3"],
    target: Float[Tensor, "batch views 4 4"],
) -> Float[Tensor, "iterations batch"]:
    """Error of the relative translation of every pair of views, as a share of the distance between them.

    What the first camera's frame hides: two views far from it may agree with it and not with each other.
    """
    predicted = _relative_translation(rotation, translation)
    truth = _relative_translation(target[..., :3, :3], target[..., :3, 3])
    baseline = truth.norm(dim=-1)
    error = (predicted - truth).add(1e-6).norm(dim=-1) / (baseline + MIN_BASELINE)
    views = target.shape[-3]
    return error.sum((-1, -2)) / (views * (views - 1))


def _relative_translation(
    rotation: Float[Tensor, "*batch views 3 3"], translation: Float[Tensor, "*batch views 3"]
) -> Float[Tensor, "*batch views views 3"]:
    """Where camera i's centre lies in camera j's frame: t_j − R_j R_iᵀ t_i."""
    centres = -(rotation.transpose(-1, -2) @ translation[..., None]).squeeze(-1)
    moved = torch.einsum("...jab,...ib->...ija", rotation, centres)
    return moved + translation[..., None, :, :]


def depth_losses(depth: Tensor, confidence: Tensor, truth: Tensor, alpha: float) -> dict[str, Tensor]:
    """L1 of log depth weighted by the predicted confidence, and of its gradients (all [batch views h w])."""
    valid = truth > 0
    error = depth.clamp(min=1e-4).log() - truth.clamp(min=1e-4).log()
    error = torch.where(valid, error, torch.zeros_like(error))
    weighted = confidence * error.abs() - alpha * confidence.log()
    across = (error[..., 1:] - error[..., :-1]).abs() * (valid[..., 1:] & valid[..., :-1])
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * (valid[..., 1:, :] & valid[..., :-1, :])
    return {"depth": (weighted * valid).mean(), "depth_gradient": across.mean() + down.mean()}


def phrase_loss(
    features: Float[Tensor, "n channels"],
    labels: Int[Tensor, " n"],
    targets: Float[Tensor, "phrases channels"],
    temperature: float,
) -> Tensor:
    """Classification over phrases by cosine; labels below 0 are ignored."""
    logits = F.normalize(features.float(), dim=-1) @ targets.T / temperature
    return F.cross_entropy(logits, labels, ignore_index=-1)


def patch_matches(
    truth: RoomWindow, patch: int
) -> tuple[Float[Tensor, "batch views target n 2"], Bool[Tensor, "batch views target n"]]:
    """Where the centre of each patch of each view lies in every view, in patch units, and whether it is seen there."""
    depth = truth.depth
    batch, views, height, width = depth.shape
    world_from_camera = invert_rigid(truth.camera_from_world)
    points = unproject(depth, truth.intrinsics)[:, :, patch // 2 :: patch, patch // 2 :: patch]
    centre_depth = depth[:, :, patch // 2 :: patch, patch // 2 :: patch].flatten(2)
    world = transform_points(world_from_camera, points.flatten(2, 3))
    n = world.shape[2]
    expanded = world[:, :, None].expand(batch, views, views, n, 3)
    target_from_world = truth.camera_from_world[:, None].expand(batch, views, views, 4, 4)
    intrinsics = truth.intrinsics[:, None].expand(-1, views, -1, 3, 3)
    pixels, z = project(transform_points(target_from_world, expanded), intrinsics)
    grid = pixels / pixels.new_tensor([width, height]) * 2 - 1
    seen = torch.nn.functional.grid_sample(
        depth[:, None].expand(-1, views, -1, -1, -1).reshape(-1, 1, height, width),
        grid.reshape(-1, n, 1, 2),
        mode="nearest",
        align_corners=False,
    ).view(batch, views, views, n)
    inside = (grid.abs() < 1).all(-1) & (z > 0.02) & (centre_depth > 0)[:, :, None]
    return pixels / patch, inside & ((seen - z).abs() < 0.05 * z)


def patch_points(truth: RoomWindow, patch: int) -> Float[Tensor, "batch views n 3"]:
    """The point that the centre of each patch shows, in the first camera's frame."""
    points = unproject(truth.depth, truth.intrinsics)[:, :, patch // 2 :: patch, patch // 2 :: patch]
    return transform_points(invert_rigid(truth.camera_from_world), points.flatten(2, 3))


def balanced_pixels(classes: Int[Tensor, "views pixels"], count: int, total: int) -> Int[Tensor, "views count"]:
    """Pixels drawn so that a class that fills a view counts little more than a small thing: ∝ 1 / √(its pixels)."""
    known = classes.clamp(min=0)
    frequency = torch.zeros(len(known), total, device=known.device)
    frequency.scatter_add_(1, known, torch.ones_like(known, dtype=frequency.dtype))
    weights = frequency.clamp(min=1).rsqrt().gather(1, known)
    return torch.multinomial(weights, count, replacement=True)


def at_pixels(
    features: Float[Tensor, "views channels rows columns"], picks: Int[Tensor, "views count"], size: Sequence[int]
) -> Float[Tensor, "views count channels"]:
    """Features at pixels of an image of `size` (height, width), bilinearly where the map is coarser."""
    height, width = size
    places = torch.stack([(picks % width + 0.5) / width, (picks // width + 0.5) / height], dim=-1) * 2 - 1
    sampled = F.grid_sample(features.float(), places[:, None], padding_mode="border", align_corners=False)
    return sampled[:, :, 0].transpose(1, 2)


def matching_loss(
    log_attention: Float[Tensor, "batch views n target m"],
    matches: Float[Tensor, "batch views target n 2"],
    visible: Bool[Tensor, "batch views target n"],
    grid: tuple[int, int],
) -> Tensor:
    """Cross-entropy of attention over other views' patches against the known match, shared by its four neighbours.

    Patches that no other view sees, and each view's matches with itself, do not count.
    """
    likelihood = _bilinear_log_likelihood(log_attention.permute(0, 1, 3, 2, 4), matches, grid)
    _, views, targets, _ = visible.shape
    others = torch.arange(views)[:, None] != torch.arange(targets)
    mask = visible & others.to(visible.device)[None, :, :, None]
    return -(likelihood * mask).sum() / mask.sum().clamp(min=1)


def flow_loss(
    predicted: Float[Tensor, "batch views n 2"],
    matches: Float[Tensor, "batch views target n 2"],
    visible: Bool[Tensor, "batch views target n"],
) -> Tensor:
    """L1 of each patch's predicted position in the first view, in patches, where the first view sees it."""
    mask = visible[:, 1:, 0]
    error = (predicted[:, 1:].float() - matches[:, 1:, 0]).abs().sum(-1)
    return (torch.where(mask, error, torch.zeros_like(error))).sum() / mask.sum().clamp(min=1)


def _bilinear_log_likelihood(log_attention: Tensor, matches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Σ over the four neighbouring patches of weight · log attention."""
    rows, columns = grid
    corner = (matches - 0.5).floor()
    fraction = matches - 0.5 - corner
    total = torch.zeros_like(matches[..., 0])
    for dx in (0, 1):
        for dy in (0, 1):
            column = (corner[..., 0] + dx).clamp(0, columns - 1)
            row = (corner[..., 1] + dy).clamp(0, rows - 1)
            shares = (fraction - 1 + fraction.new_tensor([dx, dy])).abs()
            weight = shares[..., 0] * shares[..., 1]
            index = (row * columns + column).long()
            total = total + weight * log_attention.gather(-1, index[..., None]).squeeze(-1)
    return total
