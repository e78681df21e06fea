"""A corridor round a block, long enough to lose one's way in: a world for mapping, with a tour that closes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.synthetic import furniture as f
from ff3r_model.synthetic import objects as o
from ff3r_model.synthetic.camera import look_along
from ff3r_model.synthetic.furniture import Builder
from ff3r_model.synthetic.layout import Layout
from ff3r_model.synthetic.primitives import Model, box, part_bounds
from ff3r_model.synthetic.rooms import Room, assemble, draw_lighting

CORRIDOR = 4.0
"""Metres between the outer walls and the block."""
HEIGHT = 2.8
CORNER = 1.2
"""Metres of the tour's radius where it turns."""
SPACING = 0.9
"""Metres along the tour between attempts to place a thing, on either side."""
FREE = 0.7
"""Metres on both sides of the tour where nothing stands."""
TOUCH = 0.06
"""Metres by which the block is taken for smaller, so that things may stand against it."""
CAMERA_HEIGHT = 1.1
PITCH = -8.0
"""Degrees; the camera looks slightly down."""
ON_FLOOR: tuple[tuple[str, Builder], ...] = (
    ("cabinet", f.cabinet), ("bookshelf", f.bookshelf), ("refrigerator", f.refrigerator), ("box", o.carton),
    ("plant", o.plant), ("chair", f.chair), ("lamp", o.lamp), ("trash can", o.trash_can), ("fireplace", f.fireplace),
    ("stool", f.stool), ("sink", f.sink),
)  # fmt: skip
ON_WALL: tuple[tuple[str, Builder], ...] = (("picture", o.picture), ("clock", o.clock), ("door", o.door))


def make_hall(seed: int, length: float = 100.0) -> Room:
    """A rectangular corridor whose middle line is `length` metres long, cluttered along both walls."""
    rng = np.random.default_rng([seed, 11])
    middle = _sides(length)
    high = np.array([*(middle / 2 + CORRIDOR / 2), HEIGHT])
    low = high * [-1, -1, 0]
    layout = Layout(low, high, rng)
    x, y = middle / 2 - CORRIDOR / 2
    block = Model((box((-x, x), (-y, y), (0, HEIGHT)),))
    layout.add("wall", block, block.parts, 0.0, (0.0, 0.0, 0.0), part_bounds(block.parts))
    layout.taken[-1] += np.array([[TOUCH] * 3, [-TOUCH] * 3])
    for point, normal in _stations(middle):
        _furnish(layout, point, normal, rng)
    return assemble(seed, low, high, draw_lighting(low, high, rng), layout.things, rng)


def hall_tour(length: float, step: float, extra: float = 6.0) -> Float[Tensor, "views 4 4"]:
    """world_from_camera along the corridor's middle, looking ahead: once round, and `extra` metres of it again."""
    path = _loop(_sides(length))
    closed = np.concatenate([path, path[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    wanted = np.arange(0, along[-1] + extra, step)

    def at(distance: np.ndarray) -> np.ndarray:
        return np.column_stack([np.interp(distance % along[-1], along, closed[:, axis]) for axis in range(2)])

    ahead = at(wanted + CORNER) - at(wanted)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    forward = np.column_stack([ahead, np.full(len(ahead), np.tan(np.radians(PITCH)))])
    centre = np.column_stack([at(wanted), np.full(len(ahead), CAMERA_HEIGHT)])
    count = len(wanted)
    return look_along(
        torch.tensor(centre, dtype=torch.float32), torch.tensor(forward, dtype=torch.float32), torch.zeros(count)
    )


def _sides(length: float) -> np.ndarray:
    """Of the middle line's rectangle, whose corners are rounded."""
    if length < 8 * CORRIDOR:
        raise ValueError(f"a hall of {length} m has no room for a corridor {CORRIDOR} m wide: {8 * CORRIDOR} m or more")
    half = (length + (8 - 2 * np.pi) * CORNER) / 2
    return np.array([0.54, 0.46]) * half


def _loop(sides: np.ndarray) -> np.ndarray:
    """The middle line, anticlockwise, a point every few centimetres at least in its corners."""
    x, y = sides / 2 - CORNER
    turn = np.linspace(0, np.pi / 2, 40)
    arcs = []
    for quarter, (cx, cy) in enumerate([(x, y), (-x, y), (-x, -y), (x, -y)]):
        angle = turn + quarter * np.pi / 2
        arcs.append(np.column_stack([cx + CORNER * np.cos(angle), cy + CORNER * np.sin(angle)]))
    return np.concatenate(arcs)


def _stations(sides: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points along the straight parts of the middle line, each with both directions across the corridor."""
    x, y = sides / 2
    found = []
    for axis in range(2):
        reach = (x, y)[axis] - CORRIDOR / 2
        for offset in np.arange(-reach, reach, SPACING):
            for side in (-1.0, 1.0):
                point = np.zeros(2)
                point[axis], point[1 - axis] = offset, side * (y, x)[axis]
                normal = np.zeros(2)
                normal[1 - axis] = 1.0
                found += [(point, normal), (point, -normal)]
    return found


def _furnish(layout: Layout, point: np.ndarray, normal: np.ndarray, rng: np.random.Generator) -> None:
    """Perhaps one thing on the floor and one on the wall, backs to the wall that `normal` points at."""
    for kinds, chance, height in ((ON_FLOOR, 0.6, 0.0), (ON_WALL, 0.35, rng.uniform(1.3, 1.8))):
        if rng.random() > chance:
            continue
        name, builder = kinds[int(rng.integers(len(kinds)))]
        model = builder(rng)
        back, front = model.bounds[0, 1], model.bounds[1, 1]
        if front - back > CORRIDOR / 2 - FREE:
            continue
        spot = point + normal * (CORRIDOR / 2 - 0.02 + back)
        yaw = float(np.degrees(np.arctan2(normal[0], -normal[1])))
        layout.try_place(name, model, yaw, (*spot, 0.0 if name == "door" else height))
