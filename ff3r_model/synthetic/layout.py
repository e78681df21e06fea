"""Layout of a room: furniture along walls and in the middle, things on walls and on furniture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ff3r_model.synthetic import furniture as f
from ff3r_model.synthetic import objects as o
from ff3r_model.synthetic.furniture import Builder
from ff3r_model.synthetic.primitives import Model, Part, moved, part_bounds, turn
from ff3r_model.synthetic.vocabulary import draw_color

Rng = np.random.Generator

ALONG_WALL: dict[str, Builder] = {
    "sofa": f.sofa, "bed": f.bed, "cabinet": f.cabinet, "bookshelf": f.bookshelf, "desk": f.desk,
    "refrigerator": f.refrigerator, "sink": f.sink, "toilet": f.toilet, "bathtub": f.bathtub,
    "fireplace": f.fireplace, "chair": f.chair, "table": f.table,
}  # fmt: skip
ON_FLOOR: dict[str, Builder] = {
    "chair": f.chair, "stool": f.stool, "lamp": o.lamp, "plant": o.plant, "box": o.carton, "ball": o.toy_ball,
    "trash can": o.trash_can, "pillow": o.pillow,
}  # fmt: skip
ON_TOP: dict[str, Builder] = {
    "lamp": o.table_lamp, "plant": o.pot_plant, "box": o.small_carton, "vase": o.vase, "mug": o.mug,
    "bottle": o.bottle, "book": o.book, "television": o.television, "monitor": o.monitor, "ball": o.toy_ball,
}  # fmt: skip
ON_SOFT: dict[str, Builder] = {"pillow": o.pillow, "book": o.book, "ball": o.toy_ball}
ON_WALL: dict[str, Builder] = {"picture": o.picture, "clock": o.clock}

THEMES: tuple[tuple[str, ...], ...] = (
    ("sofa", "fireplace", "bookshelf", "cabinet", "television"),
    ("bed", "cabinet", "desk", "lamp"),
    ("refrigerator", "sink", "cabinet", "table"),
    ("desk", "bookshelf", "monitor", "chair"),
    ("bathtub", "toilet", "sink"),
)
THEME_WEIGHT = 3.0
"""How much likelier a room's theme makes its furniture; other kinds stay possible everywhere."""
MARGIN = 0.04
"""Metres kept free between bounding boxes."""
MIN_THINGS, MAX_THINGS = 8, 20
ATTEMPTS = 12


@dataclass(frozen=True)
class Placed:
    """A thing where it stands in the room."""

    name: str
    color: str
    parts: tuple[Part, ...]
    yaw: float
    position: np.ndarray
    model: Model


@dataclass
class Layout:
    """A room being furnished."""

    low: np.ndarray
    high: np.ndarray
    rng: Rng
    things: list[Placed] = field(default_factory=list)
    taken: list[np.ndarray] = field(default_factory=list)
    """Bounding boxes, 2×3 each, that new things must not touch."""

    def try_place(self, name: str, model: Model, yaw: float, position: Sequence[float] | np.ndarray) -> Placed | None:
        """Add a thing if it fits inside the room and touches nothing."""
        parts = moved(model.parts, turn(yaw), position)
        bounds = part_bounds(parts)
        if not self.holds(bounds) or any(_overlap(bounds, other) for other in self.taken):
            return None
        return self.add(name, model, parts, yaw, position, bounds)

    def holds(self, bounds: np.ndarray) -> bool:
        """Whether a bounding box lies inside the room."""
        return bool((bounds[0] > self.low - 1e-6).all() and (bounds[1] < self.high + 1e-6).all())

    def add(
        self, name: str, model: Model, parts: tuple[Part, ...], yaw: float, position: Sequence[float] | np.ndarray,
        bounds: np.ndarray,
    ) -> Placed:  # fmt: skip
        """Add a thing that is known to fit."""
        placed = Placed(name, draw_color(name, self.rng), parts, yaw, np.asarray(position, dtype=np.float64), model)
        self.things.append(placed)
        self.taken.append(bounds)
        return placed

    def wall_pose(self, wall: int, along: float, model: Model, height: float, gap: float) -> tuple[float, np.ndarray]:
        """Yaw and position of a model with its back at a wall; `along` in [0, 1] runs over the places where it fits."""
        yaw = (270.0, 90.0, 0.0, 180.0)[wall]
        bounds = part_bounds(moved(model.parts, turn(yaw), (0, 0, 0)))
        first, last = self.low - bounds[0], self.high - bounds[1]
        position = first + along * (last - first)
        axis = wall // 2
        position[axis] = last[axis] - gap if wall % 2 else first[axis] + gap
        position[2] = height
        return yaw, position


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a[0] < b[1] + MARGIN).all() and (b[0] < a[1] + MARGIN).all())


def furnish(low: np.ndarray, high: np.ndarray, rng: Rng) -> list[Placed]:
    """8 to 20 things in a room that spans low to high."""
    layout = Layout(low, high, rng)
    area = float(np.prod((high - low)[:2]))
    theme = THEMES[int(rng.integers(len(THEMES)))]
    _doors_and_windows(layout)
    _along_walls(layout, theme, count=int(np.clip(area / 5, 3, 7)))
    _middle(layout, area)
    _on_floor(layout, count=int(rng.integers(1, 4)))
    _on_tops(layout, count=int(rng.integers(3, 7)))
    _on_walls(layout, count=int(rng.integers(1, 4)))
    for _ in range(MIN_THINGS):
        if len(layout.things) < MIN_THINGS:
            _on_floor(layout, 1)
            _on_walls(layout, 1)
    return layout.things[:MAX_THINGS]


def _at_wall(layout: Layout, name: str, builder: Builder, height: float = 0.0, gap: float = 0.0) -> Placed | None:
    model = builder(layout.rng)
    for _ in range(ATTEMPTS):
        wall, along = int(layout.rng.integers(4)), float(layout.rng.uniform())
        placed = layout.try_place(name, model, *layout.wall_pose(wall, along, model, height, gap))
        if placed is not None:
            return placed
    return None


def _doors_and_windows(layout: Layout) -> None:
    rng = layout.rng
    door = _at_wall(layout, "door", o.door)
    if door is not None:
        layout.taken[-1] = _swing(part_bounds(door.parts), door.yaw)
    for _ in range(int(rng.integers(0, 3))):
        pane = _at_wall(layout, "window", o.window, height=rng.uniform(1.35, 1.6))
        if pane is not None and rng.random() < 0.5:
            _hang_curtains(layout, pane)
    if rng.random() < 0.25:
        _at_wall(layout, "curtain", o.curtain, height=0.05)


def _swing(bounds: np.ndarray, yaw: float) -> np.ndarray:
    """A door's bounding box with the floor in front of it kept free."""
    front = turn(yaw) @ np.array([0.0, 0.8, 0.0])
    return np.stack([np.minimum(bounds[0], bounds[0] + front), np.maximum(bounds[1], bounds[1] + front)])


def _hang_curtains(layout: Layout, pane: Placed) -> None:
    half = pane.model.bounds[1, 0]
    model = o.curtain(layout.rng)
    for side in (-1, 1):
        offset = side * (half + 0.1 + MARGIN + model.bounds[1, 0])
        position = pane.position + turn(pane.yaw) @ np.array([offset, 0, 0])
        position[2] = 0.1
        layout.try_place("curtain", model, pane.yaw, position)


def _pick(choices: dict[str, Builder], theme: Sequence[str], rng: Rng) -> tuple[str, Builder]:
    names = list(choices)
    weights = np.array([THEME_WEIGHT if name in theme else 1.0 for name in names])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    return name, choices[name]


def _along_walls(layout: Layout, theme: Sequence[str], count: int) -> None:
    for _ in range(count):
        name, builder = _pick(ALONG_WALL, theme, layout.rng)
        _at_wall(layout, name, builder, gap=float(layout.rng.uniform(0.0, 0.05)))


def _middle(layout: Layout, area: float) -> None:
    """A rug in every other room, and in large rooms a table with chairs on it."""
    rng = layout.rng
    span = (layout.high - layout.low)[:2]
    centre = (layout.low + layout.high)[:2] / 2 + rng.uniform(-0.12, 0.12, 2) * span
    yaw = float(rng.choice([0.0, 90.0])) + rng.uniform(-8, 8)
    if rng.random() < 0.6:
        rug = o.rug(rng)
        parts = moved(rug.parts, turn(yaw), (*centre, 0.0))
        flat = np.zeros((2, 3)) - 10.0
        layout.add("rug", rug, parts, yaw, (*centre, 0.0), flat)
    if area > 22 and rng.random() < 0.7:
        table = layout.try_place("table", f.table(rng), yaw, (*centre, 0.0))
        if table is not None:
            _chairs_around(layout, table, int(rng.integers(1, 4)))


def _chairs_around(layout: Layout, table: Placed, count: int) -> None:
    rng = layout.rng
    half = table.model.bounds[1]
    for side in rng.permutation(4)[:count]:
        angle = 90.0 * int(side)
        chair = f.chair(rng)
        reach = (half[1] if side % 2 == 0 else half[0]) + chair.bounds[1, 1] + rng.uniform(0.06, 0.2)
        position = table.position + turn(table.yaw + angle) @ np.array([0.0, -reach, 0.0])
        layout.try_place("chair", chair, table.yaw + angle + rng.uniform(-10, 10), position)


def _on_floor(layout: Layout, count: int) -> None:
    rng = layout.rng
    for _ in range(count):
        name, builder = _pick(ON_FLOOR, (), rng)
        model = builder(rng)
        for _ in range(ATTEMPTS):
            along = rng.uniform(size=2)
            near = rng.integers(2)
            along[near] = np.round(along[near]) * 0.84 + 0.08
            yaw = float(rng.uniform(0, 360))
            span = (layout.high - layout.low)[:2] - 0.6
            position = (*(layout.low[:2] + 0.3 + along * span), 0.0)
            if layout.try_place(name, model, yaw, position) is not None:
                break


def _on_tops(layout: Layout, count: int) -> None:
    """Small things on tables and cabinets, pillows on sofas and beds."""
    rng = layout.rng
    hosts = [thing for thing in layout.things if thing.model.top is not None]
    for _ in range(count if hosts else 0):
        host = hosts[int(rng.integers(len(hosts)))]
        soft = host.name in ("sofa", "bed")
        name, builder = _pick(ON_SOFT if soft else ON_TOP, ("pillow",) if soft else (), rng)
        _stand_on(layout, host, name, builder(rng))


def _stand_on(layout: Layout, host: Placed, name: str, model: Model) -> None:
    assert host.model.top is not None
    x0, x1, y0, y1, z = host.model.top
    low, high = model.bounds
    x0, x1, y0, y1 = x0 - low[0], x1 - high[0], y0 - low[1], y1 - high[1]
    if x0 > x1 or y0 > y1:
        return
    others = [box for thing, box in zip(layout.things, layout.taken, strict=True) if thing is not host]
    for _ in range(ATTEMPTS):
        spot = np.array([layout.rng.uniform(x0, x1), layout.rng.uniform(y0, y1), z])
        position = host.position + turn(host.yaw) @ spot
        yaw = host.yaw + layout.rng.uniform(-15, 15)
        parts = moved(model.parts, turn(yaw), position)
        bounds = part_bounds(parts)
        if layout.holds(bounds) and not any(_overlap(bounds, other) for other in others):
            layout.add(name, model, parts, yaw, position, bounds)
            return


def _on_walls(layout: Layout, count: int) -> None:
    for _ in range(count):
        name, builder = _pick(ON_WALL, ("picture",), layout.rng)
        _at_wall(layout, name, builder, height=float(layout.rng.uniform(1.45, 1.75)))
