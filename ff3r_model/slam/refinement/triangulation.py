"""Triangulation: where rays from several cameras meet."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from ff3r_model.slam.refinement.structure_adjustment import Structure
from ff3r_model.slam.refinement.tracks import Tracks

ROUNDS = 3
"""Of reweighting: distances from rays become angles, and rays that miss count less."""
MISS = 0.005
"""Radians by which a ray may miss before it counts half."""
RIDGE = 1e-9


def rays(structure: Structure, tracks: Tracks) -> Float[ndarray, "points views 3"]:
    """Unit directions of all observations, in the world."""
    local = structure.tangents(tracks.pixels)
    local = np.concatenate([local, np.ones_like(local[..., :1])], axis=-1)
    local /= np.linalg.norm(local, axis=-1, keepdims=True)
    return np.einsum("mvi,vij->mvj", local, structure.camera_from_world[:, :3, :3])


def centres(camera_from_world: Float[ndarray, "views 4 4"]) -> Float[ndarray, "views 3"]:
    """Where the cameras are."""
    return -np.einsum("vji,vj->vi", camera_from_world[:, :3, :3], camera_from_world[:, :3, 3])


def triangulate(structure: Structure, tracks: Tracks, use: Bool[ndarray, "points views"]) -> Float[ndarray, "points 3"]:
    """The points nearest to their rays in `use`, by angle: least squares, reweighted. Without two rays: anywhere."""
    origins, direction = centres(structure.camera_from_world), rays(structure, tracks)
    # A ray leaves a point free along itself alone.
    across = np.eye(3) - direction[..., :, None] * direction[..., None, :]
    weight = use.astype(np.float64)
    points = np.zeros((len(tracks), 3))
    for _ in range(ROUNDS):
        left = np.einsum("mv,mvij->mij", weight, across)
        right = np.einsum("mv,mvij,vj->mi", weight, across, origins)
        ridge = RIDGE * np.trace(left, axis1=1, axis2=2)[:, None, None] + 1e-300
        points = np.linalg.solve(left + ridge * np.eye(3), right[..., None])[..., 0]
        offset = points[:, None] - origins
        distance = np.linalg.norm(offset, axis=-1)
        miss = np.linalg.norm(np.cross(direction, offset), axis=-1) / np.maximum(distance, RIDGE)
        weight = use / (np.maximum(distance, RIDGE) ** 2 * (1 + (miss / MISS) ** 2))
        weight /= np.maximum(weight.max(axis=1, keepdims=True), 1e-300)
    return points


def parallax(
    points: Float[ndarray, "points 3"], origins: Float[ndarray, "views 3"], use: Bool[ndarray, "points views"]
) -> Float[ndarray, " points"]:
    """Degrees between the two views in `use` that see a point from most different sides; 0 where there are no two."""
    direction = points[:, None] - origins
    direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
    cosine = np.where(use[:, :, None] & use[:, None], direction @ direction.transpose(0, 2, 1), 1.0)
    return np.degrees(np.arccos(np.clip(cosine.min(axis=(1, 2)), -1, 1)))
