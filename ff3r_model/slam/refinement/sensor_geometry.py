"""Geometry from sensors: measured depth and odometry in place of the network's, its semantics as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ff3r_model.core.geometry import anchored, invert_rigid
from ff3r_model.core.robust import weighted_median
from ff3r_model.core.types import Cameras, Prediction, Window
from ff3r_model.gaussians.transform import with_geometry
from ff3r_model.slam.reference.depth_scale import scale_from_depth
from ff3r_model.slam.reference.scale import ScaleConfig, scale_from_odometry

GeometrySource = Literal["predicted", "sensor"]
MIN_PIXELS = 50
"""Measured pixels that a view needs for a scale of its own."""


def use_sensor_geometry(prediction: Prediction, window: Window, config: ScaleConfig) -> Prediction:
    """The prediction with measured depth and odometry in place of the network's, where the window has any.

    Depth is as measured, elsewhere as predicted at the size that fits what is measured in the
    view (else in the window); poses from odometry, elsewhere as predicted at the window's size beside the nearest view
    that has odometry. Lengths are metres then. Gaussians follow their pixels; features and colours stay; the points of
    tracks, and what they say of the cameras' errors, only where the poses are theirs. A window without depth and
    odometry, or with too little of both to know its size, comes back unchanged.
    """
    metres = scale_from_depth(window, prediction, config.min_valid)
    if metres is None:
        metres = scale_from_odometry(window, prediction, config.min_baseline)
    if metres is None:
        return prediction
    cameras = replace(prediction.cameras, camera_from_world=_poses(prediction.cameras, window, metres))
    depth, measured = _depth(prediction, window, metres)
    confidence = torch.where(measured, prediction.depth_confidence.amax(), prediction.depth_confidence)
    points, quality = prediction.points_seen, prediction.quality
    if _odometry(window) is not None:
        points, quality = None, None
    if points is not None:
        points = replace(points, positions=points.positions * metres)
    if quality is not None:
        unit = torch.tensor([metres] * 3 + [1.0] * 3, dtype=torch.float64)
        quality = replace(quality, pose_covariance=quality.pose_covariance * unit[:, None] * unit)
    measured_prediction = with_geometry(prediction, cameras, depth, confidence)
    return replace(measured_prediction, points_seen=points, quality=quality)


def _odometry(window: Window) -> Float[Tensor, "views 4 4"] | None:
    """Poses by odometry, NaN where unknown; None where fewer than two views have one."""
    poses = window.odom_from_camera
    enough = poses is not None and int(poses.flatten(1).isfinite().all(dim=1).sum()) >= 2
    return poses if enough else None


def _poses(cameras: Cameras, window: Window, metres: float) -> Float[Tensor, "views 4 4"]:
    """camera_from_world in the first camera's frame, metres."""
    predicted = invert_rigid(cameras.camera_from_world)
    predicted[:, :3, 3] *= metres
    poses = _odometry(window)
    if poses is None:
        return invert_rigid(predicted)
    odometry = poses.to(predicted)
    known = odometry.flatten(1).isfinite().all(dim=1).nonzero().squeeze(1)
    views = torch.arange(len(predicted), device=predicted.device)
    nearest = known[(views[:, None] - known[None]).abs().argmin(dim=1)]
    odom_from_camera = odometry[nearest] @ invert_rigid(predicted[nearest]) @ predicted
    odom_from_camera[known] = odometry[known]
    return anchored(invert_rigid(odom_from_camera))


def _depth(
    prediction: Prediction, window: Window, metres: float
) -> tuple[Float[Tensor, "views h w"], Bool[Tensor, "views h w"]]:
    """Depth in metres, and where it was measured."""
    predicted = prediction.depth
    if window.depth is None or window.depth.shape != predicted.shape:
        return predicted * metres, torch.zeros_like(predicted, dtype=torch.bool)
    sensor = window.depth.to(predicted)
    measured = (sensor > 0) & sensor.isfinite()
    depth = predicted * metres
    for view, valid in enumerate(measured):
        if int(valid.sum()) >= MIN_PIXELS:
            ratio = sensor[view][valid] / predicted[view][valid]
            depth[view] = predicted[view] * weighted_median(ratio, prediction.depth_confidence[view][valid])
    return torch.where(measured, sensor, depth), measured
