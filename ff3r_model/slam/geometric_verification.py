"""Geometric verification: the similarity between two visits of a place, from features that both have triangulated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from torch import Tensor

from ff3r_model.core.geometry import apply_similarity, compose, invert_similarity
from ff3r_model.core.ranges import AT_LEAST_ONE, POSITIVE, SHARE, check_range
from ff3r_model.core.types import Similarity
from ff3r_model.slam.landmarks import Landmarks
from ff3r_model.slam.refinement.features import unquantised
from ff3r_model.slam.refinement.matching import match_descriptors

TRIALS, CONFIDENCE = 1000, 0.999
"""Of RANSAC."""
LEAST = 6
"""Matches of two views below which they say nothing."""
LEAST_ERROR = 0.3
"""What the graph takes two visits to differ by at least: their points agree better than their cameras, which are off by
a degree and some percent within each window."""
ROUNDS = 3
"""Of choosing the inliers and fitting to them."""
MOST_FITTED = 600
"""Inliers that are fitted to, at most."""


@dataclass(frozen=True)
class VerificationConfig:
    """When points that two visits share prove that they saw the same place."""

    ratio: float = 0.8
    """Of a match's distance to that of the next best, at most (Lowe)."""
    miss: float = 0.008
    """Largest angle (tangent) between where one visit has a point and where the other saw it, both ways; 4 pixels of a
    picture whose focal length is 500."""
    min_points: int = 20
    """Points within that of one view of either visit,"""
    min_second: int = 10
    """and of another: what one view says must hold for a second."""
    min_share: float = 0.3
    """Share of the matches that agree."""
    min_spread: float = 0.05
    """Least standard deviation (tangent, along the shorter axis) of the directions in which either visit saw them."""

    def __post_init__(self) -> None:
        check_range(self, SHARE, "ratio", "min_share")
        check_range(self, POSITIVE, "miss", "min_spread")
        check_range(self, AT_LEAST_ONE, "min_points", "min_second")


@dataclass(frozen=True)
class Sighting:
    """A view of a visit and what it saw."""

    keyframe: int
    frame_from_camera: Float[Tensor, "4 4"]
    """In the frame of the visit: a window, or a map."""
    landmarks: Landmarks
    """In the unit of that frame."""


@dataclass(frozen=True)
class Verified:
    """What geometric verification found of two visits."""

    there_from_here: Similarity
    points: int
    """Points that agree with it, of one view."""
    rms: float
    """Distance of the matched points, relative to their depth: root mean square, at least `LEAST_ERROR`."""
    reach: float
    """Their median depth, in the unit of the earlier visit."""
    share: float
    """Of the matches that agree."""
    pair: tuple[int, int]
    """The two views that share most, (here, there) by place."""
    refusal: str = ""
    """Why it is no proof; empty where it is."""


@dataclass(frozen=True)
class _Matches:
    """Points that both visits know, one row per pair of views that saw them."""

    here: Float[ndarray, "n 3"]
    """In the camera that saw it here,"""
    there: Float[ndarray, "n 3"]
    """and in the one there."""
    views: Int[ndarray, "n 2"]
    """Which (here, there),"""
    landmarks: Int[ndarray, "n 2"]
    """and which of these views' landmarks."""
    here_from_camera: Float[ndarray, "a 4 4"] = field(repr=False)
    there_from_camera: Float[ndarray, "b 4 4"] = field(repr=False)

    def __len__(self) -> int:
        return len(self.here)

    def select(self, rows: ndarray) -> _Matches:
        """Some of the rows."""
        return _Matches(
            self.here[rows], self.there[rows], self.views[rows], self.landmarks[rows],
            self.here_from_camera, self.there_from_camera,
        )  # fmt: skip

    def points_by_view(self, side: int) -> Int[ndarray, " views"]:
        """How many landmarks of each view, here (0) or there (1), are among the rows."""
        seen = np.unique(np.stack([self.views[:, side], self.landmarks[:, side]]), axis=1)
        views = len(self.there_from_camera if side else self.here_from_camera)
        return np.bincount(seen[0], minlength=views)

    @property
    def in_frames(self) -> tuple[Float[ndarray, "n 3"], Float[ndarray, "n 3"]]:
        """The points in the frames of the two visits."""
        return (
            _moved(self.here_from_camera[self.views[:, 0]], self.here),
            _moved(self.there_from_camera[self.views[:, 1]], self.there),
        )

    def misses(self, there_from_here: Similarity) -> Float[ndarray, "n 4"]:
        """How far each point lies from where the other visit saw it, in tangents: there, then here."""
        at_here, at_there = (torch.from_numpy(each) for each in self.in_frames)
        forth = apply_similarity(there_from_here, at_here).numpy()
        back = apply_similarity(invert_similarity(there_from_here), at_there).numpy()
        seen_there = _unmoved(self.there_from_camera[self.views[:, 1]], forth)
        seen_here = _unmoved(self.here_from_camera[self.views[:, 0]], back)
        return np.concatenate([_directions(seen_there) - _directions(self.there),
                               _directions(seen_here) - _directions(self.here)], axis=1)  # fmt: skip


def verify(
    here: Sequence[Sighting], there: Sequence[Sighting], config: VerificationConfig, scale: float | None = None
) -> Verified:
    """Find the similarity under which what one visit triangulated lies where the other saw it, and judge it.

    `scale` is kept where it is known. What comes back is no proof where it has a `refusal`.
    """
    matches = _match(here, there, config.ratio)
    guesses = _guesses(matches, config.miss)
    found = max(guesses, key=lambda guess: int(_within(matches.misses(guess), config.miss).sum()), default=None)
    if found is None:
        return nothing_shared()
    for _ in range(ROUNDS):
        inliers = np.flatnonzero(_within(matches.misses(found), 2 * config.miss))
        if len(inliers) < LEAST:
            return nothing_shared()
        found = _fitted(matches.select(_thinned(inliers)), found, config.miss, scale)
    inliers = _within(matches.misses(found), config.miss)
    return _judged(matches, inliers, found, config) if inliers.any() else nothing_shared()


def nothing_shared() -> Verified:
    """Of two visits that have no points in common."""
    return Verified(Similarity(), 0, math.inf, 1.0, 0.0, (0, 0), "they have hardly any points in common")


def _match(here: Sequence[Sighting], there: Sequence[Sighting], ratio: float) -> _Matches:
    """Mutual nearest neighbours of the descriptors of every two views."""
    ours, theirs = ([unquantised(each.landmarks.descriptors.numpy()) for each in side] for side in (here, there))
    tables = [np.zeros((0, 4), np.int64)]
    for i, a in enumerate(ours):
        for j, b in enumerate(theirs):
            pairs = match_descriptors(a, b, ratio)
            tables.append(np.concatenate([np.tile([i, j], (len(pairs), 1)), pairs], axis=1))
    table = np.concatenate(tables)
    points = [_chosen(side, table[:, [place, place + 2]]) for place, side in enumerate((here, there))]
    poses = [torch.stack([each.frame_from_camera for each in side]).double().numpy() for side in (here, there)]
    return _Matches(points[0], points[1], table[:, :2], table[:, 2:], poses[0], poses[1])


def _chosen(side: Sequence[Sighting], rows: Int[ndarray, "n 2"]) -> Float[ndarray, "n 3"]:
    """Landmarks by (view, number)."""
    first = np.cumsum([0, *(len(each.landmarks) for each in side)])
    return np.concatenate([_positions(each) for each in side])[first[rows[:, 0]] + rows[:, 1]]


def _guesses(matches: _Matches, miss: float) -> list[Similarity]:
    """PnP with RANSAC of what this visit triangulated in each view of the earlier one; the scale from its depths."""
    at_here, _ = matches.in_frames
    guesses = []
    for view in np.unique(matches.views[:, 1]):
        rows = np.flatnonzero(matches.views[:, 1] == view)
        guess = _pnp(at_here[rows], matches.there[rows], miss)
        if guess is not None:
            pose = torch.from_numpy(matches.there_from_camera[view])
            guesses.append(compose(Similarity(1.0, pose[:3, :3], pose[:3, 3]), guess))
    return guesses


def _pnp(points: Float[ndarray, "n 3"], seen: Float[ndarray, "n 3"], miss: float) -> Similarity | None:
    """camera_from_frame of the view that sees the points where it has `seen`; None where they fit no pose."""
    if len(points) < LEAST:
        return None
    try:
        good, turn, translation, inliers = cv2.solvePnPRansac(
            points, _directions(seen), np.eye(3), None, iterationsCount=TRIALS, reprojectionError=miss,
            confidence=CONFIDENCE, flags=cv2.SOLVEPNP_AP3P,
        )  # fmt: skip
    except cv2.error:  # raised where no sample gives a pose
        return None
    if not good or inliers is None or len(inliers) < LEAST:
        return None
    rotation, rows = Rotation.from_rotvec(turn.ravel()).as_matrix(), inliers.ravel()
    depth = points[rows] @ rotation[2] + translation.ravel()[2]
    ratios = seen[rows, 2] / depth
    if not (ratios > 0).any():
        return None
    scale = float(np.median(ratios[ratios > 0]))
    return Similarity(scale, torch.from_numpy(rotation), torch.from_numpy(scale * translation.ravel()))


def _fitted(matches: _Matches, start: Similarity, miss: float, scale: float | None) -> Similarity:
    """Least squares of the misses, robust, from `start`: with `scale` over SE(3), else over Sim(3)."""
    turn = Rotation.from_matrix(start.rotation.numpy()).as_rotvec()
    at_here, _ = matches.in_frames
    centre = np.median(at_here, axis=0)
    size = start.scale if scale is None else scale
    # About the middle of the points, so that a turn does not move them, in units of the earlier visit's depth.
    placed = start.scale * start.rotation.numpy() @ centre + start.translation.numpy()
    unit = float(np.median(matches.there[:, 2]))

    def similarity(unknowns: Float[ndarray, " k"]) -> Similarity:
        rotation = Rotation.from_rotvec(unknowns[:3]).as_matrix()
        size_now = size * math.exp(unknowns[6]) if len(unknowns) > 6 else size
        translation = placed + unit * unknowns[3:6] - size_now * rotation @ centre
        return Similarity(size_now, torch.from_numpy(rotation), torch.from_numpy(translation))

    unknowns = np.concatenate([turn, np.zeros(3 if scale is not None else 4)])
    solved = least_squares(
        lambda x: (matches.misses(similarity(x)) / miss).ravel(), unknowns, loss="soft_l1", max_nfev=20
    )
    return similarity(solved.x)


def _judged(matches: _Matches, inliers: Bool[ndarray, " n"], found: Similarity, config: VerificationConfig) -> Verified:
    """What was found, and what it lacks as a proof."""
    agreeing = matches.select(inliers)
    at_here, at_there = (torch.from_numpy(each) for each in agreeing.in_frames)
    depths = torch.from_numpy(agreeing.there[:, 2])
    apart = (apply_similarity(found, at_here) - at_there).norm(dim=1) / depths
    rms = max(float(apart.square().mean().sqrt()), LEAST_ERROR)
    # How many points each view contributes: of either visit, whose views all see much the same ones.
    counts = [agreeing.points_by_view(side) for side in (0, 1)]
    ranked = [np.append(np.sort(count)[::-1], 0) for count in counts]
    points, second = (min(int(count[place]) for count in ranked) for place in (0, 1))
    pair = (int(counts[0].argmax()), int(counts[1].argmax()))
    share, spread = float(inliers.mean()), _spread(agreeing)
    refusal = ""
    if points < config.min_points:
        refusal = f"{points} points agree, {config.min_points} are needed"
    elif second < config.min_second:
        refusal = f"{second} points agree in a second view, {config.min_second} are needed"
    elif share < config.min_share:
        refusal = f"{share:.0%} of the matches agree, {config.min_share:.0%} are needed"
    elif spread < config.min_spread:
        refusal = f"the points that agree lie on a spot {spread:.2f} of the focal length wide"
    return Verified(found, points, rms, float(depths.median()), share, pair, refusal)


def _spread(matches: _Matches) -> float:
    """Standard deviation, along the shorter axis, of where points were seen: of the view where it is less."""
    if len(matches) < 3:
        return 0.0
    spreads = [np.linalg.eigvalsh(np.cov(_directions(each).T))[0] for each in (matches.here, matches.there)]
    return math.sqrt(max(min(spreads), 0.0))


def _within(misses: Float[ndarray, "n 4"], miss: float) -> Bool[ndarray, " n"]:
    return np.maximum(np.hypot(misses[:, 0], misses[:, 1]), np.hypot(misses[:, 2], misses[:, 3])) < miss


def _thinned(rows: Int[ndarray, " n"]) -> Int[ndarray, " m"]:
    return rows[:: -(-len(rows) // MOST_FITTED)]


def _positions(sighting: Sighting) -> Float[ndarray, "n 3"]:
    return sighting.landmarks.positions.double().numpy()


def _directions(points: Float[ndarray, "n 3"]) -> Float[ndarray, "n 2"]:
    """(x / z, y / z); far off for what lies behind."""
    z = points[:, 2:]
    return np.where(z > 1e-9, points[:, :2] / np.maximum(z, 1e-9), 1e3)


def _moved(frame_from_camera: Float[ndarray, "n 4 4"], points: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
    return np.einsum("nij,nj->ni", frame_from_camera[:, :3, :3], points) + frame_from_camera[:, :3, 3]


def _unmoved(frame_from_camera: Float[ndarray, "n 4 4"], points: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
    return np.einsum("nji,nj->ni", frame_from_camera[:, :3, :3], points - frame_from_camera[:, :3, 3])
