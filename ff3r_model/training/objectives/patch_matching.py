"""Correspondences of patches across views, and losses on attention and optical flow that should know them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.training.datasets.room_views import RoomWindow


def patch_matches(
    truth: RoomWindow, patch: int
) -> tuple[Float[Tensor, "batch views target n 2"], Bool[Tensor, "batch views target n"]]:
    """Where the centre of each patch of each view lies in every view, in patch units, and whether it is seen there."""
    # Points that the patches' centres show, in the world.
    depth = truth.depth
    batch, views, height, width = depth.shape
    world_from_camera = invert_rigid(truth.camera_from_world)
    points = unproject(depth, truth.intrinsics)[:, :, patch // 2 :: patch, patch // 2 :: patch]
    centre_depth = depth[:, :, patch // 2 :: patch, patch // 2 :: patch].flatten(2)
    world = transform_points(world_from_camera, points.flatten(2, 3))
    # Project them into every view.
    n = world.shape[2]
    expanded = world[:, :, None].expand(batch, views, views, n, 3)
    target_from_world = truth.camera_from_world[:, None].expand(batch, views, views, 4, 4)
    intrinsics = truth.intrinsics[:, None].expand(-1, views, -1, 3, 3)
    pixels, z = project(transform_points(target_from_world, expanded), intrinsics)
    # Seen there: inside the image, in front of the camera, and at the depth that the view has at that pixel.
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
