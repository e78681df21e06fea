"""Rows of kitchen units: base cabinets under one worktop, and wall cabinets above them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ff3r_model.synthetic.furnished import surfaces
from ff3r_model.synthetic.furnished.meshes import Material, Mesh
from ff3r_model.synthetic.furnished.scene import box
from ff3r_model.synthetic.furnished.shell import Wall

BASE_HEIGHT, BASE_DEPTH = 0.86, 0.58
TOP = 0.04
"""Thickness of the worktop."""
WALL_BOTTOM, WALL_HEIGHT, WALL_DEPTH = 1.42, 0.7, 0.35
PLINTH = 0.1


@dataclass(frozen=True)
class Unit:
    """A piece of a row."""

    class_name: str
    meshes: tuple[Mesh, ...]


@dataclass(frozen=True)
class Style:
    """What all units of a kitchen share."""

    carcass: Material
    front: Material
    handle: Material
    worktop: Material
    gap: float
    upright: bool
    """Whether handles are upright."""


def draw_style(rng: np.random.Generator) -> Style:
    """Colours and handles of a kitchen."""
    wooden = rng.random() < 0.4
    shade = rng.uniform(0.15, 0.98, 3) if rng.random() < 0.35 else np.full(3, rng.uniform(0.55, 0.98))
    color = (float(shade[0]), float(shade[1]), float(shade[2]))
    front = Material((1.0, 1.0, 1.0), surfaces.planks(rng)) if wooden else Material(color, None)
    metal = float(rng.choice([0.15, 0.6, 0.85]))
    top = Material((1.0, 1.0, 1.0), surfaces.marble(rng) if rng.random() < 0.6 else surfaces.planks(rng))
    carcass = Material((color[0] * 0.85, color[1] * 0.85, color[2] * 0.85), None)
    return Style(carcass, front, Material((metal, metal, metal), None), top, 0.004, bool(rng.random() < 0.5))


def kitchen_row(rng: np.random.Generator, wall: Wall, start: float, end: float, style: Style) -> Iterator[Unit]:
    """Base cabinets from `start` to `end` along a wall under one worktop, and wall cabinets over part of them."""
    count = max(1, round((end - start) / rng.uniform(0.45, 0.65)))
    edges = np.linspace(start, end, count + 1)
    for left, right in pairwise(edges):
        drawers = int(rng.choice([1, 1, 3, 4]))
        yield _cabinet(wall, (left, right), (PLINTH, BASE_HEIGHT), BASE_DEPTH, drawers, style)
    yield Unit("worktop", tuple(_block(wall, (start, end), (BASE_HEIGHT, BASE_HEIGHT + TOP), BASE_DEPTH + 0.02,
                                       style.worktop)))  # fmt: skip
    for left, right in pairwise(edges):
        if rng.random() < 0.6 and all(right < each.start or left > each.end for each in wall.openings):
            yield _cabinet(wall, (left, right), (WALL_BOTTOM, WALL_BOTTOM + WALL_HEIGHT), WALL_DEPTH, 1, style)


def _cabinet(
    wall: Wall, along: tuple[float, float], levels: tuple[float, float], depth: float, fronts: int, style: Style
) -> Unit:
    """A carcass with one door, or with so many drawers."""
    bottom, top = levels
    meshes = _block(wall, along, levels, depth, style.carcass)
    edges = np.linspace(bottom, top, fronts + 1)
    for low, high in pairwise(edges):
        inner = (along[0] + style.gap, along[1] - style.gap)
        meshes += _block(wall, inner, (low + style.gap, high - style.gap), depth + 0.018, style.front, from_=depth)
        meshes += _handle(wall, inner, (low, high), depth + 0.018, style, fronts == 1)
    return Unit("cabinet", tuple(meshes))


def _handle(
    wall: Wall, along: tuple[float, float], levels: tuple[float, float], depth: float, style: Style, door: bool
) -> list[Mesh]:
    middle = (along[0] + along[1]) / 2
    if door and style.upright:
        place = along[1] - 0.05
        level = levels[0] + 0.06 if levels[0] > 1 else levels[1] - 0.22
        return _block(wall, (place, place + 0.012), (level, level + 0.15), depth + 0.025, style.handle, from_=depth)
    level = levels[0] + 0.05 if levels[0] > 1 else levels[1] - 0.06
    span = (middle - 0.07, middle + 0.07)
    return _block(wall, span, (level, level + 0.012), depth + 0.025, style.handle, from_=depth)


def _block(
    wall: Wall,
    along: tuple[float, float],
    levels: tuple[float, float],
    depth: float,
    material: Material,
    from_: float = 0.002,
) -> list[Mesh]:
    """A box in front of a wall."""
    corners = np.stack([wall.at(along[0], from_, levels[0]), wall.at(along[1], depth, levels[1])])
    return box(corners.min(0), corners.max(0), 0.8, material)
