"""Ray tracing of furnished rooms by embree: colour, depth, class and instance of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32
from numpy import ndarray

from ff3r_model.core.errors import UserError
from ff3r_model.synthetic.furnished.scene import Scene, sample

OFFSET = 1e-3
"""Metres between a surface and the start of its shadow rays."""
LEAK = 0.12
"""Share of a lamp's light that reaches what it does not see, by way of the walls."""
SUN_REACH = 15.0
"""Metres within which something casts a shadow in the sun: more than a building, less than the backdrop."""


@dataclass(frozen=True)
class Lamp:
    """A point light."""

    place: Float[ndarray, " 3"]
    color: Float[ndarray, " 3"]


@dataclass(frozen=True)
class Light:
    """All light of a room."""

    lamps: tuple[Lamp, ...]
    ambient: Float[ndarray, " 3"]
    to_sun: Float[ndarray, " 3"]
    sun: Float[ndarray, " 3"]


@dataclass(frozen=True)
class Hits:
    """What each ray meets first."""

    triangle: Int32[ndarray, " n"]
    """-1 for none."""
    distance: Float32[ndarray, " n"]
    """Along the ray's unit direction, metres; 0 for none."""
    u: Float32[ndarray, " n"]
    v: Float32[ndarray, " n"]

    @property
    def found(self) -> Bool[ndarray, " n"]:
        """Which rays meet something."""
        return self.triangle >= 0


class Tracer:
    """A scene, ready for rays."""

    def __init__(self, scene: Scene, light: Light) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise UserError("furnished rooms need embreex and trimesh: pip install 'ff3r_ros[world]'") from error
        self.scene, self.light = scene, light
        self._embree = EmbreeScene()
        TriangleMesh(self._embree, np.ascontiguousarray(scene.corners))

    def hits(self, origins: Float32[ndarray, "n 3"], directions: Float32[ndarray, "n 3"]) -> Hits:
        """First hits of rays with unit directions."""
        out = self._embree.run(origins, directions, output=1)
        triangle = out["primID"].astype(np.int32)
        distance = np.where(triangle >= 0, out["tfar"], 0).astype(np.float32)
        return Hits(triangle, distance, out["u"], out["v"])

    def shade(
        self, origins: Float32[ndarray, "n 3"], directions: Float32[ndarray, "n 3"], hits: Hits
    ) -> Float32[ndarray, "n 3"]:
        """Radiance, linear; black where nothing is met."""
        scene, at = self.scene, np.maximum(hits.triangle, 0)
        weights = np.stack([1 - hits.u - hits.v, hits.u, hits.v], axis=1)
        uv = np.einsum("nk,nkc->nc", weights, scene.uv[at])
        normals = self._normals(at, weights, directions)
        points = origins + directions * hits.distance[:, None]
        albedo = sample(scene, scene.material[at], uv) ** 2.2
        glow = scene.glow[scene.material[at]][:, None]
        radiance = albedo * np.where(glow > 0, glow, self._light(points, normals))
        return np.where(hits.found[:, None], radiance, 0).astype(np.float32)

    def _normals(self, at: ndarray, weights: ndarray, directions: ndarray) -> Float32[ndarray, "n 3"]:
        """Smooth normals where the file has them and they agree with the triangle's own; towards the viewer."""
        flat = self.scene.flat[at]
        smooth = np.einsum("nk,nkc->nc", weights, self.scene.normals[at].astype(np.float32) / 127)
        length = np.linalg.norm(smooth, axis=1, keepdims=True)
        smooth = smooth / np.maximum(length, 1e-6)
        agree = (smooth * flat).sum(1, keepdims=True)
        normals = np.where((length > 0.1) & (np.abs(agree) > 0.5), smooth * np.sign(agree), flat)
        return np.where((flat * directions).sum(1, keepdims=True) > 0, -normals, normals).astype(np.float32)

    def _light(self, points: ndarray, normals: ndarray) -> Float32[ndarray, "n 3"]:
        """Light that falls on points: from all around, from the lamps, from the sun."""
        light, start = self.light, (points + normals * OFFSET).astype(np.float32)
        total = light.ambient * (0.75 + 0.25 * normals[:, 2:])
        for lamp in light.lamps:
            towards = lamp.place - points
            distance = np.linalg.norm(towards, axis=1, keepdims=True)
            towards = towards / np.maximum(distance, 1e-6)
            cosine = np.clip((normals * towards).sum(1, keepdims=True), 0, 1)
            seen = self._open(start, towards, distance[:, 0] - 2 * OFFSET)
            total = total + cosine * np.where(seen, 1, LEAK)[:, None] * 3 / (1 + distance**2) * lamp.color
        if light.sun.any():
            cosine = np.clip(normals @ light.to_sun, 0, 1)[:, None]
            seen = self._open(start, np.broadcast_to(light.to_sun, points.shape), np.full(len(points), SUN_REACH))
            total = total + cosine * seen[:, None] * light.sun
        return total.astype(np.float32)

    def _open(self, start: ndarray, directions: ndarray, reach: ndarray) -> Bool[ndarray, " n"]:
        """Whether nothing lies on each ray within its reach."""
        rays = np.ascontiguousarray(directions, np.float32)
        return self._embree.run(start, rays, dists=reach.astype(np.float32), query="OCCLUDED") < 0
