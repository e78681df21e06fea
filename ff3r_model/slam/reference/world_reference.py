"""The world reference of a submap: its metric scale, which way is up, and the floor; and windows held to these."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import compose, invert_rigid
from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.slam.alignment import map_from_first_camera
from ff3r_model.slam.reference.floor import Floor, floor_below, stand_on, upright
from ff3r_model.slam.reference.gravity import Gravity, GravityConfig
from ff3r_model.slam.reference.scale import HEIGHT, LADDER, SETTLED, ScaleConfig, ScaleLadder, better
from ff3r_model.voxel_map.config import ScaleInfo

log = logging.getLogger(__name__)


class WorldReference:
    """What the windows of one submap say about scale, up and floor, and what follows for windows to come."""

    def __init__(
        self, scale: ScaleConfig, camera_height: float | None, weight: float, gravity: GravityConfig | None = None
    ) -> None:
        """`camera_height`: metres above the floor, where known; `weight`: see `MappingConfig.ground_weight`."""
        self.weight = weight
        self.ladder = ScaleLadder(scale, camera_height)
        self.gravity = Gravity(gravity)
        self.floor: Floor | None = None
        self.doubt = ""
        """Why the stated camera height is not believed; empty where it may be right."""
        self._observed = 0
        """Windows that were taken in, and at how many the scale was settled last."""
        self._settled_at = 0

    def begin(self, window: Window, prediction: Prediction, view: int) -> Similarity:
        """map_from_window of a submap's first window: upright at one view's camera, by its sensor where it has one."""
        camera = prediction.cameras.camera_from_world[view : view + 1].cpu()
        placed = compose(map_from_first_camera(), Similarity(1.0, camera[0, :3, :3], camera[0, :3, 3]))
        if window.up is None or not bool(window.up[view].isfinite().all()):
            return placed
        self.gravity.source = "measured"
        return upright(placed, invert_rigid(camera), window.up[view : view + 1], 1.0)

    def freeze(self) -> None:
        """The submap stays turned as it is, since nobody knows where its up came from."""
        self.gravity.source = "measured"

    def known_scale(self, window: Window, prediction: Prediction, scale: ScaleInfo) -> float | None:
        """Map units per window unit where both are known in metres by themselves: the window is joined by SE(3)."""
        return self.ladder.window_scale(window, prediction) if scale.metric else None

    def pull_towards(self, window: Window, prediction: Prediction, map_from_window: Similarity) -> Similarity:
        """The placement moved by `weight` towards standing upright, and on the floor where that is known and seen."""
        # Upright, where a sensor says what is up.
        if self.gravity.source == "measured" and window.up is not None:
            poses = invert_rigid(prediction.cameras.camera_from_world)
            map_from_window = upright(map_from_window, poses, window.up, self.weight)
        # On the floor, at the camera's height; the window's size stays where it is known by itself.
        height = self.ladder.camera_height
        if self.floor is None or height is None or not self.weight:
            return map_from_window
        seen = floor_below(prediction, map_from_window, height)
        if seen is None:
            return map_from_window
        if self.ladder.window_scale(window, prediction) is not None:
            seen = replace(seen, scale=1.0)
        return stand_on(self.floor, seen, height, prediction, map_from_window, self.weight)

    def observe_scale(
        self,
        window: Window,
        prediction: Prediction,
        map_from_window: Similarity,
        scale: ScaleInfo,
        points: Float[Tensor, "n 3"],
    ) -> ScaleInfo | None:
        """Take in a placed window; what is new of the map's scale by it, or None.

        New are the first scale, one from a better source, one that the windows since have shown to be off, and that
        there is none any more. `points` are the map's, under which no floor lies.
        """
        self.ladder.observe(window, prediction, map_from_window)
        self._doubt(points, scale)
        best = self.ladder.best
        if best is not None and best.source == HEIGHT and self.doubt:
            best = None
        if best is None or (scale.metric and best.source != scale.source and not better(best.source, scale.source)):
            return self._withdrawn(scale) if scale.metric else None
        if scale.metric and best.source == scale.source and not self._off(best.factor):
            return None
        self._settled_at = self._observed
        return ScaleInfo(metric=True, source=best.source, factor=best.factor, confidence=best.confidence)

    def _doubt(self, points: Float[Tensor, "n 3"], scale: ScaleInfo) -> None:
        """Say once why the camera height is not believed."""
        self._observed += 1
        doubt = self.ladder.doubt(points)
        if doubt and not self.doubt:
            log.warning("the stated camera height is not used: %s", doubt)
        self.doubt = doubt

    def _withdrawn(self, scale: ScaleInfo) -> ScaleInfo | None:
        """That lengths are no metres after all, where the source that said so is not believed any more."""
        estimate = self.ladder.estimate(scale.source) if scale.source in LADDER else None
        if estimate is None:
            return None
        wrong = scale.source == HEIGHT and bool(self.doubt)
        if not wrong and estimate.confidence >= self.ladder.config.min_confidence / 2:
            return None
        self.floor = None
        log.warning("the map is not metric any more: %s", self.doubt or "the windows disagree about its scale")
        return ScaleInfo(metric=False, source="none", factor=1.0, confidence=estimate.confidence)

    def _off(self, factor: float) -> bool:
        """Whether the windows measure the metric map as larger or smaller than it is, and enough of them are new."""
        return abs(math.log(factor)) > SETTLED and self._observed - self._settled_at >= self.ladder.config.windows

    def transform(self, new_from_old: Similarity) -> None:
        """The whole submap was turned, scaled or taken elsewhere: what is known of it moves along."""
        self.ladder.transform(new_from_old)
        self.gravity.transform(new_from_old)
        self.floor = None if self.floor is None else self.floor.transformed(new_from_old)

    def anchor_floor(self, centres: Float[Tensor, "n 3"]) -> None:
        """The map is metric, and its cameras are here: put the floor at their height below them, where it was seen."""
        height = self.ladder.camera_height
        if height is None or self.doubt or self.ladder.estimate(HEIGHT) is None:
            return
        normal = self.ladder.floors.normal.float()
        self.floor = Floor(normal, float((centres.to(normal) @ normal).median()) - height)

    def inherit_floor(self, other: WorldReference) -> None:
        """Take over the floor of a submap that became part of this one, unless this one's own is known."""
        self.floor = self.floor or other.floor

    def state(self) -> dict[str, Any]:
        """For a file; JSON can hold it."""
        floor = None if self.floor is None else {"normal": self.floor.normal.tolist(), "offset": self.floor.offset}
        return {"gravity": self.gravity.state(), "ladder": self.ladder.state(), "floor": floor}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; Key-, Type- or ValueError for what it did not give."""
        self.gravity.restore(state["gravity"])
        self.ladder.restore(state["ladder"])
        floor = state["floor"]
        self.floor = None if floor is None else Floor(torch.tensor(floor["normal"]), float(floor["offset"]))
