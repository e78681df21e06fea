"""A camera at a known height above a level floor: what that says about where a window lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.geometry import apply_similarity, compose, invert_rigid, quaternion_to_matrix
from ff3r_model.metric_scale import ScaleEstimate, metric_scale_from_camera_height
from ff3r_model.types import Prediction, Similarity

MAX_CORRECTION = 2.0
"""No window is made larger or smaller by more than this factor at once (ours)."""


@dataclass(frozen=True)
class Floor:
    """The map's floor, normal · x = offset, in metres."""

    normal: Float[Tensor, " 3"]
    """Up, unit length."""
    offset: float


class Standing:
    """What a map's windows say about the floor below them, and the floor once enough of them have said it."""

    def __init__(self, height: float, weight: float, windows: int) -> None:
        """Cameras are `height` metres above the floor; see `MappingConfig` for the rest."""
        self.height, self.weight, self.windows = height, weight, windows
        self.floor: Floor | None = None
        self._seen: list[ScaleEstimate] = []

    def look(self, prediction: Prediction, map_from_window: Similarity) -> float | None:
        """Metres per unit of an unscaled map, once `windows` windows have seen the floor: their median."""
        seen = floor_below(prediction, map_from_window, self.height)
        self._seen += [] if seen is None else [seen]
        return median(each.scale for each in self._seen) if len(self._seen) >= self.windows else None

    def settle(self, centres: Float[Tensor, "n 3"]) -> None:
        """The map is metric from now on, and its cameras are here: put the floor below them."""
        normals = torch.stack([each.normal for each in self._seen])
        normal = torch.nn.functional.normalize(normals.mean(0), dim=0)
        self.floor = Floor(normal, float((centres.to(normal) @ normal).median()) - self.height)

    def hold(self, prediction: Prediction, map_from_window: Similarity) -> Similarity:
        """A window's placement moved towards standing on the floor; as it is where no floor is known or seen."""
        if self.floor is None or not self.weight:
            return map_from_window
        seen = floor_below(prediction, map_from_window, self.height)
        if seen is None:
            return map_from_window
        return stand_on(self.floor, seen, self.height, prediction, map_from_window, self.weight)

    def moved(self, motion: Similarity) -> Standing:
        """The same in another metric map's frame."""
        other = Standing(self.height, self.weight, self.windows)
        if self.floor is not None:
            normal = (motion.rotation.float() @ self.floor.normal.float()).to(self.floor.normal)
            offset = self.floor.offset * motion.scale + float(normal.double() @ motion.translation.double())
            other.floor = Floor(normal, offset)
        return other


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
    rotation = _turn(seen.normal.float(), floor.normal.float(), weight)
    lift = weight * (height + floor.offset - float(floor.normal @ pivot))
    correction = Similarity(scale, rotation, pivot - scale * rotation @ pivot + lift * floor.normal)
    return compose(correction, replace(map_from_window, rotation=map_from_window.rotation.cpu()))


def _turn(source: Float[Tensor, " 3"], target: Float[Tensor, " 3"], share: float) -> Float[Tensor, "3 3"]:
    """A `share` of the smallest rotation that takes one unit vector to another."""
    axis = torch.linalg.cross(source, target)
    sine = axis.norm()
    angle = torch.atan2(sine, source @ target) * share / 2
    axis = axis / sine.clamp_min(1e-12)
    return quaternion_to_matrix(torch.cat([angle.cos()[None], angle.sin() * axis]))
