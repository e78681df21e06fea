"""Geometry from sensors: measured depth and odometry in place of the network's, its semantics as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ff3r_model.gaussians import DEPTH_CONFIDENCE_WEIGHT
from ff3r_model.geometry import (
    invert_rigid,
    matrix_to_quaternion,
    quaternion_multiply,
    transform_points,
    unproject,
)
from ff3r_model.harmonics import rotate_harmonics
from ff3r_model.robust import weighted_median
from ff3r_model.scale import ScaleConfig, scale_from_depth, scale_from_odometry
from ff3r_model.types import Cameras, Gaussians, Prediction, Window

Geometry = Literal["predicted", "sensor"]
MIN_PIXELS = 50
"""Measured pixels that a view needs for a scale of its own (ours)."""


def correct(prediction: Prediction, window: Window, geometry: Geometry = "predicted") -> Prediction:
    """The prediction with geometry as asked for.

    predicted: as it is. sensor: depth as measured, elsewhere as predicted at the size that fits what is measured in the
    view (else in the window); poses from odometry, elsewhere as predicted at the window's size beside the nearest view
    that has odometry. Lengths are metres then. Gaussians follow their pixels; features and colours stay. A window
    without depth and odometry, or with too little of both to know its size, comes back unchanged.
    """
    if geometry == "predicted":
        return prediction
    config = ScaleConfig()
    metres = scale_from_depth(window, prediction, config.min_valid)
    if metres is None:
        metres = scale_from_odometry(window, prediction, config.min_baseline)
    if metres is None:
        return prediction
    cameras = replace(prediction.cameras, camera_from_world=_poses(prediction.cameras, window, metres))
    depth, measured = _depth(prediction, window, metres)
    confidence = torch.where(measured, prediction.depth_confidence.amax(), prediction.depth_confidence)
    return replace(
        prediction,
        cameras=cameras,
        depth=depth,
        depth_confidence=confidence,
        gaussians=_moved(prediction, cameras, depth, confidence),
    )


def _poses(cameras: Cameras, window: Window, metres: float) -> Float[Tensor, "views 4 4"]:
    """camera_from_world in the first camera's frame, metres."""
    predicted = invert_rigid(cameras.camera_from_world)
    predicted[:, :3, 3] *= metres
    if window.odom_from_camera is None:
        return invert_rigid(predicted)
    odometry = window.odom_from_camera.to(predicted)
    known = odometry.flatten(1).isfinite().all(dim=1).nonzero().squeeze(1)
    if len(known) < 2:
        return invert_rigid(predicted)
    views = torch.arange(len(predicted), device=predicted.device)
    nearest = known[(views[:, None] - known[None]).abs().argmin(dim=1)]
    odom_from_camera = odometry[nearest] @ invert_rigid(predicted[nearest]) @ predicted
    odom_from_camera[known] = odometry[known]
    poses = invert_rigid(odom_from_camera) @ odom_from_camera[:1]
    poses[0] = torch.eye(4).to(poses)
    return poses


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


def _moved(
    prediction: Prediction, cameras: Cameras, depth: Float[Tensor, "views h w"], confidence: Float[Tensor, "views h w"]
) -> Gaussians:
    """Each pixel's Gaussian at its new depth and turned with its camera, as large in the picture as before."""
    old = prediction.gaussians
    views, pixels = len(depth), depth[0].numel()
    turns = cameras.camera_from_world[:, :3, :3].mT @ prediction.cameras.camera_from_world[:, :3, :3]
    local = unproject(depth, cameras.intrinsics).flatten(1, 2)
    quaternions = old.quaternions.view(views, pixels, 4)
    harmonics = old.harmonics.view(views, pixels, -1, 3)
    return replace(
        old,
        means=transform_points(invert_rigid(cameras.camera_from_world), local).flatten(0, 1),
        scales=old.scales * (depth / prediction.depth).reshape(-1, 1),
        quaternions=quaternion_multiply(matrix_to_quaternion(turns)[:, None], quaternions).flatten(0, 1),
        harmonics=torch.cat([rotate_harmonics(turn, each) for turn, each in zip(turns, harmonics, strict=True)]),
        confidences=old.confidences
        + DEPTH_CONFIDENCE_WEIGHT * (confidence / prediction.depth_confidence).log().flatten(),
    )
