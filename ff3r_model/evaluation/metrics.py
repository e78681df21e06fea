"""The figures that are reported: depth error, pose AUC, trajectory error, IoU."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from evo.core.geometry import GeometryException
from evo.core.metrics import APE, PoseRelation, StatisticsType
from evo.core.trajectory import PosePath3D
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid

ScaleBy = Literal["median", "least_squares"]
"""How the one factor per window is found that brings a predicted depth to the truth."""


def align_scale(
    depth: Float[Tensor, "views height width"], truth: Float[Tensor, "views height width"], by: ScaleBy = "median"
) -> float:
    """The one factor per window that brings a predicted depth to the truth, over the pixels whose truth is known.

    "median": of truth / depth; "least_squares": the minimum of Σ (factor · depth − truth)².
    """
    valid = truth > 0
    given, wanted = depth[valid].double(), truth[valid].double()
    if by == "median":
        return float((wanted / given.clamp(min=1e-9)).median())
    return float((given * wanted).sum() / given.square().sum().clamp(min=1e-18))


def depth_rel(depth: Tensor, truth: Tensor, by: ScaleBy = "median") -> float:
    """Mean of |depth − truth| / truth over valid pixels, after one scale per window."""
    valid = truth > 0
    scaled = depth * align_scale(depth, truth, by)
    return float(((scaled - truth).abs()[valid] / truth[valid]).mean())


def depth_inliers(depth: Tensor, truth: Tensor, threshold: float = 1.03, by: ScaleBy = "median") -> float:
    """Share of valid pixels whose depth is within a factor `threshold` of the truth (τ), after one scale per window."""
    valid = truth > 0
    ratio = depth[valid] * align_scale(depth, truth, by) / truth[valid]
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


def trajectory_error(camera_from_world: Float[Tensor, "views 4 4"], truth: Float[Tensor, "views 4 4"]) -> float | None:
    """Root mean square distance of camera centres after Umeyama's similarity (ATE), in the unit of the truth.

    None where no similarity is determined: two views, or centres on one line.
    """
    predicted, true = (
        PosePath3D(poses_se3=list(np.asarray(invert_rigid(poses.double().cpu()))))
        for poses in (camera_from_world, truth)
    )
    try:
        predicted.align(true, correct_scale=True)
    except GeometryException:
        return None
    return position_rmse(true, predicted)


def position_rmse(truth: PosePath3D, aligned: PosePath3D) -> float:
    """ATE of two trajectories, pose by pose, as they lie: root mean square distance of their positions (evo's APE)."""
    error = APE(PoseRelation.translation_part)
    error.process_data((truth, aligned))
    return float(error.get_statistic(StatisticsType.rmse))


def confusion(labels: Int[Tensor, " n"], truth: Int[Tensor, " n"], classes: int) -> Int[Tensor, "classes classes"]:
    """Counts by (truth, label); negative truths are left out."""
    valid = truth >= 0
    return torch.bincount(truth[valid] * classes + labels[valid], minlength=classes * classes).view(classes, classes)


def commonest(matrix: Int[Tensor, "classes classes"]) -> Int[Tensor, "classes classes"]:
    """The confusion of who always says the truth's commonest class."""
    counts = matrix.sum(1)
    constant = torch.zeros_like(matrix)
    constant[:, counts.argmax()] = counts
    return constant


def mean_iou(matrix: Int[Tensor, "classes classes"]) -> tuple[float, int]:
    """Mean intersection over union over the classes that occur in the truth, and how many those are."""
    hit = matrix.diagonal().double()
    union = matrix.sum(0) + matrix.sum(1) - hit
    present = matrix.sum(1) > 0
    return float((hit / union.clamp(min=1))[present].mean()), int(present.sum())
