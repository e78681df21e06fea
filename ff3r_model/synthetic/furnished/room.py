"""A furnished room: a deterministic function of its seed and of the models that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ff3r_model.synthetic.furnished import surfaces
from ff3r_model.synthetic.furnished.classes import CLASS_ID, SHELL
from ff3r_model.synthetic.furnished.colors import color_of
from ff3r_model.synthetic.furnished.furnish import KINDS, Furnisher, Placed, facing
from ff3r_model.synthetic.furnished.library import Library
from ff3r_model.synthetic.furnished.meshes import Material, Mesh
from ff3r_model.synthetic.furnished.scene import Scene, SceneBuilder, quad
from ff3r_model.synthetic.furnished.shell import (
    Shell,
    Wall,
    Zone,
    backdrop,
    draw_shell,
    wall_meshes,
    window_frame,
)
from ff3r_model.synthetic.furnished.tracer import Lamp, Light, Tracer
from ff3r_model.synthetic.furnished.units import BASE_DEPTH, BASE_HEIGHT, TOP, draw_style, kitchen_row
from ff3r_model.synthetic.rays import Rays

WHITE = (1.0, 1.0, 1.0)
Box = tuple[ndarray, ndarray, ndarray]
"""Middle, half extents and rotation of a solid's oriented bounding box."""


@dataclass(frozen=True)
class Thing:
    """One thing in a room."""

    id: int
    name: str
    """Of its class."""
    model: str
    """Its catalogue's name, "" for what comes with the building."""
    color: str
    """The nearest colour name."""
    low: tuple[float, float, float]
    """Lowest corner of the axis-aligned bounding box in the world, metres."""
    high: tuple[float, float, float]


@dataclass(frozen=True)
class FurnishedRoom:
    """Rooms of one building with their furniture. World: z up, floor at z = 0, metres, origin in the middle."""

    seed: int
    low: Float[Tensor, " 3"]
    high: Float[Tensor, " 3"]
    instances: tuple[Thing, ...]
    scene: Scene
    light: Light
    solids: tuple[Box, ...]
    """What a camera must not run into."""

    @cached_property
    def tracer(self) -> Tracer:
        """Embree's structure over the scene."""
        return Tracer(self.scene, self.light)

    def to(self, device: torch.device | str) -> FurnishedRoom:
        """Itself: it is traced on the CPU."""
        return self

    @property
    def targets(self) -> ndarray:
        """Middles of the things that a camera may look at, (n, 3)."""
        things = [thing for thing in self.instances if thing.name not in (*SHELL, "window")]
        return np.array([np.add(thing.low, thing.high) / 2 for thing in things])

    def clearance(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Distance in metres to the nearest outer wall, floor, ceiling or solid; negative outside, 0 in a solid."""
        shell = torch.minimum(points - self.low, self.high - points).amin(-1)
        return torch.minimum(shell, self.solid_distance(points))

    def solid_distance(self, points: Float[Tensor, "n 3"], lowest: float = 0.0) -> Float[Tensor, " n"]:
        """Distance in metres to the nearest oriented bounding box of a solid whose top is above `lowest`."""
        nearest = torch.full((len(points),), torch.inf)
        for middle, half, turn in self.solids:
            if middle[2] + half[2] <= lowest:
                continue
            local = (points.double().numpy() - middle) @ turn
            outside = np.linalg.norm(np.maximum(np.abs(local) - half, 0), axis=1)
            nearest = torch.minimum(nearest, torch.from_numpy(outside).float())
        return nearest

    def first_hits(self, rays: Rays) -> Float[Tensor, " pixels"]:
        """Depth z along every ray; 0 where it meets nothing."""
        count = rays.directions.shape[1] // len(rays.origin)
        origins = rays.origin.numpy().repeat(count, axis=0)
        directions = rays.directions.T.numpy()
        length = np.linalg.norm(directions, axis=1)
        unit = np.ascontiguousarray(directions / length[:, None], np.float32)
        hits = self.tracer.hits(np.ascontiguousarray(origins, np.float32), unit)
        return torch.from_numpy(hits.distance / length.astype(np.float32))


class _Builder:
    """Fills a room step by step."""

    def __init__(self, rng: np.random.Generator, library: Library, shell: Shell) -> None:
        self.rng, self.library, self.shell = rng, library, shell
        self.scene = SceneBuilder()
        self.things: list[Thing] = []
        self.solids: list[Box] = []

    def add(self, meshes: Sequence[Mesh], name: str, model: str = "", glow: float = 0.0, solid: bool = False) -> None:
        """A thing of one or more meshes that are in the world's frame."""
        number, class_id = len(self.things), CLASS_ID[name]
        for mesh in meshes:
            self.scene.add(mesh, class_id, number, glow)
        corners = np.concatenate([mesh.corners.reshape(-1, 3) for mesh in meshes])
        low, high = corners.min(0), corners.max(0)
        self.things.append(Thing(number, name, model, color_of(meshes), _triple(low), _triple(high)))
        if solid:
            self.solids.append(((low + high) / 2.0, (high - low) / 2.0, np.eye(3)))

    def place(self, thing: Placed) -> None:
        """A piece of furniture."""
        self.add([_tinted(self.rng, thing.placed_mesh())], thing.model.class_name, thing.model.name)
        half = thing.size / 2
        self.solids.append((thing.place + np.array([0, 0, half[2]]), half, thing.turn))

    def shell_meshes(self) -> None:
        """Walls, floor and ceiling of every zone, windows, and what lies behind them."""
        height = float(self.shell.high[2])
        for zone, walls in zip(self.shell.zones, self.shell.walls, strict=True):
            paint = _surface(self.rng, surfaces.WALLS, self.library)
            for wall in walls:
                own = paint if self.rng.random() < 0.85 else _surface(self.rng, surfaces.WALLS, self.library)
                self.add(wall_meshes(self.rng, wall, height, own), "wall")
                self._solid_wall(wall, height)
            self._level(zone, 0.0, "floor", _surface(self.rng, surfaces.FLOORS, self.library))
            shade = float(self.rng.uniform(0.8, 1.0))
            self._level(zone, height, "ceiling", Material((shade, shade, shade), surfaces.plaster(self.rng)))
        for wall in (wall for walls in self.shell.walls for wall in walls if wall.outer):
            for opening in wall.openings:
                self.add(window_frame(self.rng, wall, opening), "window")
        self.add(backdrop(self.rng, self.shell), "window", glow=float(self.rng.uniform(0.8, 2.0)))

    def _solid_wall(self, wall: Wall, height: float) -> None:
        """Inner walls, which a camera could run into beside their doorway."""
        if wall.outer:
            return
        edges = [0.0, *(edge for each in wall.openings for edge in (each.start, each.end)), wall.length]
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            corners = np.stack([wall.at(start, -0.1, 0.0), wall.at(end, 0.0, height)])
            low, high = corners.min(0), corners.max(0)
            self.solids.append(((low + high) / 2, (high - low) / 2, np.eye(3)))

    def _level(self, zone: Zone, height: float, name: str, paint: Material) -> None:
        along, across = np.array([zone.size[0], 0, 0]), np.array([0, zone.size[1], 0])
        self.add([quad(np.array([*zone.low, height]), along, across, float(self.rng.uniform(0.8, 2.5)), paint)], name)

    def furnish(self) -> None:
        """Furniture of every zone, rugs, and pictures on its walls."""
        height = float(self.shell.high[2])
        for zone, walls in zip(self.shell.zones, self.shell.walls, strict=True):
            furnisher = Furnisher(self.rng, self.library, zone, walls, height)
            if zone.kind == "kitchen":
                self._kitchen(walls, furnisher)
            if self.rng.random() < 0.35:
                self._rug(zone)
            for thing in furnisher.furnish():
                self.place(thing)
            for _ in range(int(self.rng.integers(0, 4))):
                self._picture(walls[int(self.rng.integers(4))])

    def _kitchen(self, walls: Sequence[Wall], furnisher: Furnisher) -> None:
        """A row of units along one wall, with small things on the worktop."""
        wall = max(walls, key=lambda each: each.length - 3 * len(each.openings) + self.rng.uniform(0, 2))
        length = min(wall.length - 0.7, self.rng.uniform(1.8, 4.0))
        start = float(self.rng.uniform(0.05, wall.length - length - 0.05))
        if any(each.bottom < BASE_HEIGHT + TOP and start < each.end and start + length > each.start
               for each in wall.openings):  # fmt: skip
            return
        style = draw_style(self.rng)
        for unit in kitchen_row(self.rng, wall, start, start + length, style):
            self.add(unit.meshes, unit.class_name, solid=True)
        furnisher.occupy(wall, start, start + length, BASE_DEPTH + 0.05)
        for place in np.arange(start + 0.2, start + length - 0.2, 0.35):
            if self.rng.random() < 0.6:
                self._on_worktop(wall, float(place))

    def _on_worktop(self, wall: Wall, along: float) -> None:
        names = ("sink", "oven", "kettle", "toaster", "coffee machine", "microwave", "blender", "pan", "bottle", "bowl",
                 "plate", "cup", "food", "scale", "flower pot")  # fmt: skip
        found = self.library.pick(self.rng, names, lambda model: max(model.size) < 0.62 and model.size[1] < BASE_DEPTH)
        if found is not None:
            model, mesh = found
            place = wall.at(along, float(self.rng.uniform(0.25, 0.38)), BASE_HEIGHT + TOP)
            self.place(Placed(model, mesh, np.array(model.size), place, facing(wall.inward), stands=False))

    def _rug(self, zone: Zone) -> None:
        size = self.rng.uniform([1.0, 0.8], np.minimum([2.6, 2.2], zone.size * 0.7))
        corner = self.rng.uniform(zone.low + 0.1, zone.high - size - 0.1)
        paint = Material(WHITE, surfaces.carpet(self.rng) if self.rng.random() < 0.5 else surfaces.wallpaper(self.rng))
        along, across = np.array([size[0], 0, 0]), np.array([0, size[1], 0])
        self.add([quad(np.array([*corner, 0.008]), along, across, float(size.max()), paint)], "rug")

    def _picture(self, wall: Wall) -> None:
        """A framed picture."""
        width, high = self.rng.uniform(0.25, 1.0), self.rng.uniform(0.25, 0.9)
        if wall.length < width + 0.4:
            return
        start = float(self.rng.uniform(0.1, wall.length - width - 0.1))
        if not wall.free(start, start + width):
            return
        bottom = float(self.rng.uniform(1.15, 1.5))
        along = np.array([*wall.along, 0.0])
        pictures = self.library.pictures
        own = surfaces.painting(self.rng) if not pictures or self.rng.random() < 0.4 else pictures[
            int(self.rng.integers(len(pictures)))]  # fmt: skip
        frame = float(self.rng.uniform(0.01, 0.05))
        edge = Material(_triple(self.rng.uniform(0.05, 0.9, 3)), None)
        up = np.array([0.0, 0.0, 1.0])
        corner, span = wall.at(start - frame, 0.012, bottom - frame), along * (width + 2 * frame)
        outer = quad(corner, span, up * (high + 2 * frame), 1.0, edge)
        canvas = quad(wall.at(start, 0.018, bottom), along * width, up * high, 1.0, Material(WHITE, own))
        stretched = canvas.uv / np.maximum(canvas.uv.reshape(-1, 2).max(0), 1e-6)
        self.add([outer, Mesh(canvas.corners, canvas.normals, stretched, canvas.material, canvas.materials)], "picture")

    def lighting(self) -> Light:
        """One or two lamps in each zone, daylight through the windows where there are any."""
        lamps = []
        for zone in self.shell.zones:
            for _ in range(int(self.rng.integers(1, 3))):
                xy = self.rng.uniform(zone.low + 0.25 * zone.size, zone.high - 0.25 * zone.size)
                tint = np.array([1.0, self.rng.uniform(0.85, 1.0), self.rng.uniform(0.65, 1.0)])
                place = np.array([*xy, self.shell.high[2] - self.rng.uniform(0.1, 0.4)])
                lamps.append(Lamp(place, tint * self.rng.uniform(0.3, 1.1)))
        ambient = self.rng.uniform(0.2, 0.5) * np.array(
            [1.0, self.rng.uniform(0.93, 1.03), self.rng.uniform(0.85, 1.1)]
        )
        turn, rise = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.35, 0.9)
        to_sun = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])
        sun = np.array([1.0, 0.95, 0.85]) * (self.rng.uniform(0.8, 2.5) if self.rng.random() < 0.5 else 0.0)
        return Light(tuple(lamps), ambient.astype(np.float32), to_sun.astype(np.float32), sun.astype(np.float32))


def make_furnished_room(seed: int, library: Library, kinds: tuple[str, ...] | None = None) -> FurnishedRoom:
    """The room of a seed: one of six kinds, or two with an open door between them, furnished from the library."""
    rng = np.random.default_rng([seed, 11])
    if kinds is None:
        count = 2 if rng.random() < 0.35 else 1
        kinds = tuple(str(kind) for kind in rng.choice(KINDS, count, replace=False))
    shell = draw_shell(rng, kinds)
    builder = _Builder(rng, library, shell)
    builder.shell_meshes()
    builder.furnish()
    light = builder.lighting()
    return FurnishedRoom(
        seed=seed,
        low=torch.tensor(shell.low, dtype=torch.float32),
        high=torch.tensor(shell.high, dtype=torch.float32),
        instances=tuple(builder.things),
        scene=builder.scene.build(),
        light=light,
        solids=tuple(builder.solids),
    )


def _surface(rng: np.random.Generator, kinds: Sequence, library: Library) -> Material:
    """A procedural picture, or one of the models' own, tinted."""
    if library.pictures and rng.random() < 0.15:
        tint = np.clip(rng.normal(0.9, 0.15, 3), 0.3, 1.0)
        return Material(_triple(tint), library.pictures[int(rng.integers(len(library.pictures)))])
    return Material(WHITE, kinds[int(rng.integers(len(kinds)))](rng))


def _tinted(rng: np.random.Generator, mesh: Mesh) -> Mesh:
    """The same mesh in slightly other colours, half of the time."""
    if rng.random() < 0.5:
        return mesh
    tint = np.clip(rng.normal(1, 0.2, 3), 0.5, 1.4)
    materials = tuple(
        Material(_triple(np.clip(np.array(each.color) * tint, 0, 1)), each.texture) for each in mesh.materials
    )
    return Mesh(mesh.corners, mesh.normals, mesh.uv, mesh.material, materials)


def _triple(values: ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
