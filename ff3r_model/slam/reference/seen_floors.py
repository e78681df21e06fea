"""Floors that windows saw below the camera: which of them is the floor of the place, and which was a table."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from ff3r_model.core.geometry import apply_similarity
from ff3r_model.core.types import Similarity
from ff3r_model.slam.reference.floor import FloorEstimate

AROUND = 4.0
"""Camera heights; what lies farther off may lie lower: the map drifts, and there are stairs."""
LOWER = 0.2
"""Share of the camera's height by which a plane must lie below another to be another one."""
MAX_UNDER = 0.03
"""Share of what was seen around the cameras that may lie under the floor: noise, and mirrors."""
MIN_AROUND = 500
"""Points without which nothing is said of what lies under a floor."""


class SeenFloors:
    """The floors that the newest windows saw, each with the cameras above it, in the map's frame and unit."""

    def __init__(self, height: float, memory: int) -> None:
        """`height`: metres of the camera above the floor, where that was stated; `memory`: windows remembered."""
        self.height = height
        self._floors: deque[FloorEstimate] = deque(maxlen=memory)

    def __len__(self) -> int:
        return len(self._floors)

    def add(self, floor: FloorEstimate) -> None:
        """Remember what a window saw; its scale is metres per unit of the map."""
        assert floor.centre is not None
        self._floors.append(floor)

    @property
    def scales(self) -> Float[Tensor, " n"]:
        """Metres per unit of the map, by each window's plane."""
        return torch.tensor([floor.scale for floor in self._floors], dtype=torch.float64)

    @property
    def normal(self) -> Float[Tensor, " 3"]:
        """Up, by all of them."""
        return normalize(torch.stack([floor.normal for floor in self._floors]).double().mean(0), dim=0)

    @property
    def lowest(self) -> Bool[Tensor, " n"]:
        """Which windows saw the lowest plane that any window near them saw: the others saw a table, or a stair."""
        centres, below = self._centres, self.height / self.scales
        levels = centres @ self.normal - below
        near = _apart(centres, centres, self.normal) < AROUND * below[:, None]
        deeper = levels[None] < (levels - LOWER * below)[:, None]
        return ~(near & deeper).any(dim=1)

    def under(self, points: Float[Tensor, "n 3"]) -> float:
        """The share of a map's points around the cameras that lies under the floor; much of it, and it was a table."""
        lowest = self.lowest
        centres, below = self._centres[lowest], (self.height / self.scales)[lowest]
        apart = _apart(points.double(), centres, self.normal)
        nearest = apart.argmin(dim=1)
        around = apart.gather(1, nearest[:, None])[:, 0] < AROUND * below[nearest]
        if int(around.sum()) < MIN_AROUND:
            return 0.0
        level = (centres @ self.normal - (1 + LOWER) * below)[nearest]
        return float((points.double() @ self.normal < level)[around].double().mean())

    def transform(self, new_from_old: Similarity) -> None:
        """The map has moved, and its unit may be another."""
        turn, moved = new_from_old.rotation, []
        for floor in self._floors:
            assert floor.centre is not None
            normal = turn.to(floor.normal) @ floor.normal
            centre = apply_similarity(new_from_old, floor.centre[None])[0]
            moved.append(replace(floor, scale=floor.scale / new_from_old.scale, normal=normal, centre=centre))
        self._floors.clear()
        self._floors.extend(moved)

    def state(self) -> list[dict[str, Any]]:
        """For a file; JSON can hold it."""
        vectors = [(floor.normal.tolist(), floor.centre.tolist()) for floor in self._floors if floor.centre is not None]
        return [
            {**asdict(floor), "normal": normal, "centre": centre}
            for floor, (normal, centre) in zip(self._floors, vectors, strict=True)
        ]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Take over what `state` gave; floors of older files, which do not say where they were seen, are left out."""
        for floor in state:
            normal, centre = torch.tensor(floor["normal"]), floor.get("centre")
            if centre is not None:
                self.add(FloorEstimate(floor["scale"], floor["confidence"], normal, torch.tensor(centre)))

    @property
    def _centres(self) -> Float[Tensor, "n 3"]:
        return torch.stack([floor.centre for floor in self._floors if floor.centre is not None]).double()


def _apart(a: Float[Tensor, "n 3"], b: Float[Tensor, "m 3"], up: Float[Tensor, " 3"]) -> Float[Tensor, "n m"]:
    """Horizontal distances."""
    flat = torch.eye(3, dtype=torch.float64) - up[:, None] * up
    return torch.cdist(a @ flat, b @ flat)
