"""View selection for multi-view stereo: neighbours that share points at a good parallax (after Goesele et al. 2007)."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ff3r_model.slam.refinement.structure_from_motion import Reconstruction
from ff3r_model.slam.refinement.triangulation import centres

SOURCES = 4
"""Per view, at most."""
LEAST_SHARED = 8
"""Points that two views must share."""
NARROW, WIDE = 3.0, 12.0
"""Degrees of parallax between which all is well: less determines depth poorly, more looks different."""


def choose_sources(found: Reconstruction) -> list[list[int]]:
    """The views that each view's depth is found from, best first; none for views that are not registered."""
    views = range(len(found.registered))
    score = np.array([[_score(found, view, other) for other in views] for view in views])
    best = np.argsort(-score, axis=1, kind="stable")[:, :SOURCES]
    return [[int(other) for other in best[view] if score[view, other] > 0] for view in views]


def _score(found: Reconstruction, view: int, other: int) -> float:
    """Points that two views share, fewer where their parallax is too small or too large."""
    shared = found.used[:, view] & found.used[:, other]
    if view == other or shared.sum() < LEAST_SHARED:
        return 0.0
    rays = found.structure.points[shared][:, None] - centres(found.structure.camera_from_world)[[view, other]]
    rays /= np.maximum(np.linalg.norm(rays, axis=2, keepdims=True), 1e-12)
    angle = np.degrees(np.median(np.arccos(np.clip(_dot(rays[:, 0], rays[:, 1]), -1, 1))))
    return float(shared.sum() * min(1.0, angle / NARROW, WIDE / max(angle, 1e-9)))


def _dot(a: ndarray, b: ndarray) -> ndarray:
    return np.asarray((a * b).sum(axis=1))
