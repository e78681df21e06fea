"""Procedural rooms: a closed box with furniture, a deterministic function of a seed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.synthetic.layout import Placed, furnish
from ff3r_model.synthetic.materials import COLUMNS, Palette, surface_row
from ff3r_model.synthetic.primitives import PLANE, UNIT_CORNERS, Part, part_bounds
from ff3r_model.synthetic.vocabulary import CLASS_ID, CLASSES, COLOR_ID, COLORS, draw_color

SHELL = ("wall", "wall", "wall", "wall", "floor", "ceiling")
"""Classes of the shell's faces in the order x low, x high, y low, y high, z low, z high; also instances 0 to 5."""

FIGURE = "box"
"""Class of a figure that walks: this world has no word for people."""


@dataclass(frozen=True)
class Instance:
    """One thing in a room: a face of the shell, a piece of furniture, an object."""

    id: int
    class_id: int
    color_id: int
    low: tuple[float, float, float]
    """Lowest corner of the axis-aligned bounding box in the world, metres."""
    high: tuple[float, float, float]

    @property
    def name(self) -> str:
        return CLASSES[self.class_id]

    @property
    def color(self) -> str:
        return COLORS[self.color_id]


@dataclass(frozen=True)
class Primitives:
    """All solids of a room as tables; rows 0 to 5 are the shell's faces."""

    kind: Int[Tensor, " n"]
    local_from_world: Float[Tensor, "n 3 4"]
    """To the unit solid; metres in the world's axes for the shell."""
    half: Float[Tensor, "n 3"]
    """Half extents, metres; 1 for the shell, whose local frame is metric already."""
    taper: Float[Tensor, " n"]
    corners: Float[Tensor, "n 8 3"]
    """Of the oriented bounding box, in the world."""
    material: Float[Tensor, "n 12"]
    instance: Int[Tensor, " n"]
    class_id: Int[Tensor, " n"]
    color_id: Int[Tensor, " n"]


@dataclass(frozen=True)
class Lighting:
    """Point lights, ambient light and the camera's exposure."""

    positions: Float[Tensor, "lights 3"]
    colors: Float[Tensor, "lights 3"]
    ambient: Float[Tensor, " 3"]
    exposure: float


Table = TypeVar("Table", Primitives, Lighting)


@dataclass(frozen=True)
class Room:
    """A furnished room. World: z up, floor at z = 0, metres, origin in the middle of the floor."""

    seed: int
    low: Float[Tensor, " 3"]
    high: Float[Tensor, " 3"]
    primitives: Primitives
    lighting: Lighting
    instances: tuple[Instance, ...]

    def to(self, device: torch.device | str) -> Room:
        """The same room with its tensors on another device."""
        return replace(
            self,
            low=self.low.to(device),
            high=self.high.to(device),
            primitives=_tensors_to(self.primitives, device),
            lighting=_tensors_to(self.lighting, device),
        )

    @property
    def targets(self) -> np.ndarray:
        """Middles of the things that a camera may look at, (n, 3)."""
        return np.array([np.add(thing.low, thing.high) / 2 for thing in self.instances[len(SHELL) :]])

    def clearance(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Distance in metres to the nearest wall, floor, ceiling or oriented bounding box of a solid.

        Negative outside the room, 0 inside a solid's box.
        """
        shell = torch.minimum(points - self.low, self.high - points).amin(-1)
        return torch.minimum(shell, self.solid_distance(points))

    def solid_distance(self, points: Float[Tensor, "n 3"], lowest: float = 0.0) -> Float[Tensor, " n"]:
        """Distance in metres to the nearest oriented bounding box of a solid whose top is above `lowest`."""
        table = self.primitives
        solid = (table.kind != PLANE) & (table.corners[..., 2].amax(-1) > lowest)
        matrix, half = table.local_from_world[solid], table.half[solid]
        local = matrix[..., :3] @ points.T + matrix[..., 3:]
        outside = (local.abs_() - 1).clamp_(min=0).mul_(half[..., None])
        return outside.square_().sum(1).amin(0).sqrt_()


def _tensors_to(table: Table, device: torch.device | str) -> Table:
    """The same dataclass with its tensors on another device."""
    values: dict[str, Any] = {field.name: getattr(table, field.name) for field in fields(table)}
    for name, value in values.items():
        values[name] = value.to(device) if isinstance(value, Tensor) else value
    return type(table)(**values)


def make_room(seed: int) -> Room:
    """The room of a seed: 3–8 m × 3–8 m × 2.4–3 m, closed, with 8–20 things in it."""
    rng = np.random.default_rng([seed, 7])
    size = rng.uniform([3.0, 3.0, 2.4], [8.0, 8.0, 3.0])
    low, high = np.array([-size[0] / 2, -size[1] / 2, 0.0]), np.array([size[0] / 2, size[1] / 2, size[2]])
    lighting = draw_lighting(low, high, rng)
    return assemble(seed, low, high, lighting, furnish(low, high, rng), rng)


def assemble(
    seed: int, low: np.ndarray, high: np.ndarray, lighting: Lighting, things: list[Placed], rng: np.random.Generator
) -> Room:
    """A closed box from low to high with things where they were placed; `rng` draws what surfaces look like."""
    rows, instances = _shell_rows(low, high, rng)
    for thing in things:
        instances.append(_instance(len(instances), thing.name, thing.color, part_bounds(thing.parts)))
        rows += _thing_rows(thing, instances[-1], rng)
    corners = (torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32))
    return Room(seed, *corners, _stack(rows), lighting, tuple(instances))


def with_figure(room: Room, color: str, parts: tuple[Part, ...], rng: np.random.Generator) -> Room:
    """The room with one thing more, as its last instance; `rng` draws what it looks like."""
    figure = _instance(len(room.instances), FIGURE, color, part_bounds(parts))
    more = _stack(_part_rows(parts, Palette(color, rng), figure))
    table = {
        column.name: torch.cat([getattr(room.primitives, column.name), getattr(more, column.name).to(room.low.device)])
        for column in fields(Primitives)
    }
    return replace(room, primitives=Primitives(**table), instances=(*room.instances, figure))


def _instance(number: int, name: str, color: str, bounds: np.ndarray) -> Instance:
    low, high = (tuple(float(value) for value in corner) for corner in bounds)
    return Instance(number, CLASS_ID[name], COLOR_ID[color], low, high)  # type: ignore[arg-type]


def _shell_rows(low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> tuple[list[dict], list[Instance]]:
    colors = {name: draw_color(name, rng) for name in ("wall", "floor", "ceiling")}
    materials = {name: surface_row(name, color, rng) for name, color in colors.items()}
    accent = int(rng.integers(4)) if rng.random() < 0.35 else -1
    rows, instances = [], []
    for face, name in enumerate(SHELL):
        bounds = np.stack([low, high])
        bounds[:, face // 2] = (high if face % 2 else low)[face // 2]
        color, material = colors[name], materials[name].copy()
        if face == accent:
            color = draw_color("wall", rng)
            material = surface_row("wall", color, rng)
        material[8:10] = rng.uniform(0, 128, 2)
        instances.append(_instance(face, name, color, bounds))
        matrix = np.hstack([np.eye(3), np.zeros((3, 1))])
        corners = bounds.mean(0) + UNIT_CORNERS * (bounds[1] - bounds[0]) / 2
        rows.append(_row(PLANE, matrix, np.ones(3), 1.0, corners, material, instances[-1]))
    return rows, instances


def _thing_rows(thing: Placed, instance: Instance, rng: np.random.Generator) -> list[dict]:
    return _part_rows(thing.parts, Palette(thing.color, rng), instance)


def _part_rows(parts: tuple[Part, ...], palette: Palette, instance: Instance) -> list[dict]:
    rows = []
    for part in parts:
        linear = part.rotation.T / part.half[:, None]
        matrix = np.hstack([linear, -(linear @ part.centre)[:, None]])
        material = palette.material(part.paint)
        rows.append(_row(part.kind, matrix, part.half, part.taper, part.corners, material, instance))
    return rows


def _row(
    kind: int, matrix: np.ndarray, half: np.ndarray, taper: float, corners: np.ndarray, material: np.ndarray,
    instance: Instance,
) -> dict:  # fmt: skip
    assert material.shape == (COLUMNS,)
    return {
        "kind": kind, "local_from_world": matrix, "half": half, "taper": taper, "corners": corners,
        "material": material, "instance": instance.id, "class_id": instance.class_id, "color_id": instance.color_id,
    }  # fmt: skip


def _stack(rows: list[dict]) -> Primitives:
    columns = {}
    for name in Primitives.__dataclass_fields__:
        values = np.stack([np.asarray(row[name]) for row in rows])
        columns[name] = torch.tensor(values, dtype=torch.int32 if values.dtype.kind == "i" else torch.float32)
    return Primitives(**columns)


def draw_lighting(low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> Lighting:
    """One to three lights below the ceiling."""
    count = int(rng.integers(1, 4))
    spot = rng.uniform([0.2, 0.2, 0.85], [0.8, 0.8, 0.97], (count, 3))
    tint = np.array([1.0, 0.97, 0.92]) + rng.uniform(-0.06, 0.06, (count, 3))
    power = rng.uniform(0.7, 1.1, (count, 1)) / count**0.8
    ambient = rng.uniform(0.42, 0.56) * (1 + rng.uniform(-0.04, 0.04, 3))
    as_tensor = {"positions": low + spot * (high - low), "colors": tint * power, "ambient": ambient}
    return Lighting(
        **{name: torch.tensor(value, dtype=torch.float32) for name, value in as_tensor.items()},
        exposure=float(rng.uniform(0.85, 1.15)),
    )
