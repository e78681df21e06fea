"""The floor below a camera of known height: metric scale, tilt and height of a window by it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import apply_similarity, compose, invert_rigid, quaternion_to_matrix
from ff3r_model.core.types import Prediction, Similarity

log = logging.getLogger(__name__)
MAX_TILT = 30.0
"""Degrees by which the camera may look up or down."""
TOLERANCE = 0.05
"""A point lies on the plane within this share of its distance from the camera."""
MIN_SUPPORT = 0.15
"""Share of the points below the camera that the floor must hold."""
MIN_POINTS = 100
_HYPOTHESES = 1024
_SAMPLE = 2000
_REFINEMENTS = 5
_SPREADS = 4.0
"""Median distances within which a refinement takes points: a wall's foot is soon left out."""
_TIGHTEST = 1e-4

MAX_CORRECTION = 2.0
"""No window is made larger or smaller by more than this factor at once."""

OPPOSITE = 1e-6
"""Sine below which two unit vectors lie on one line."""
MIN_AGREEMENT = 0.9
"""Length of the mean of what a window's views call up, below which they do not agree."""


@dataclass(frozen=True)
class Floor:
    """The map's floor, normal · x = offset, in metres."""

    normal: Float[Tensor, " 3"]
    """Up, unit length."""
    offset: float

    def transformed(self, new_from_old: Similarity) -> Floor:
        """The same floor in another frame, or in another unit."""
        normal = new_from_old.rotation.double() @ self.normal.double()
        offset = self.offset * new_from_old.scale + float(normal @ new_from_old.translation.double())
        return Floor(normal.to(self.normal), offset)


def floor_below(prediction: Prediction, map_from_window: Similarity, height: float) -> FloorEstimate | None:
    """The floor under a placed window's cameras, all `height` metres above it: how much larger the window should be.

    The points of each view are taken relative to its own camera, so that one plane fits them all. None: no floor seen.
    """
    centres = invert_rigid(prediction.cameras.camera_from_world)[:, :3, 3]
    points = prediction.points.flatten(1, 2) - centres[:, None]
    turned = map_from_window.scale * points.flatten(0, 1) @ map_from_window.rotation.to(points).T
    floor = metric_scale_from_camera_height(turned.cpu(), height)
    return None if floor is None else replace(floor, centre=apply_similarity(map_from_window, centres.cpu()).mean(0))


def stand_on(
    floor: Floor, seen: FloorEstimate, height: float, prediction: Prediction, map_from_window: Similarity, weight: float
) -> Similarity:
    """The placement of a window moved by `weight` (0 to 1) towards one whose cameras stand on the floor.

    Size and tilt change about the cameras' centre, which then moves along the floor's normal.
    """
    centres = invert_rigid(prediction.cameras.camera_from_world)[:, :3, 3].cpu()
    pivot = apply_similarity(map_from_window, centres).mean(0)
    scale = min(max(seen.scale, 1 / MAX_CORRECTION), MAX_CORRECTION) ** weight
    rotation = turn_towards(seen.normal.float(), floor.normal.float(), weight)
    lift = weight * (height + floor.offset - float(floor.normal @ pivot))
    correction = Similarity(scale, rotation, pivot - scale * rotation @ pivot + lift * floor.normal)
    return compose(correction, replace(map_from_window, rotation=map_from_window.rotation.cpu()))


def upright(
    map_from_window: Similarity,
    window_from_camera: Float[Tensor, "views 4 4"],
    up: Float[Tensor, "views 3"],
    weight: float,
) -> Similarity:
    """The placement turned by `weight` (0 to 1) about its cameras' centre so that what they call up is the map's +z.

    `up` in each camera's axes, NaN where unknown; where all are, or disagree beyond sense, nothing changes.
    """
    known = up.isfinite().all(dim=1)
    seen = (window_from_camera[known, :3, :3].cpu() @ up[known].to(window_from_camera).cpu()[:, :, None]).squeeze(2)
    turned = seen @ map_from_window.rotation.to(seen).T
    if not known.any() or turned.mean(0).norm() < MIN_AGREEMENT:
        return map_from_window
    z = torch.tensor([0.0, 0.0, 1.0]).to(turned)
    rotation = turn_towards(torch.nn.functional.normalize(turned.mean(0), dim=0), z, weight)
    pivot = apply_similarity(map_from_window, window_from_camera[:, :3, 3].cpu()).mean(0).to(rotation)
    placed = replace(map_from_window, rotation=map_from_window.rotation.to(rotation))
    return compose(Similarity(1.0, rotation, pivot - rotation @ pivot), placed)


def turn_towards(source: Float[Tensor, " 3"], target: Float[Tensor, " 3"], share: float = 1.0) -> Float[Tensor, "3 3"]:
    """A `share` of the smallest rotation that takes one unit vector to another; of opposite ones, any such."""
    axis = torch.linalg.cross(source, target)
    sine = axis.norm()
    if sine < OPPOSITE and source @ target < 0:
        axis = torch.linalg.cross(source, torch.eye(3).to(source)[int(source.abs().argmin())])
    angle = torch.atan2(sine, source @ target) * share / 2
    axis = axis / axis.norm().clamp_min(1e-12)
    return quaternion_to_matrix(torch.cat([angle.cos()[None], angle.sin() * axis]))


@dataclass(frozen=True)
class FloorEstimate:
    """A floor below the camera, and how long one unit of the map is by it."""

    scale: float
    """Metres per unit."""
    confidence: float
    """Share, 0 to 1, of the points below the camera that lie on the floor."""
    normal: Float[Tensor, " 3"]
    """Of the floor, pointing up."""
    centre: Float[Tensor, " 3"] | None = None
    """Of the cameras that saw it, in the map; None where it is only known relative to them."""


def metric_scale_from_camera_height(points: Float[Tensor, "n 3"], height: float) -> FloorEstimate | None:
    """The scale that puts the floor `height` metres below the origin, the camera; `points` have z up.

    None, with the reason logged, where there are too few points below the camera or no plane among them is dominant.
    Robust: random triples propose planes within `MAX_TILT` of level; points on a plane speak for it and points under it
    against it, so that a table does not pass for the floor; the best is refined. Equal points give equal answers.
    """
    if not height > 0:
        raise ValueError(f"the camera height must be positive, not {height}")
    # Finite points below the camera, thinned.
    below = points[torch.isfinite(points).all(dim=1) & (points[:, 2] < 0)].double()
    if len(below) < MIN_POINTS:
        log.warning("no floor was found: only %d points lie below the camera", len(below))
        return None
    below = below[:: -(-len(below) // _SAMPLE)]
    # Planes through random triples (RANSAC).
    normals, distances = _proposals(below)
    if not len(normals):
        log.warning("no floor was found: no plane below the camera is level")
        return None
    # The plane that most points lie on and few lie under: those count against it twice.
    offsets = below @ normals.T + distances
    tolerance = TOLERANCE * below.norm(dim=1, keepdim=True)
    support = (offsets.abs() < tolerance).sum(dim=0) - 2 * (offsets < -tolerance).sum(dim=0)
    best = int(support.argmax())
    # Least squares through its points; a floor must hold enough of them.
    normal, distance, share = _refine(below, normals[best], distances[best])
    if share < MIN_SUPPORT:
        log.warning("no floor was found: the best plane below the camera holds %.0f %% of the points", 100 * share)
        return None
    return FloorEstimate(height / float(distance), share, normal.to(points))


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
        # The points within the tolerance, each counted by how near it is, since errors grow with the distance.
        residuals = (points @ normal + distance).abs() * near
        on_plane = residuals <= tolerance
        weights = (near.square() * on_plane)[:, None]
        # Their plane goes through their centre, across the direction in which they extend least.
        centre = (weights * points).sum(dim=0) / weights.sum()
        centred = points - centre
        fitted = torch.linalg.eigh((weights * centred).T @ centred).eigenvectors[:, 0]
        normal = fitted * (1.0 if fitted[2] >= 0 else -1.0)
        distance = -(normal * centre).sum()
        # The next round takes what is nearer.
        tolerance = (_SPREADS * residuals[on_plane].median()).clamp(_TIGHTEST, TOLERANCE)
    on_plane = (points @ normal + distance).abs() * near < TOLERANCE
    return normal, distance, float(on_plane.double().mean())
