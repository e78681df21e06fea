"""The solids that furniture is made of, and how models are turned and moved.

Each solid is an affine image of a unit solid: the cube [-1, 1]³, the unit sphere, or a frustum around z from radius 1
at z = -1 to radius `taper` at z = 1 (a cylinder where taper is 1, a cone where it is 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

BOX, ELLIPSOID, FRUSTUM, PLANE = range(4)
"""Kinds of solids; PLANE is a face of the room's own shell."""

Number = int | float
Span = tuple[Number, Number]
"""From and to, metres."""

UNIT_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)


@dataclass(frozen=True)
class Part:
    """One solid of a model, in the model's frame (metres)."""

    kind: int
    centre: np.ndarray
    half: np.ndarray
    """Half extents along the solid's own axes."""
    paint: str
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    taper: float = 1.0

    @property
    def corners(self) -> np.ndarray:
        """The eight corners of the bounding box along the solid's own axes."""
        return (UNIT_CORNERS * self.half) @ self.rotation.T + self.centre


@dataclass(frozen=True)
class Model:
    """A thing before it is placed: stands on z = 0 around the origin, its front towards +y, its back towards -y."""

    parts: tuple[Part, ...]
    top: tuple[Number, Number, Number, Number, Number] | None = None
    """Where things can stand on it: x from, x to, y from, y to, height."""

    @property
    def bounds(self) -> np.ndarray:
        """Lowest and highest corner of the axis-aligned bounding box, 2×3."""
        return part_bounds(self.parts)


def part_bounds(parts: Sequence[Part]) -> np.ndarray:
    """Lowest and highest corner of the parts' axis-aligned bounding box, 2×3."""
    corners = np.concatenate([part.corners for part in parts])
    return np.stack([corners.min(0), corners.max(0)])


def turn(degrees: Number, axis: str = "z") -> np.ndarray:
    """A rotation matrix about a coordinate axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rows = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.array(rows[axis], dtype=np.float64)


def moved(parts: Sequence[Part], rotation: np.ndarray, offset: Sequence[Number] | np.ndarray) -> tuple[Part, ...]:
    """The parts turned about the origin, then shifted."""
    return tuple(
        replace(part, centre=rotation @ part.centre + np.asarray(offset), rotation=rotation @ part.rotation)
        for part in parts
    )


def box(x: Span, y: Span, z: Span, paint: str = "main") -> Part:
    """The box that spans the given intervals."""
    spans = np.array([x, y, z], dtype=np.float64)
    return Part(BOX, spans.mean(1), (spans[:, 1] - spans[:, 0]) / 2, paint)


def ball(centre: Sequence[Number], half: Sequence[Number] | np.ndarray, paint: str = "main") -> Part:
    """The ellipsoid with the given half axes."""
    return Part(ELLIPSOID, np.array(centre, dtype=np.float64), np.array(half, dtype=np.float64), paint)


def tube(x: Number, y: Number, z: Span, bottom: Number, top: Number | None = None, paint: str = "main") -> Part:
    """An upright frustum with the given radii at its two ends (a cylinder without `top`, a cone with top 0)."""
    top = bottom if top is None else top
    wide, height = max(bottom, top), (z[1] - z[0]) / 2
    upside = np.eye(3) if top <= bottom else turn(180, "x")
    centre = np.array([x, y, (z[0] + z[1]) / 2])
    return Part(FRUSTUM, centre, np.array([wide, wide, height]), paint, upside, min(bottom, top) / wide)
