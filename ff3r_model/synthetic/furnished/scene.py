"""Scenes of triangles: tables that grow while a room is built, and a texture atlas that is sampled in one step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Int, Int8, Int16, Int32, Real, UInt8
from numpy import ndarray

from ff3r_model.synthetic.furnished.meshes import Material, Mesh


@dataclass(frozen=True)
class Scene:
    """Everything that rays can hit, in metres, z up."""

    corners: Float32[ndarray, "n 3 3"]
    normals: Int8[ndarray, "n 3 3"]
    flat: Float32[ndarray, "n 3"]
    """Each triangle's own normal."""
    uv: Float32[ndarray, "n 3 2"]
    material: Int32[ndarray, " n"]
    class_id: Int16[ndarray, " n"]
    instance: Int16[ndarray, " n"]
    color: Float32[ndarray, "m 3"]
    glow: Float32[ndarray, " m"]
    """Light that a material gives off by itself, as a factor of its colour."""
    atlas: UInt8[ndarray, "texels 3"]
    place: Int32[ndarray, "m 3"]
    """Of each material's picture in the atlas: first texel, height, width."""


@dataclass
class SceneBuilder:
    """Collects triangles, instance by instance."""

    corners: list[ndarray] = field(default_factory=list)
    normals: list[ndarray] = field(default_factory=list)
    uv: list[ndarray] = field(default_factory=list)
    material: list[ndarray] = field(default_factory=list)
    class_id: list[ndarray] = field(default_factory=list)
    instance: list[ndarray] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    glow: list[float] = field(default_factory=list)

    def add(self, mesh: Mesh, class_id: int, instance: int, glow: float = 0.0) -> None:
        """Triangles that are in the world's frame already."""
        self.corners.append(mesh.corners)
        self.normals.append(mesh.normals)
        self.uv.append(mesh.uv)
        self.material.append(mesh.material + len(self.materials))
        self.class_id.append(np.full(len(mesh.corners), class_id, np.int16))
        self.instance.append(np.full(len(mesh.corners), instance, np.int16))
        self.materials += mesh.materials
        self.glow += [glow] * len(mesh.materials)

    def build(self) -> Scene:
        """The finished tables."""
        corners = np.concatenate(self.corners)
        edges = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        flat = edges / np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-12)
        white = np.full((1, 1, 3), 255, np.uint8)
        pictures = [white if each.texture is None else each.texture for each in self.materials]
        sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
        starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))[:-1]]).astype(np.int32)
        return Scene(
            corners=corners,
            normals=np.concatenate(self.normals),
            flat=flat.astype(np.float32),
            uv=np.concatenate(self.uv),
            material=np.concatenate(self.material),
            class_id=np.concatenate(self.class_id),
            instance=np.concatenate(self.instance),
            color=np.array([each.color for each in self.materials], np.float32),
            glow=np.array(self.glow, np.float32),
            atlas=np.concatenate([picture.reshape(-1, 3) for picture in pictures]),
            place=np.column_stack([starts, sizes]),
        )


def quad(
    corner: Real[ndarray, " 3"], along: Real[ndarray, " 3"], up: Real[ndarray, " 3"], tile: float, material: Material
) -> Mesh:
    """A rectangle of two triangles; its picture repeats every `tile` metres."""
    a, u, v = (np.asarray(x, np.float32) for x in (corner, along, up))
    length, height = float(np.linalg.norm(u)) / tile, float(np.linalg.norm(v)) / tile
    uv = [[[0, 0], [length, 0], [length, height]], [[0, 0], [length, height], [0, height]]]
    return Mesh(
        corners=np.array([[a, a + u, a + u + v], [a, a + u + v, a + v]], np.float32),
        normals=np.zeros((2, 3, 3), np.int8),
        uv=np.array(uv, np.float32),
        material=np.zeros(2, np.int32),
        materials=(material,),
    )


def box(low: Float[ndarray, " 3"], high: Float[ndarray, " 3"], tile: float, material: Material) -> list[Mesh]:
    """The six sides of an axis-aligned box."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    sides = []
    for axis in range(3):
        u, v = np.zeros(3), np.zeros(3)
        first, second = [k for k in range(3) if k != axis]
        u[first], v[second] = (high - low)[first], (high - low)[second]
        for at in (low, high):
            corner = low.copy()
            corner[axis] = at[axis]
            sides.append(quad(corner, u, v, tile, material))
    return sides


def sample(scene: Scene, material: Int[ndarray, " n"], uv: Float[ndarray, "n 2"]) -> Float32[ndarray, "n 3"]:
    """Colours of materials at texture coordinates that repeat, v upwards; bilinear between texels."""
    start, height, width = scene.place[material].T
    x, y = uv[:, 0] % 1 * width - 0.5, (1 - uv[:, 1] % 1) * height - 0.5
    left, top = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    across, down = (x - left)[:, None].astype(np.float32), (y - top)[:, None].astype(np.float32)

    def texel(dx: int, dy: int) -> ndarray:
        return scene.atlas[start + (top + dy) % height * width + (left + dx) % width]

    upper = texel(0, 0) * (1 - across) + texel(1, 0) * across
    lower = texel(0, 1) * (1 - across) + texel(1, 1) * across
    return (upper * (1 - down) + lower * down) / 255 * scene.color[material]
