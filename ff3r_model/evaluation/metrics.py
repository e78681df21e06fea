"""The figures that are reported: depth error, pose AUC, IoU."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.geometry import invert_rigid


def align_scale(depth: Float[Tensor, "views height width"], truth: Float[Tensor, "views height width"]) -> float:
    """The one factor per window that brings a predicted depth to the truth: the median ratio over valid pixels."""
    valid = truth > 0
    return float((truth[valid] / depth[valid].clamp(min=1e-9)).median())


def depth_rel(depth: Tensor, truth: Tensor) -> float:
    """Mean of |depth − truth| / truth over valid pixels, after one scale per window."""
    valid = truth > 0
    scaled = depth * align_scale(depth, truth)
    return float(((scaled - truth).abs()[valid] / truth[valid]).mean())


def depth_inliers(depth: Tensor, truth: Tensor, threshold: float = 1.03) -> float:
    """Share of valid pixels whose depth is within a factor `threshold` of the truth (τ), after one scale per window."""
    valid = truth > 0
    ratio = depth[valid] * align_scale(depth, truth) / truth[valid]
    return float((torch.maximum(ratio, 1 / ratio) < threshold).float().mean())


def pair_errors(
    camera_from_world: Float[Tensor, "views 4 4"], truth: Float[Tensor, "views 4 4"]
) -> Float[Tensor, " pairs"]:
    """Degrees per pair of views: the larger of rotation error and angle between translation directions."""
    first, second = torch.triu_indices(len(truth), len(truth), 1)
    predicted = camera_from_world[second] @ invert_rigid(camera_from_world[first])
    expected = truth[second] @ invert_rigid(truth[first])
    relative = predicted[:, :3, :3].transpose(-1, -2) @ expected[:, :3, :3]
    trace = relative.diagonal(dim1=-2, dim2=-1).sum(-1)
    rotation = torch.arccos(((trace - 1) / 2).clamp(-1, 1))
    direction = torch.nn.functional.cosine_similarity(predicted[:, :3, 3], expected[:, :3, 3], dim=-1, eps=1e-9)
    return torch.rad2deg(torch.maximum(rotation, torch.arccos(direction.clamp(-1, 1))))


def auc(errors_degrees: Float[Tensor, " n"], limit: int) -> float:
    """Area under the recall curve up to `limit` degrees, in one-degree bins, 0 to 1 (AUC@limit of the literature)."""
    counts = torch.histc(errors_degrees.clamp(max=limit + 1.0).double(), bins=limit + 1, min=0, max=limit + 1)[:limit]
    return float((counts.cumsum(0) / len(errors_degrees)).mean())


def confusion(labels: Int[Tensor, " n"], truth: Int[Tensor, " n"], classes: int) -> Int[Tensor, "classes classes"]:
    """Counts by (truth, label); negative truths are left out."""
    valid = truth >= 0
    return torch.bincount(truth[valid] * classes + labels[valid], minlength=classes * classes).view(classes, classes)


def mean_iou(matrix: Int[Tensor, "classes classes"]) -> tuple[float, int]:
    """Mean intersection over union over the classes that occur in the truth, and how many those are."""
    hit = matrix.diagonal().double()
    union = matrix.sum(0) + matrix.sum(1) - hit
    present = matrix.sum(1) > 0
    return float((hit / union.clamp(min=1))[present].mean()), int(present.sum())
