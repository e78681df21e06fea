"""How a submap stands in the world: its scale, what is up, and the floor; and windows held to these."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.slam.reference.floor import Floor, floor_below, stand_on, upright
from ff3r_model.slam.reference.gravity import Gravity
from ff3r_model.slam.reference.scale import HEIGHT, ScaleConfig, ScaleLadder, better
from ff3r_model.voxel_map.config import ScaleInfo

log = logging.getLogger(__name__)


class Standing:
    """What the windows of one submap say about scale, up and floor, and what follows for windows to come."""

    def __init__(self, ladder: ScaleConfig, camera_height: float | None, weight: float) -> None:
        """`camera_height`: metres above the floor, where known; `weight`: see `MappingConfig.ground_weight`."""
        self.ladder, self.weight = ScaleLadder(ladder, camera_height), weight
        self.floor: Floor | None = None
        self.gravity = Gravity()

    def known_scale(self, window: Window, prediction: Prediction, scale: ScaleInfo) -> float | None:
        """Map units per window unit where both are known in metres by themselves: the window is joined by SE(3)."""
        return self.ladder.window_scale(window, prediction) if scale.metric else None

    def hold(self, window: Window, prediction: Prediction, map_from_window: Similarity) -> Similarity:
        """The placement moved by `weight` towards standing upright, and on the floor where that is known and seen."""
        if self.gravity.source == "measured" and window.up is not None:
            poses = invert_rigid(prediction.cameras.camera_from_world)
            map_from_window = upright(map_from_window, poses, window.up, self.weight)
        height = self.ladder.camera_height
        if self.floor is None or height is None or not self.weight:
            return map_from_window
        seen = floor_below(prediction, map_from_window, height)
        if seen is None:
            return map_from_window
        if self.ladder.window_scale(window, prediction) is not None:
            seen = replace(seen, scale=1.0)
        return stand_on(self.floor, seen, height, prediction, map_from_window, self.weight)

    def turn(self, window: Window, prediction: Prediction, map_from_window: Similarity) -> Similarity | None:
        """new_from_old map, where a placed window says better than what came before which way is up."""
        turn = self.gravity.observe(window, prediction, map_from_window)
        if turn is not None:
            self.ladder.turned(turn.rotation)
            if self.floor is not None:
                self.floor = replace(self.floor, normal=turn.rotation.to(self.floor.normal) @ self.floor.normal)
        return turn

    def observe(
        self, window: Window, prediction: Prediction, map_from_window: Similarity, scale: ScaleInfo
    ) -> ScaleInfo | None:
        """Take in a placed window; a scale, where the map has none yet or this one comes from a better source."""
        self.ladder.observe(window, prediction, map_from_window)
        best = self.ladder.best
        if best is None or (scale.metric and not better(best.source, scale.source)):
            return None
        return ScaleInfo(metric=True, source=best.source, factor=best.factor, confidence=best.confidence)

    def settle(self, factor: float, centres: Float[Tensor, "n 3"]) -> None:
        """The map was made metric by `factor`, and its cameras are here now: put the floor below them, where seen."""
        self.ladder.rescaled(factor)
        height = self.ladder.camera_height
        if height is not None and self.ladder.estimate(HEIGHT) is not None:
            normals = torch.stack([each.normal for each in self.ladder.floors])
            normal = torch.nn.functional.normalize(normals.mean(0), dim=0)
            self.floor = Floor(normal, float((centres.to(normal) @ normal).median()) - height)

    def follow(self, other: Standing, map_from_other: Similarity) -> None:
        """Take over the floor of a metric map that became part of this one, unless this one's own is known."""
        if self.floor is None and other.floor is not None:
            normal = (map_from_other.rotation.double() @ other.floor.normal.double()).float()
            offset = other.floor.offset * map_from_other.scale + float(
                normal.double() @ map_from_other.translation.double()
            )
            self.floor = Floor(normal, offset)
