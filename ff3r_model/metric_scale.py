"""Metres from a known camera height: the floor is the dominant plane below the camera."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_TILT = 30.0
"""Degrees by which the camera may look up or down (ours)."""
TOLERANCE = 0.05
"""A point lies on the plane within this share of its distance from the camera (ours)."""
MIN_SUPPORT = 0.15
"""Share of the points below the camera that the floor must hold (ours)."""
MIN_POINTS = 100
_HYPOTHESES = 1024
_SAMPLE = 2000
_REFINEMENTS = 5
_SPREADS = 4.0
"""Median distances within which a refinement takes points: a wall's foot is soon left out."""
_TIGHTEST = 1e-4


@dataclass(frozen=True)
class ScaleEstimate:
    """How long one unit of the map is."""

    scale: float
    """Metres per unit."""
    confidence: float
    """Share, 0 to 1, of the points below the camera that lie on the floor."""
    normal: Float[Tensor, " 3"]
    """Of the floor, pointing up."""


def metric_scale_from_camera_height(points: Float[Tensor, "n 3"], height: float) -> ScaleEstimate | None:
    """The scale that puts the floor `height` metres below the origin, the camera; `points` have z up.

    None, with the reason logged, where there are too few points below the camera or no plane among them is dominant.
    Robust: random triples propose planes within `MAX_TILT` of level; points on a plane speak for it and points under it
    against it, so that a table does not pass for the floor; the best is refined. Equal points give equal answers.
    """
    if not height > 0:
        raise ValueError(f"the camera height must be positive, not {height}")
    below = points[torch.isfinite(points).all(dim=1) & (points[:, 2] < 0)].double()
    if len(below) < MIN_POINTS:
        logger.warning("no metric scale: only %d points lie below the camera", len(below))
        return None
    below = below[:: -(-len(below) // _SAMPLE)]
    normals, distances = _proposals(below)
    if not len(normals):
        logger.warning("no metric scale: no plane below the camera is level")
        return None
    offsets = below @ normals.T + distances
    tolerance = TOLERANCE * below.norm(dim=1, keepdim=True)
    support = (offsets.abs() < tolerance).sum(dim=0) - 2 * (offsets < -tolerance).sum(dim=0)
    best = int(support.argmax())
    normal, distance, share = _refine(below, normals[best], distances[best])
    if share < MIN_SUPPORT:
        logger.warning("no metric scale: the best plane below the camera holds %.0f %% of the points", 100 * share)
        return None
    return ScaleEstimate(height / float(distance), share, normal.to(points))


def _proposals(points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "m 3"], Float[Tensor, " m"]]:
    """Planes normal · p + distance = 0 through random triples, those nearly level and below the origin."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = points[torch.randint(len(points), (3, _HYPOTHESES), generator=generator).to(points.device)]
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    normals = normals * torch.where(normals[:, 2:] < 0, -1.0, 1.0)
    distances = -(normals * a).sum(dim=1)
    level = (normals[:, 2] > torch.cos(torch.deg2rad(torch.tensor(MAX_TILT)))) & (distances > 0)
    return normals[level], distances[level]


def _refine(
    points: Float[Tensor, "n 3"], normal: Float[Tensor, " 3"], distance: Float[Tensor, ""]
) -> tuple[Float[Tensor, " 3"], Float[Tensor, ""], float]:
    """Least squares through the plane's points, a few times over, ever closer to it; and the share of points on it."""
    near, tolerance = 1 / points.norm(dim=1), torch.tensor(TOLERANCE, dtype=points.dtype, device=points.device)
    for _ in range(_REFINEMENTS):
        residuals = (points @ normal + distance).abs() * near
        on_plane = residuals <= tolerance
        weights = (near.square() * on_plane)[:, None]
        centre = (weights * points).sum(dim=0) / weights.sum()
        centred = points - centre
        fitted = torch.linalg.eigh((weights * centred).T @ centred).eigenvectors[:, 0]
        normal = fitted * (1.0 if fitted[2] >= 0 else -1.0)
        distance = -(normal * centre).sum()
        tolerance = (_SPREADS * residuals[on_plane].median()).clamp(_TIGHTEST, TOLERANCE)
    on_plane = (points @ normal + distance).abs() * near < TOLERANCE
    return normal, distance, float(on_plane.double().mean())
