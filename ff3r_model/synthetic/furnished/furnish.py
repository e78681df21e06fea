"""Furnishing: which models a room holds, and where they stand without running into each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ff3r_model.synthetic.furnished.library import TRIES, Library
from ff3r_model.synthetic.furnished.meshes import Mesh
from ff3r_model.synthetic.furnished.models import Model
from ff3r_model.synthetic.furnished.shell import Wall, Zone

GAP = 0.03
"""Metres between things, and between things and walls."""
DOORWAY_CLEARANCE = 0.9

AGAINST_WALLS = {
    "kitchen": ("refrigerator", "washing machine", "oven", "cabinet", "shelf", "drawers", "bench", "radiator"),
    "living room": ("sofa", "bookshelf", "cabinet", "tv stand", "shelf", "fireplace", "piano", "drawers", "radiator"),
    "bedroom": ("bed", "bunk bed", "wardrobe", "nightstand", "drawers", "desk", "crib", "shelf", "radiator"),
    "office": ("desk", "bookshelf", "cabinet", "shelf", "printer", "drawers", "radiator", "sofa"),
    "bathroom": ("toilet", "bathtub", "shower", "sink", "washing machine", "shelf", "radiator", "basket"),
    "hall": ("shelf", "bench", "cabinet", "drawers", "wardrobe", "radiator", "bicycle", "bookshelf"),
}
IN_THE_ROOM = {
    "kitchen": ("table", "chair", "chair", "stool", "bar stool", "high chair", "trash can", "plant"),
    "living room": ("coffee table", "table", "armchair", "chair", "plant", "lamp", "guitar", "stool", "loudspeaker"),
    "bedroom": ("chair", "armchair", "plant", "lamp", "toy", "basket", "stool", "fitness machine"),
    "office": ("office chair", "chair", "table", "plant", "lamp", "trash can", "armchair", "box"),
    "bathroom": ("trash can", "basket", "stool", "scale", "plant"),
    "hall": ("plant", "suitcase", "box", "shoe", "bag", "table tennis", "vacuum cleaner", "chair"),
}
ON_TOP = {
    "kitchen": ("cup", "plate", "bowl", "bottle", "kettle", "toaster", "coffee machine", "microwave", "blender", "pan",
                "food", "scale", "cutlery", "wine glass"),
    "living room": ("vase", "book", "cup", "bottle", "television", "loudspeaker", "flower pot", "bowl", "clock", "toy",
                    "telephone", "wine glass", "plant"),
    "bedroom": ("desk lamp", "clock", "book", "toy", "telephone", "box", "vase", "clothes"),
    "office": ("monitor", "keyboard", "laptop", "book", "desk lamp", "telephone", "cup", "pen", "tool", "computer"),
    "bathroom": ("bottle", "toilet paper", "cup", "towel", "vase"),
    "hall": ("vase", "bag", "telephone", "clothes", "bottle", "tool", "box"),
}  # fmt: skip
ON_THE_FLOOR = ("box", "basket", "ball", "toy", "shoe", "bag", "book", "suitcase", "trash can", "animal", "object")
KINDS = tuple(AGAINST_WALLS)
SMALL = 0.6
"""Metres: the largest side of what stands on something else."""
REACH = 3.4
"""Metres: larger things are left out."""


@dataclass(frozen=True)
class Placed:
    """A model in a room."""

    model: Model
    mesh: Mesh
    size: Float[ndarray, " 3"]
    """Width, depth and height, metres."""
    place: Float[ndarray, " 3"]
    """Of the middle of its foot."""
    yaw: float
    """Radians about z; at 0 its front looks along -y."""
    stands: bool = True
    """Whether it stands on the floor, in a robot's way."""

    @property
    def turn(self) -> Float[ndarray, "3 3"]:
        """Rotation about z."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

    def placed_mesh(self) -> Mesh:
        """The mesh in the world."""
        corners = (self.mesh.corners * self.size) @ self.turn.T + self.place
        normals = (self.mesh.normals / np.maximum(self.size, 0.02)) @ self.turn.T
        length = np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        unit = np.where(length > 1e-6, 127 * normals / length, 0)
        return replace(self.mesh, corners=corners.astype(np.float32), normals=unit.astype(np.int8))

    @property
    def footprint(self) -> Float[ndarray, " 4"]:
        """Bounding rectangle on the floor: low x, low y, high x, high y."""
        half = np.abs(self.turn[:2, :2]) @ self.size[:2] / 2
        return np.concatenate([self.place[:2] - half, self.place[:2] + half])


class Furnisher:
    """Fills one zone of a building."""

    def __init__(
        self, rng: np.random.Generator, library: Library, zone: Zone, walls: Sequence[Wall], height: float
    ) -> None:
        self.rng, self.library, self.zone, self.walls, self.height = rng, library, zone, walls, height
        self.things: list[Placed] = []
        self._taken = [_before(wall, opening.start, opening.end) for wall in walls for opening in wall.openings
                       if opening.bottom < 0.2]  # fmt: skip

    def furnish(self) -> list[Placed]:
        """Large things along the walls, others in the room, small ones on top of them, some on the walls."""
        area = float(self.zone.size.prod())
        for _ in range(int(self.rng.integers(2, 4 + int(area / 4)))):
            self._against_wall(AGAINST_WALLS[self.zone.kind])
        for _ in range(int(self.rng.integers(1, 3 + int(area / 5)))):
            self._in_room(IN_THE_ROOM[self.zone.kind])
        self._seats()
        for host in list(self.things):
            self._on_top(host)
        for _ in range(int(self.rng.integers(0, 4))):
            self._in_room(ON_THE_FLOOR, small=True)
        if self.rng.random() < 0.12:
            self._in_room(("person",))
        for _ in range(int(self.rng.integers(0, 4))):
            self._on_wall()
        return self.things

    def occupy(self, wall: Wall, start: float, end: float, depth: float) -> None:
        """Keep the floor before a part of a wall for something else."""
        corners = np.stack([wall.at(start, 0.0, 0.0)[:2], wall.at(end, depth, 0.0)[:2]])
        self._taken.append(np.concatenate([corners.min(0), corners.max(0)]))

    def _scaled(self, model: Model) -> Float[ndarray, " 3"]:
        return np.array(model.size) * self.rng.uniform(0.88, 1.12) * self.rng.uniform(0.95, 1.05, 3)

    def _stands(self, model: Model) -> bool:
        tall = model.size[2] < self.height - 0.1
        return tall and model.elevation < 0.3 and max(model.size[:2]) < REACH and not model.opening

    def _against_wall(self, names: Sequence[str]) -> None:
        """Its back to a wall, its front to the room."""
        found = self.library.pick(self.rng, names, self._stands)
        if found is None:
            return
        model, mesh = found
        size = self._scaled(model)
        for _ in range(TRIES):
            wall = self.walls[int(self.rng.integers(len(self.walls)))]
            if size[0] > wall.length - 0.1:
                continue
            start = self.rng.uniform(0.05, wall.length - size[0] - 0.05)
            blocks = [each for each in wall.openings if each.bottom < size[2]]
            if any(start < each.end and start + size[0] > each.start for each in blocks):
                continue
            place = wall.at(start + size[0] / 2, size[1] / 2 + GAP, model.elevation)
            if self._put(Placed(model, mesh, size, place, facing(wall.inward))):
                return

    def _in_room(self, names: Sequence[str], small: bool = False) -> None:
        """Anywhere on the floor, turned as it comes."""
        found = self.library.pick(self.rng, names, lambda model: self._stands(model) and (not small or _small(model)))
        if found is None:
            return
        model, mesh = found
        size = self._scaled(model)
        for _ in range(TRIES):
            place = np.array([*self.rng.uniform(self.zone.low + 0.2, self.zone.high - 0.2), model.elevation])
            yaw = float(self.rng.integers(4) * np.pi / 2 + self.rng.normal(0, 0.25))
            if self._put(Placed(model, mesh, size, place, yaw)):
                return

    def _seats(self) -> None:
        """Chairs around tables and before desks, facing them."""
        for host in list(self.things):
            if host.model.class_name not in ("table", "desk") or host.model.size[2] < 0.6:
                continue
            names = ("chair",) if host.model.class_name == "table" else ("office chair", "chair", "stool")
            found = self.library.pick(self.rng, names, self._stands)
            if found is None:
                continue
            sides = (0,) if host.model.class_name == "desk" else self.rng.permutation(4)[: self.rng.integers(1, 5)]
            for side in sides:
                self._seat(host, found, int(side))

    def _seat(self, host: Placed, found: tuple[Model, Mesh], side: int) -> None:
        model, mesh = found
        size = np.array(model.size)
        out = host.turn @ np.array([(0, -1, 0), (1, 0, 0), (0, 1, 0), (-1, 0, 0)][side], np.float64)
        reach = (host.size[1] if side % 2 == 0 else host.size[0]) / 2 + size[1] / 2 + self.rng.uniform(0.02, 0.3)
        place = np.array([*(host.place[:2] + out[:2] * reach), model.elevation])
        self._put(Placed(model, mesh, size, place, facing(-out[:2]) + float(self.rng.normal(0, 0.15))))

    def _on_top(self, host: Placed) -> None:
        """Small things where the catalogue says that things stand."""
        if host.model.top is None or not 0.25 < host.model.top < 1.6 or host.model.class_name in ("bed", "sofa"):
            return
        level = host.place[2] + host.model.top * host.size[2] / host.model.size[2]
        spots: list[ndarray] = []
        for _ in range(int(self.rng.integers(0, 5))):
            found = self.library.pick(self.rng, ON_TOP[self.zone.kind], _small)
            if found is None:
                continue
            model, mesh = found
            size = self._scaled(model)
            room = host.size[:2] / 2 - size[:2].max() / 2
            if (room < 0).any():
                continue
            offset = self.rng.uniform(-room, room) * 0.9
            place = np.array([*(host.place + host.turn @ np.array([*offset, 0.0]))[:2], level])
            if any(np.linalg.norm(place[:2] - other[:2]) < (size[:2].max() + other[2]) / 2 for other in spots):
                continue
            spots.append(np.array([*place[:2], size[:2].max()]))
            yaw = host.yaw + float(self.rng.normal(0, 0.4))
            self.things.append(Placed(model, mesh, size, place, yaw, stands=False))

    def _on_wall(self) -> None:
        """Clocks, mirrors, shelves, lamps and whatever else hangs, at the height that the catalogue says."""
        names = ("clock", "mirror", "lamp", "shelf", "cabinet", "television", "towel", "socket", "radiator", "fan")

        def hangs(model: Model) -> bool:
            return model.elevation >= 0.6 and model.elevation + model.size[2] < self.height

        found = self.library.pick(self.rng, names, hangs)
        if found is None:
            return
        model, mesh = found
        size = np.array(model.size)
        wall = self.walls[int(self.rng.integers(len(self.walls)))]
        if size[0] > wall.length - 0.3:
            return
        start = self.rng.uniform(0.1, wall.length - size[0] - 0.1)
        if wall.free(start, start + size[0]):
            place = wall.at(start + size[0] / 2, size[1] / 2 + 0.005, model.elevation)
            self.things.append(Placed(model, mesh, size, place, facing(wall.inward), stands=False))

    def _put(self, thing: Placed) -> bool:
        """Whether it fits where it is; then it stays."""
        footprint = thing.footprint
        inside = (footprint[:2] >= self.zone.low).all() and (footprint[2:] <= self.zone.high).all()
        if not inside or any(_overlap(footprint, other) for other in self._taken):
            return False
        self._taken.append(footprint)
        self.things.append(thing)
        return True


def facing(direction: Float[ndarray, " 2"]) -> float:
    """The yaw at which a front, -y at 0, looks along a direction on the floor."""
    return float(np.arctan2(direction[0], -direction[1]))


def _before(wall: Wall, start: float, end: float) -> Float[ndarray, " 4"]:
    """The floor before an opening that one walks through."""
    corners = np.stack([wall.at(start, 0.0, 0.0)[:2], wall.at(end, DOORWAY_CLEARANCE, 0.0)[:2]])
    return np.concatenate([corners.min(0), corners.max(0)])


def _overlap(a: Float[ndarray, " 4"], b: Float[ndarray, " 4"]) -> bool:
    return bool((a[:2] - GAP < b[2:]).all() and (b[:2] - GAP < a[2:]).all())


def _small(model: Model) -> bool:
    return max(model.size) < SMALL and model.elevation < 0.3 and not model.opening
