"""Scale by depth images: metres per window unit, from triangulated points where there are enough, else from pixels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from ff3r_model.core.robust import weighted_median
from ff3r_model.core.types import Prediction, SparsePoints, Window

LEAST_POINTS = 30
"""Observations of triangulated points, on measured surfaces, below which dense depth is asked instead."""
STEP = 1.1
"""Factor between depths of neighbouring pixels at which there is an edge: a point there may lie on either side."""


def scale_from_depth(window: Window, prediction: Prediction, min_valid: float) -> float | None:
    """Metres per window unit: the median of measured over predicted depth; None where too little was measured.

    The predicted depth is that of triangulated points, where tracks gave enough of them: it shares no bias with the
    network's, which stands in elsewhere, weighted by its confidence.
    """
    if window.depth is None or window.depth.shape != prediction.depth.shape:
        return None
    measured, predicted = window.depth.to(prediction.depth), prediction.depth
    valid = (measured > 0) & measured.isfinite()
    if float((valid & (predicted > 0)).float().mean()) < min_valid:
        return None
    ratios = torch.zeros(0)
    if prediction.points_seen is not None:
        ratios = _ratios_at_points(prediction.points_seen, prediction.cameras.camera_from_world, measured, valid)
    if len(ratios) >= LEAST_POINTS:
        return float(ratios.quantile(0.5))
    valid &= predicted > 0
    return float(weighted_median(measured[valid] / predicted[valid], prediction.depth_confidence[valid]))


def _ratios_at_points(
    points: SparsePoints,
    camera_from_world: Float[Tensor, "views 4 4"],
    measured: Float[Tensor, "views h w"],
    valid: Bool[Tensor, "views h w"],
) -> Float[Tensor, " n"]:
    """Measured depth over that of the triangulated point, at the pixels that saw one away from edges."""
    poses = camera_from_world.double().cpu()[points.view]
    depth = (poses[:, 2, :3] * points.positions[points.point].double().cpu()).sum(1) + poses[:, 2, 3]
    height, width = measured.shape[1:]
    column, row = points.pixels.cpu().long().unbind(1)
    place = (points.view.cpu(), row.clamp(0, height - 1), column.clamp(0, width - 1))
    good = _smooth(measured, valid).cpu()[place] & (depth > 0)
    return (measured.cpu()[place] / depth)[good]


def _smooth(measured: Float[Tensor, "views h w"], valid: Bool[Tensor, "views h w"]) -> Bool[Tensor, "views h w"]:
    """Pixels around which everything is measured, and no edge is."""
    logs = torch.where(valid, measured, 1.0).log()[:, None]
    reach = max_pool2d(logs, 3, 1, 1) + max_pool2d(-logs, 3, 1, 1)
    unknown = max_pool2d((~valid).float()[:, None], 3, 1, 1)
    step = torch.tensor(STEP).log()
    return ((reach < step) & (unknown == 0))[:, 0]
