"""Which way is up in a map that began as its first camera was held: what TF or an IMU say, else the floor's normal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, check_range
from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.slam.reference.floor import floor_below, turn_towards

UP = torch.tensor([0.0, 0.0, 1.0])
CONTRADICTION = math.cos(math.radians(45))
"""Length of the views' mean up below which they contradict each other."""
Source = Literal["measured", "floor", "camera"]
"""Best first: Window.up, the floor's normal, the first camera's own up."""


@dataclass(frozen=True)
class GravityConfig:
    """How sure "up" must be."""

    floors: int = 3
    """Windows that must have seen a floor, the newest all within `agreement` of their mean."""
    agreement: float = 5.0
    """Degrees."""
    tries: int = 20
    """Windows in which a floor is looked for; a map without one stays as its first camera was held."""
    min_turn: float = 0.5
    """Degrees below which the map stays as it is."""

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "floors", "tries")
        check_range(self, POSITIVE, "agreement")
        check_range(self, NOT_NEGATIVE, "min_turn")


class Gravity:
    """Finds the map's z axis; a source that is better than what the map stands on so far turns the map once."""

    def __init__(self, config: GravityConfig | None = None) -> None:
        self.config = config or GravityConfig()
        self.source: Source = "camera"
        self._floors: list[Float[Tensor, " 3"]] = []
        self._tries = 0

    def observe(self, window: Window, prediction: Prediction, map_from_window: Similarity) -> Similarity | None:
        """new_from_old, a turn about the map's origin, where a better source than before has appeared."""
        if self.source == "measured":
            return None
        up = measured_up(window, prediction)
        if up is not None:
            self.source = "measured"
            return self._turn(map_from_window.rotation.cpu().float() @ up)
        normal = self._floor(prediction, map_from_window) if self.source == "camera" else None
        if normal is None:
            return None
        self.source = "floor"
        return self._turn(normal)

    def transform(self, new_from_old: Similarity) -> None:
        """The map has moved: what was seen of its floor moves along."""
        self._floors = [new_from_old.rotation.to(normal) @ normal for normal in self._floors]

    def state(self) -> dict[str, Any]:
        """For a file; JSON can hold it."""
        return {"source": self.source, "floors": [normal.tolist() for normal in self._floors], "tries": self._tries}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        if state["source"] not in get_args(Source):
            raise ValueError(f"up is known from one of {get_args(Source)}, not from {state['source']!r}")
        self.source, self._tries = state["source"], int(state["tries"])
        self._floors = [torch.tensor(normal) for normal in state["floors"]]

    def _floor(self, prediction: Prediction, map_from_window: Similarity) -> Float[Tensor, " 3"] | None:
        """The mean normal of the newest floors in the map, if there are enough of them and they agree."""
        if self._tries == self.config.tries:
            return None
        self._tries += 1
        floor = floor_below(prediction, map_from_window, 1.0)
        self._floors += [] if floor is None else [normalize(floor.normal.cpu().float(), dim=0)]
        newest = self._floors[-self.config.floors :]
        if len(newest) < self.config.floors:
            return None
        mean = normalize(torch.stack(newest).mean(dim=0), dim=0)
        return mean if all(_degrees(mean, each) <= self.config.agreement for each in newest) else None

    def _turn(self, up_in_map: Float[Tensor, " 3"]) -> Similarity | None:
        if _degrees(up_in_map, UP) < self.config.min_turn:
            return None
        return Similarity(rotation=turn_towards(up_in_map, UP))


def measured_up(window: Window, prediction: Prediction) -> Float[Tensor, " 3"] | None:
    """Up in the window's frame: the mean over the views that know it; None where none does, or they contradict."""
    if window.up is None:
        return None
    known = window.up.isfinite().all(dim=1).cpu()
    if not known.any():
        return None
    window_from_camera = invert_rigid(prediction.cameras.camera_from_world).cpu().float()[known]
    mean = (window_from_camera[:, :3, :3] @ window.up.cpu().float()[known][..., None])[..., 0].mean(dim=0)
    return normalize(mean, dim=0) if float(mean.norm()) > CONTRADICTION else None


def _degrees(a: Float[Tensor, " 3"], b: Float[Tensor, " 3"]) -> float:
    """Between two vectors."""
    return math.degrees(math.atan2(float(torch.linalg.cross(a, b).norm()), float(a @ b)))
