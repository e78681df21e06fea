"""A camera at a known height above a level floor: what that says about where a window lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.geometry import apply_similarity, compose, invert_rigid, quaternion_to_matrix
from ff3r_model.metric_scale import ScaleEstimate, metric_scale_from_camera_height
from ff3r_model.types import Prediction, Similarity

MAX_CORRECTION = 2.0
"""No window is made larger or smaller by more than this factor at once (ours)."""

OPPOSITE = 1e-6
"""Sine below which two unit vectors lie on one line."""
MIN_AGREEMENT = 0.9
"""Length of the mean of what a window's views call up, below which they do not agree (ours)."""


@dataclass(frozen=True)
class Floor:
    """The map's floor, normal · x = offset, in metres."""

    normal: Float[Tensor, " 3"]
    """Up, unit length."""
    offset: float


def floor_below(prediction: Prediction, map_from_window: Similarity, height: float) -> ScaleEstimate | None:
    """The floor under a placed window's cameras, all `height` metres above it: how much larger the window should be.

    The points of each view are taken relative to its own camera, so that one plane fits them all. None: no floor seen.
    """
    world_from_camera = invert_rigid(prediction.cameras.camera_from_world)
    points = prediction.points.flatten(1, 2) - world_from_camera[:, None, :3, 3]
    turned = map_from_window.scale * points.flatten(0, 1) @ map_from_window.rotation.to(points).T
    return metric_scale_from_camera_height(turned.cpu(), height)


def stand_on(
    floor: Floor, seen: ScaleEstimate, height: float, prediction: Prediction, map_from_window: Similarity, weight: float
) -> Similarity:
    """The placement of a window moved by `weight` (0 to 1) towards one whose cameras stand on the floor.

    Size and tilt change about the cameras' centre, which then moves along the floor's normal.
    """
    centres = invert_rigid(prediction.cameras.camera_from_world)[:, :3, 3].cpu()
    pivot = apply_similarity(map_from_window, centres).mean(0)
    scale = min(max(seen.scale, 1 / MAX_CORRECTION), MAX_CORRECTION) ** weight
    rotation = turn_towards(seen.normal.float(), floor.normal.float(), weight)
    lift = weight * (height + floor.offset - float(floor.normal @ pivot))
    correction = Similarity(scale, rotation, pivot - scale * rotation @ pivot + lift * floor.normal)
    return compose(correction, replace(map_from_window, rotation=map_from_window.rotation.cpu()))


def upright(
    map_from_window: Similarity,
    window_from_camera: Float[Tensor, "views 4 4"],
    up: Float[Tensor, "views 3"],
    weight: float,
) -> Similarity:
    """The placement turned by `weight` (0 to 1) about its cameras' centre so that what they call up is the map's +z.

    `up` in each camera's axes, NaN where unknown; where all are, or disagree beyond sense, nothing changes.
    """
    known = up.isfinite().all(dim=1)
    seen = (window_from_camera[known, :3, :3].cpu() @ up[known].to(window_from_camera).cpu()[:, :, None]).squeeze(2)
    turned = seen @ map_from_window.rotation.to(seen).T
    if not known.any() or turned.mean(0).norm() < MIN_AGREEMENT:
        return map_from_window
    z = torch.tensor([0.0, 0.0, 1.0]).to(turned)
    rotation = turn_towards(torch.nn.functional.normalize(turned.mean(0), dim=0), z, weight)
    pivot = apply_similarity(map_from_window, window_from_camera[:, :3, 3].cpu()).mean(0).to(rotation)
    placed = replace(map_from_window, rotation=map_from_window.rotation.to(rotation))
    return compose(Similarity(1.0, rotation, pivot - rotation @ pivot), placed)


def turn_towards(source: Float[Tensor, " 3"], target: Float[Tensor, " 3"], share: float = 1.0) -> Float[Tensor, "3 3"]:
    """A `share` of the smallest rotation that takes one unit vector to another; of opposite ones, any such."""
    axis = torch.linalg.cross(source, target)
    sine = axis.norm()
    if sine < OPPOSITE and source @ target < 0:
        axis = torch.linalg.cross(source, torch.eye(3).to(source)[int(source.abs().argmin())])
    angle = torch.atan2(sine, source @ target) * share / 2
    axis = axis / axis.norm().clamp_min(1e-12)
    return quaternion_to_matrix(torch.cat([angle.cos()[None], angle.sin() * axis]))
