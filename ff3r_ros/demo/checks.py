"""Checks of the demo: trajectory and masks that an independent subscriber received, against the room's ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial import cKDTree

from ff3r_model.core.geometry import transform_points, umeyama, unproject
from ff3r_model.synthetic import CLASSES, COLORS, Room, pinhole, render

MAX_POSE_ERROR = 0.08
"""Largest root mean square position error after Sim(3) alignment, as a share of the path's length."""
MAX_SHARE_OF_STILL = 0.5
"""Largest such error as a share of what a camera that never moves would get: long tours flatter the share above."""
MIN_MASK_IOU = 0.15
"""Smallest mean intersection over union of masks, over the queries whose things the camera saw."""
TOLERANCE_VOXELS = 3.0
"""A voxel counts as right when the true surface is within this many voxel sizes."""
MIN_POSES = 6
"""Fewer poses, or a shorter path than the next, prove nothing."""
MIN_PATH = 0.5
MIN_SEEN_VOXELS = 30
"""Things of which the camera saw fewer voxels are not judged."""
TRUTH_VIEWS = 60
"""Views, spread over the path, from which the true surfaces are rendered, at this size (height, width)."""
TRUTH_SIZE = (60, 80)
BIG_ENOUGH = 0.15
"""Metres: things whose second largest side is smaller are no default query."""
SHELL = frozenset({"wall", "floor", "ceiling"})


@dataclass(frozen=True)
class Alignment:
    """The similarity world_from_map that fits positions best, and how well it does."""

    scale: float
    rotation: Float[ndarray, "3 3"]
    translation: Float[ndarray, " 3"]
    rms: float
    """Metres in the world."""

    def __call__(self, points: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
        return self.scale * points @ self.rotation.T + self.translation


@dataclass(frozen=True)
class Surfaces:
    """What the camera really saw: points in the world with the class and colour of what they lie on."""

    points: Float[ndarray, "n 3"]
    classes: Int[ndarray, " n"]
    colors: Int[ndarray, " n"]

    def matching(self, text: str) -> Float[ndarray, "m 3"] | None:
        """The points of "class" or "colour class"; None for other texts."""
        words = text.split(" ", 1)
        color = words[0] if len(words) == 2 and words[0] in COLORS else None
        name = words[1] if color else text
        if name not in CLASSES:
            return None
        chosen = self.classes == CLASSES.index(name)
        if color is not None:
            chosen &= self.colors == COLORS.index(color)
        return self.points[chosen]


@dataclass(frozen=True)
class Verdict:
    """The demo's figures and what they fail, if anything."""

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def align_positions(source: Float[ndarray, "n 3"], target: Float[ndarray, "n 3"]) -> Alignment:
    """The least-squares similarity target_from_source (Umeyama 1991), in float64."""
    found = umeyama(torch.from_numpy(source), torch.from_numpy(target))
    rotation, translation = found.rotation.numpy(), found.translation.numpy()
    residual = found.scale * source @ rotation.T + translation - target
    return Alignment(found.scale, rotation, translation, float(np.sqrt((residual**2).sum(1).mean())))


def check_poses(
    estimated: Mapping[int, Float[ndarray, "4 4"]], truth: Mapping[int, Float[ndarray, "4 4"]], verdict: Verdict
) -> Alignment | None:
    """Compare poses of equal stamps (nanoseconds); world_from_map, or None where there is too little to align."""
    stamps = sorted(estimated.keys() & truth.keys())
    positions = np.array([truth[stamp][:3, 3] for stamp in stamps]).reshape(-1, 3)
    length = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    if len(stamps) < MIN_POSES or length < MIN_PATH:
        verdict.failures.append(
            f"{len(stamps)} poses along {length:.2f} m prove nothing: {MIN_POSES} along {MIN_PATH} m are needed"
        )
        return None
    world_from_map = align_positions(np.array([estimated[stamp][:3, 3] for stamp in stamps]), positions)
    share = world_from_map.rms / length
    still = world_from_map.rms / float(np.sqrt(((positions - positions.mean(0)) ** 2).sum(1).mean()))
    verdict.lines.append(
        f"pose error {share:.2%} of the {length:.1f} m path, {still:.0%} of what standing still would get "
        f"({world_from_map.rms:.3f} m RMS over {len(stamps)} poses, Sim(3)-aligned, scale {world_from_map.scale:.3f}); "
        f"limits {MAX_POSE_ERROR:.0%}, {MAX_SHARE_OF_STILL:.0%}"
    )
    if share > MAX_POSE_ERROR:
        verdict.failures.append(f"pose error {share:.2%} is above the limit of {MAX_POSE_ERROR:.0%} of the path")
    if still > MAX_SHARE_OF_STILL:
        verdict.failures.append(
            f"pose error is {still:.0%} of what standing still would get, above the limit of {MAX_SHARE_OF_STILL:.0%}"
        )
    return world_from_map


def check_masks(
    masks: Mapping[str, Float[ndarray, "n 3"]],
    voxel_size: float,
    world_from_map: Alignment,
    surfaces: Surfaces,
    verdict: Verdict,
    metric: bool = False,
) -> None:
    """Compare each query's voxel centres (map frame and unit, like `voxel_size`) with what they should cover.

    A metric map's voxels are taken to be as large as they say, so that a wrong scale does not widen the tolerance.
    """
    size = voxel_size if metric else voxel_size * world_from_map.scale
    tolerance = TOLERANCE_VOXELS * size
    overlaps, blind = {}, []
    everything = thin(surfaces.points, size)
    for text, voxels in masks.items():
        points = surfaces.matching(text)
        if points is not None and len(true_voxels := thin(points, size)) >= MIN_SEEN_VOXELS:
            overlaps[text] = tolerant_iou(world_from_map(voxels), true_voxels, tolerance)
            blind.append(tolerant_iou(everything, true_voxels, tolerance))
    if not overlaps:
        verdict.failures.append("no query asked for anything that the camera saw")
        return
    mean = float(np.mean(list(overlaps.values())))
    each = ", ".join(f"{text} {overlap:.2f}" for text, overlap in overlaps.items())
    verdict.lines.append(
        f"mask IoU {mean:.3f} within {TOLERANCE_VOXELS:g} voxels ({tolerance:.2f} m): {each} "
        f"(masks of everything would get {np.mean(blind):.3f}); limit {MIN_MASK_IOU}"
    )
    if mean < MIN_MASK_IOU:
        verdict.failures.append(f"mask IoU {mean:.3f} is below the limit of {MIN_MASK_IOU}")


def tolerant_iou(found: Float[ndarray, "n 3"], true: Float[ndarray, "m 3"], tolerance: float) -> float:
    """Intersection over union of two voxel sets whose voxels match within a distance.

    hits / (hits + false ones found + true ones missed): 1 for sets that cover each other, 0 for sets apart.
    """
    if not len(found) or not len(true):
        return 0.0
    hits = int((cKDTree(true).query(found, distance_upper_bound=tolerance)[0] < np.inf).sum())
    missed = int((cKDTree(found).query(true, distance_upper_bound=tolerance)[0] == np.inf).sum())
    return hits / (len(found) + missed)


def thin(points: Float[ndarray, "n 3"], size: float) -> Float[ndarray, "m 3"]:
    """One point, their mean, per cell of a grid."""
    if not len(points):
        return points
    _, cell = np.unique(np.floor(points / size).astype(np.int64), axis=0, return_inverse=True)
    cell = cell.ravel()
    sums = np.stack([np.bincount(cell, points[:, axis]) for axis in range(3)], axis=1)
    return sums / np.bincount(cell)[:, None]


def seen_surfaces(room: Room, world_from_camera: Float[ndarray, "n 4 4"], field_of_view: float) -> Surfaces:
    """Every surface point that true depth images along the path show."""
    chosen = np.unique(np.linspace(0, len(world_from_camera) - 1, TRUTH_VIEWS).round().astype(int))
    poses = torch.from_numpy(world_from_camera[chosen]).float()
    intrinsics = pinhole(*TRUTH_SIZE, field_of_view=field_of_view).expand(len(chosen), 3, 3)
    views = render(room, poses, intrinsics, *TRUTH_SIZE)
    points = transform_points(poses, unproject(views.depth, intrinsics).flatten(1, 2))
    return Surfaces(
        points.reshape(-1, 3).double().numpy(),
        views.classes.reshape(-1).long().numpy(),
        views.colors.reshape(-1).long().numpy(),
    )


def default_queries(room: Room, count: int = 3) -> list[str]:
    """The largest things of a room: classes, and the first of them with its colour."""
    things = [thing for thing in room.instances if thing.name not in SHELL]
    things.sort(key=lambda thing: -_middle_side(thing.low, thing.high))
    names = list(dict.fromkeys(thing.name for thing in things if _middle_side(thing.low, thing.high) > BIG_ENOUGH))
    colored = [f"{thing.color} {thing.name}" for thing in things[:1]]
    return names[:count] + colored


def _middle_side(low: tuple[float, ...], high: tuple[float, ...]) -> float:
    return sorted(top - bottom for bottom, top in zip(low, high, strict=True))[1]
