"""Walls, floors, ceilings, windows and doorways of one or two rooms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ff3r_model.synthetic.furnished import surfaces
from ff3r_model.synthetic.furnished.meshes import Material, Mesh
from ff3r_model.synthetic.furnished.scene import box, quad

WALL = 0.12
"""Thickness of walls, metres."""
DOOR_HEIGHT = 2.05
BACKDROP = 25.0
"""Metres to what is seen through the windows."""
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Zone:
    """One room of a building: a rectangle of floor."""

    low: Float[ndarray, " 2"]
    high: Float[ndarray, " 2"]
    kind: str

    @property
    def size(self) -> Float[ndarray, " 2"]:
        """Metres along x and y."""
        return self.high - self.low


@dataclass(frozen=True)
class Opening:
    """A window or a doorway in a wall: where along it, and how high."""

    start: float
    end: float
    bottom: float
    top: float


@dataclass(frozen=True)
class Wall:
    """A wall of a zone seen from inside: from `start` by `along`, its inward normal, and what it opens to."""

    start: Float[ndarray, " 2"]
    along: Float[ndarray, " 2"]
    length: float
    inward: Float[ndarray, " 2"]
    openings: tuple[Opening, ...]
    outer: bool

    def at(self, distance: float, depth: float, height: float) -> Float[ndarray, " 3"]:
        """A point so far along the wall, in front of it, and above the floor."""
        return np.array([*(self.start + self.along * distance + self.inward * depth), height])

    def free(self, start: float, end: float) -> bool:
        """Whether no opening lies between two places along the wall."""
        return all(end < each.start or start > each.end for each in self.openings)


@dataclass(frozen=True)
class Shell:
    """A building without its furniture."""

    low: Float[ndarray, " 3"]
    high: Float[ndarray, " 3"]
    zones: tuple[Zone, ...]
    walls: tuple[tuple[Wall, ...], ...]
    """Of each zone."""


def draw_shell(rng: np.random.Generator, kinds: tuple[str, ...]) -> Shell:
    """A building of one room, or of two with an open door between them; the origin is in the middle of the floor."""
    two = len(kinds) > 1
    size = rng.uniform([3.2, 3.0, 2.3], [8.0, 5.0, 3.0]) if not two else rng.uniform([5.5, 3.0, 2.3], [9.5, 5.0, 2.9])
    low, high = np.array([-size[0] / 2, -size[1] / 2, 0.0]), np.array([size[0] / 2, size[1] / 2, size[2]])
    if not two:
        zones = (Zone(low[:2], high[:2], kinds[0]),)
        return Shell(low, high, zones, (_walls(rng, zones[0], (None, None), size[2]),))
    middle = rng.uniform(low[0] + 2.4, high[0] - 2.4)
    door = float(rng.uniform(0.3, size[1] - 1.3))
    doorway = Opening(door, door + rng.uniform(0.8, 1.0), 0.0, DOOR_HEIGHT)
    mirrored = replace(doorway, start=size[1] - doorway.end, end=size[1] - doorway.start)
    left = Zone(low[:2], np.array([middle - WALL / 2, high[1]]), kinds[0])
    right = Zone(np.array([middle + WALL / 2, low[1]]), high[:2], kinds[1])
    walls = (_walls(rng, left, (None, mirrored), size[2]), _walls(rng, right, (doorway, None), size[2]))
    return Shell(low, high, (left, right), walls)


def _walls(
    rng: np.random.Generator, zone: Zone, doorways: tuple[Opening | None, Opening | None], height: float
) -> tuple[Wall, ...]:
    """Four walls: low x, high x, low y, high y; the first two may have a doorway to the other zone."""
    (x0, y0), (x1, y1) = zone.low, zone.high
    sides = (  # each runs to the right of one who looks at it from inside
        ((x0, y0), (0, 1), y1 - y0, (1, 0)),
        ((x1, y1), (0, -1), y1 - y0, (-1, 0)),
        ((x1, y0), (-1, 0), x1 - x0, (0, 1)),
        ((x0, y1), (1, 0), x1 - x0, (0, -1)),
    )
    walls = []
    for number, (start, along, length, inward) in enumerate(sides):
        doorway = doorways[number] if number < 2 else None
        openings = (doorway,) if doorway is not None else _windows(rng, length, height)
        vectors = (np.array(each, np.float64) for each in (start, along, inward))
        first, direction, normal = vectors
        walls.append(Wall(first, direction, float(length), normal, openings, doorway is None))
    return tuple(walls)


def _windows(rng: np.random.Generator, length: float, height: float) -> tuple[Opening, ...]:
    if rng.random() < 0.55 or length < 2:
        return ()
    width = rng.uniform(0.8, min(2.4, length - 0.8))
    start = rng.uniform(0.4, length - width - 0.4)
    bottom = rng.choice([0.9, 0.5, 0.05], p=[0.7, 0.2, 0.1])
    return (Opening(start, start + width, bottom, min(height - 0.15, bottom + rng.uniform(1.0, 1.5) + 0.9 - bottom)),)


def panels(wall: Wall, height: float) -> Iterator[tuple[float, float, float, float]]:
    """The wall without its openings, as rectangles: start and end along it, bottom and top."""
    at = 0.0
    for opening in sorted(wall.openings, key=lambda each: each.start):
        yield at, opening.start, 0.0, height
        if opening.bottom > 0:
            yield opening.start, opening.end, 0.0, opening.bottom
        yield opening.start, opening.end, opening.top, height
        at = opening.end
    yield at, wall.length, 0.0, height


def wall_meshes(rng: np.random.Generator, wall: Wall, height: float, paint: Material) -> list[Mesh]:
    """Panels of a wall, and the reveals of its openings."""
    tile = float(rng.uniform(1.0, 3.0))
    up = np.array([0.0, 0.0, 1.0])
    along = np.array([*wall.along, 0.0])
    found = []
    for start, end, bottom, top in panels(wall, height):
        if end - start > 1e-3 and top - bottom > 1e-3:
            found.append(quad(wall.at(start, 0.0, bottom), along * (end - start), up * (top - bottom), tile, paint))
    outward = np.array([*-wall.inward, 0.0]) * WALL
    for each in wall.openings:
        for place in (each.start, each.end):
            found.append(quad(wall.at(place, 0.0, each.bottom), outward, up * (each.top - each.bottom), tile, paint))
        for level in (each.bottom, each.top):
            found.append(quad(wall.at(each.start, 0.0, level), along * (each.end - each.start), outward, tile, paint))
    return found


def window_frame(rng: np.random.Generator, wall: Wall, opening: Opening) -> list[Mesh]:
    """Frame, and bars between its panes."""
    shade = float(rng.choice([0.95, 0.9, 0.35, 0.1]))
    wood = Material((shade, shade * float(rng.uniform(0.8, 1.0)), shade * float(rng.uniform(0.6, 1.0))), None)
    bar, depth = float(rng.uniform(0.03, 0.07)), -WALL * 0.6
    across = [opening.start, *np.linspace(opening.start, opening.end, int(rng.integers(2, 4)))[1:-1], opening.end - bar]
    posts = [(start, start + bar, opening.bottom, opening.top) for start in across]
    beams = [(opening.start, opening.end, level, level + bar) for level in (opening.bottom, opening.top - bar)]
    found: list[Mesh] = []
    for start, end, bottom, top in [*posts, *beams]:
        corners = np.stack([wall.at(start, depth, bottom), wall.at(end, depth + 0.05, top)])
        found += box(corners.min(0), corners.max(0), 1.0, wood)
    return found


def backdrop(rng: np.random.Generator, shell: Shell) -> list[Mesh]:
    """What is outside: four far pictures, a ground and a sky."""
    far = np.array([BACKDROP, BACKDROP])
    low, high = shell.low[:2] - far, shell.high[:2] + far
    view, found = Material(WHITE, surfaces.outdoors(rng)), []
    up, bottom = np.array([0.0, 0.0, 30.0]), -12.0
    for corner, along in (
        ((low[0], low[1]), (high[0] - low[0], 0)),
        ((low[0], high[1]), (high[0] - low[0], 0)),
        ((low[0], low[1]), (0, high[1] - low[1])),
        ((high[0], low[1]), (0, high[1] - low[1])),
    ):
        found.append(quad(np.array([*corner, bottom]), np.array([*along, 0.0]), up, 30.0, view))
    span = np.array([high[0] - low[0], 0.0, 0.0]), np.array([0.0, high[1] - low[1], 0.0])
    ground = Material((0.35, 0.38, 0.3), None)
    sky = Material((0.6, 0.75, 0.95), None)
    found.append(quad(np.array([*low, -0.3 - rng.uniform(0, 6)]), *span, 4.0, ground))
    found.append(quad(np.array([*low, 18.0]), *span, 4.0, sky))
    return found
