"""How long a unit of the map is, by the best there is: depth images, odometry, the camera's height, a learned guess."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, check_range
from ff3r_model.core.robust import weighted_median
from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.slam.reference.depth_scale import scale_from_depth
from ff3r_model.slam.reference.floor import floor_below
from ff3r_model.slam.reference.seen_floors import MAX_UNDER, SeenFloors

DEPTH: Final = "depth images"
ODOMETRY: Final = "odometry"
HEIGHT: Final = "camera height"
LEARNED: Final = "learned depth"
Ladder = Literal["depth images", "odometry", "camera height", "learned depth"]
LADDER: tuple[Ladder, ...] = (DEPTH, ODOMETRY, HEIGHT, LEARNED)
"""Best first: depth measures every surface, odometry a few centimetres of path, the floor has to be found first, and
what a network sees in single images is a guess."""
MEASURED = (DEPTH, ODOMETRY, LEARNED)
"""Sources that say something of each window by itself."""
ASSUMED = 0.8
"""Most that a stated camera height is believed: no picture proves it."""
EARNED = 2
"""n windows that agree on a floor are believed by n / (n + EARNED): the first ones may all have seen a table."""
CONTRADICTION = 1.25
"""Factor between the stated camera height and what better sources make of it, beyond which it is not believed."""
SETTLED = 0.03
"""A metric map whose windows measure it larger or smaller by more than this share is corrected."""


@dataclass(frozen=True)
class ScaleConfig:
    """When a source of metric scale is believed."""

    windows: int = 3
    """Least number of windows that must have measured."""
    memory: int = 30
    """Windows that are remembered; the median over them is the value."""
    agreement: float = 0.1
    """Windows within this share of the median agree with it."""
    min_confidence: float = 0.5
    """Least share of windows that agree."""
    min_valid: float = 0.05
    """Least share of a window's pixels with a measured depth."""
    min_baseline: float = 0.2
    """Metres by which odometry must have moved the camera within a window: less is mostly noise."""

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "windows", "memory")
        check_range(self, NOT_NEGATIVE, "agreement", "min_baseline")
        check_range(self, SHARE, "min_confidence", "min_valid")


@dataclass(frozen=True)
class ScaleEstimate:
    """How long one unit of the map is, and how that is known."""

    source: str
    """One of LADDER."""
    factor: float
    """Metres per unit of the map."""
    confidence: float
    """Share of the windows that agree, 0 to 1."""


class ScaleLadder:
    """What the windows said about the map's scale, by source."""

    def __init__(self, config: ScaleConfig | None = None, camera_height: float | None = None) -> None:
        """`camera_height`: metres above the floor, where known."""
        self.config, self.camera_height = config or ScaleConfig(), camera_height
        self._seen: dict[str, deque[float]] = {source: deque(maxlen=self.config.memory) for source in MEASURED}
        self.floors = SeenFloors(camera_height or 1.0, self.config.memory)
        """What the camera height rests on."""
        self._offered: set[str] = set()
        """Sources that any window had, whether it could measure by them or not."""
        self.doubted = ""
        """Why the stated camera height is not believed, where that was found out."""

    def observe(self, window: Window, prediction: Prediction, map_from_window: Similarity) -> None:
        """Take in a window that has been placed."""
        learned = prediction.metres_per_unit
        offered = {
            DEPTH: window.depth,
            ODOMETRY: window.odom_from_camera,
            HEIGHT: self.camera_height,
            LEARNED: learned,
        }
        self._offered |= {source for source, given in offered.items() if given is not None}
        for source, metres in (
            (DEPTH, scale_from_depth(window, prediction, self.config.min_valid)),
            (ODOMETRY, scale_from_odometry(window, prediction, self.config.min_baseline)),
            (LEARNED, learned),
        ):
            if metres is not None:
                self._seen[source].append(metres / map_from_window.scale)
        if self.camera_height is not None:
            floor = floor_below(prediction, map_from_window, self.camera_height)
            if floor is not None:
                self.floors.add(floor)

    @property
    def best(self) -> ScaleEstimate | None:
        """The estimate of the best source that is believed; None while the map has no scale."""
        found = (self.estimate(source) for source in LADDER if not (source == HEIGHT and self.doubted))
        return next((each for each in found if each and each.confidence >= self.config.min_confidence), None)

    def doubt(self, points: Float[Tensor, "n 3"]) -> str:
        """Why the stated camera height cannot be right, or the floor that was found is none; empty where it may be.

        `points` are the map's.
        """
        by_height = self.estimate(HEIGHT)
        if by_height is None:
            return ""
        for source in (DEPTH, ODOMETRY):
            measured = self.estimate(source)
            if measured is None or measured.confidence < self.config.min_confidence:
                continue
            height = self.floors.height * measured.factor / by_height.factor
            if abs(math.log(height / self.floors.height)) > math.log(CONTRADICTION):
                return f"the camera is {height:.2f} m above the floor by {source}, not {self.floors.height:g} m"
        under = self.floors.under(points)
        if under > MAX_UNDER:
            return f"{under:.0%} of what was seen lies under the plane that the camera height would refer to: a table?"
        return ""

    def estimate(self, source: str) -> ScaleEstimate | None:
        """What one source says, believed or not; None before enough windows have measured."""
        values = self.floors.scales if source == HEIGHT else torch.tensor(list(self._seen[source]), dtype=torch.float64)
        if len(values) < self.config.windows:
            return None
        if source == HEIGHT:
            return self._by_height(values)
        factor = float(values.quantile(0.5))
        return ScaleEstimate(source, factor, self._agreeing(values, factor))

    def _by_height(self, values: Float[Tensor, " n"]) -> ScaleEstimate:
        """By the windows that saw the lowest plane around them; those that saw a table only speak against it."""
        lowest = self.floors.lowest
        count, share = int(lowest.sum()), float(lowest.double().mean())
        factor = float(values[lowest].quantile(0.5))
        believed = share * self._agreeing(values[lowest], factor) * count / (count + EARNED)
        return ScaleEstimate(HEIGHT, factor, min(ASSUMED, believed))

    def _agreeing(self, values: Float[Tensor, " n"], factor: float) -> float:
        return float(((values / factor - 1).abs() <= self.config.agreement).double().mean())

    def shortcomings(self) -> list[str]:
        """Why each source that is offered is not believed, best first; nothing where none is offered."""
        return [lack for source in LADDER if source in self._offered and (lack := self._shortcoming(source))]

    def _shortcoming(self, source: str) -> str:
        if source == HEIGHT and self.doubted:
            return f"{source}: {self.doubted}"
        config, found = self.config, self.estimate(source)
        count = len(self.floors) if source == HEIGHT else len(self._seen[source])
        able = {
            DEPTH: f"windows with depth in {config.min_valid:.0%} of their pixels",
            ODOMETRY: f"windows in which it moved the camera by {config.min_baseline:g} m",
            HEIGHT: "windows that see the floor",
            LEARNED: "windows whose newest view was looked at",
        }[source]
        if found is None:
            return f"{source}: {config.windows} {able} are needed, so far {count}"
        if found.confidence < config.min_confidence:
            agree = f"{found.confidence:.0%} of {count} windows agree within {config.agreement:.0%}"
            return f"{source}: {agree}, {config.min_confidence:.0%} must"
        return ""

    def window_scale(self, window: Window, prediction: Prediction) -> float | None:
        """Metres per unit of this window, by itself: from its depth images, else odometry, else None."""
        metres = scale_from_depth(window, prediction, self.config.min_valid)
        return metres if metres is not None else scale_from_odometry(window, prediction, self.config.min_baseline)

    def transform(self, new_from_old: Similarity) -> None:
        """The map has moved: its unit may be another, and the floors' normals are turned."""
        for values in self._seen.values():
            kept = [value / new_from_old.scale for value in values]
            values.clear()
            values.extend(kept)
        self.floors.transform(new_from_old)

    def state(self) -> dict[str, Any]:
        """For a file; JSON can hold it."""
        return {
            "metres": {source: list(values) for source, values in self._seen.items()},
            "floors": self.floors.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        for source, values in self._seen.items():
            values.extend(float(value) for value in state["metres"].get(source, ()))
        self.floors.restore(state["floors"])


def better(source: str, other: str) -> bool:
    """Whether a source stands above another, or above one that is not on the ladder."""
    return other not in LADDER or LADDER.index(source) < LADDER.index(other)


def scale_from_odometry(window: Window, prediction: Prediction, min_baseline: float) -> float | None:
    """Metres per window unit: measured over predicted distance of pairs of cameras, their median by measured length."""
    if window.odom_from_camera is None:
        return None
    known = window.odom_from_camera.flatten(1).isfinite().all(dim=1)
    measured = _distances(window.odom_from_camera[known])
    predicted = _distances(invert_rigid(prediction.cameras.camera_from_world).cpu()[known])
    used = (measured > min_baseline) & (predicted > 0)
    if not used.any():
        return None
    value = float(weighted_median((measured / predicted)[used], measured[used]))
    return value if math.isfinite(value) else None


def _distances(poses: Float[Tensor, "views 4 4"]) -> Float[Tensor, " pairs"]:
    """Between the centres of all pairs of cameras."""
    return torch.pdist(poses[:, :3, 3].double()) if len(poses) > 1 else torch.zeros(0, dtype=torch.float64)
