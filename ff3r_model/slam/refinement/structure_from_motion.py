"""Incremental structure from motion of one window: two views first, then view after view, adjusted each time.

After Snavely et al. 2006 and Schönberger and Frahm 2016. No network is needed and nothing is known but pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from ff3r_model.slam.refinement.features import Features
from ff3r_model.slam.refinement.lens import Focal, Lens, Radial
from ff3r_model.slam.refinement.matching import Pairs
from ff3r_model.slam.refinement.structure_adjustment import Observations, Structure, adjust_structure
from ff3r_model.slam.refinement.tracks import Tracks
from ff3r_model.slam.refinement.triangulation import centres, parallax, triangulate

NOISE = 1.0
"""Pixels."""
REACH = 4.0
"""Pixels beyond which an observation does not belong to its point."""
LEAST_PARALLAX = 1.0
"""Degrees between a point's views, below which its depth says nothing."""
GOOD_PARALLAX = 6.0
"""Degrees, median, that make a pair of views a good one to begin with."""
SEEDS = 4
"""Pairs of views whose essential matrix is tried."""
LEAST_SEED = 20
"""Matches of the first pair."""
LEAST_POINTS = 8
"""Points that a view must see to be registered."""
MOST_OBSERVATIONS, LEAST_TRACKS = 9600, 150
"""Per window, shared out among its views, and per view: what keeps long windows within time and memory."""
ENOUGH_EXPLAINED, ENOUGH_LIKELY = 0.8, 0.8
"""Share of all observations at which no other beginning is tried: wrong cameras of a still scene explain 0.7 at most.
Where something moves they explain more, and so the structure must be likely, too."""
WELL_EXPLAINED = 0.9
"""The share at which that does not matter."""
LEAST_EXPLAINED = 0.55
"""Share of a view's matches that the points explain: 0.85 and more where all is well."""
CONFIDENCE = 0.999
TRIALS = 500


@dataclass(frozen=True)
class Reconstruction:
    """What a window's tracks say of its cameras and of the points they see."""

    structure: Structure
    registered: Bool[ndarray, " views"]
    """Views whose camera is known; those of others mean nothing."""
    tracks: Tracks
    used: Bool[ndarray, "points views"]
    """Observations that agree with their point, which two views at least see; points without any mean nothing."""
    first: int
    """The view whose camera was held."""
    lens: Lens
    """What was known of the lens before."""

    def observations(self) -> Observations:
        """All observations in use, points by their row."""
        point, view = np.nonzero(self.used)
        return Observations(view, point, self.tracks.pixels[point, view])

    @property
    def explained(self) -> float:
        """Share of all observations of registered views that agree with their points."""
        seen = self.tracks.seen & self.registered
        seen &= (seen.sum(axis=1) >= 2)[:, None]
        return float(self.used.sum() / max(int(seen.sum()), 1))

    def registered_part(self) -> tuple[Structure, Observations, int]:
        """The registered views and known points alone, their observations, and which of the views was held."""
        return _part(self.structure, self.tracks, self.registered, self.used, self.first)

    def with_cameras(self, camera_from_world: Float[ndarray, "views 4 4"]) -> Reconstruction:
        """The same tracks seen by other cameras: their points are triangulated anew."""
        known = np.asarray(self.used.any(axis=1))
        structure, points = replace(self.structure, camera_from_world=camera_from_world), self.structure.points.copy()
        points[known] = triangulate(structure, self.tracks.select(known), self.used[known])
        structure = replace(structure, points=points)
        observed = replace(self, structure=structure).observations()
        used = self.used.copy()
        used[observed.point, observed.view] = structure.seen_from(observed)[:, 2] > 0
        used &= (used.sum(axis=1) >= 2)[:, None]
        return replace(self, structure=structure, used=used)

    def scaled(self, factor: float) -> Reconstruction:
        """The same scene at another size."""
        poses = self.structure.camera_from_world.copy()
        poses[:, :3, 3] *= factor
        structure = replace(self.structure, camera_from_world=poses, points=factor * self.structure.points)
        return replace(self, structure=structure)


Likelihood = Callable[[Reconstruction], float]
"""How well a structure agrees with what else is known of the scene: 0 to 1."""


def reconstruct(
    features: Sequence[Features],
    pairs: Pairs,
    tracks: Tracks,
    start: Structure,
    lens: Lens,
    likely: Likelihood = lambda _: 1.0,
) -> Reconstruction | None:
    """Cameras and points from tracks; `start` gives the intrinsics to begin with. None where no two views fit.

    Where a beginning leads to cameras that leave many observations unexplained, or to an unlikely structure, others
    are tried. The one is taken that explains most observations, times how likely it is: where something moves, a wrong
    structure can explain both motions.
    """
    # How many matches the tracks that are kept of each pair stand for, those of contradicting tracks included.
    matched = np.zeros((len(features), len(features)))
    for (i, j), matches in pairs.items():
        matched[i, j] = matched[j, i] = len(matches)
    together = tracks.seen.T.astype(np.int64) @ tracks.seen
    tracks = tracks.thinned(max(MOST_OBSERVATIONS // len(features), LEAST_TRACKS))
    matched *= (tracks.seen.T.astype(np.int64) @ tracks.seen) / np.maximum(together, 1)
    best: Reconstruction | None = None
    most = 0.0
    for seed in _seeds(features, pairs, start):
        found = _grown(seed, matched, tracks, start, lens)
        explained, share = found.used.sum() / max(tracks.seen.sum(), 1), likely(found)
        if best is None or explained * share > most:
            best, most = found, explained * share
        if explained > WELL_EXPLAINED or (explained > ENOUGH_EXPLAINED and share > ENOUGH_LIKELY):
            break
    return best if best is not None and best.used.any(axis=1).sum() >= LEAST_POINTS else None


Seed = tuple[int, int, Float[ndarray, "4 4"]]
"""Two views, and the second's pose in the camera of the first."""


def _grown(
    seed: Seed, matched: Float[ndarray, "views views"], tracks: Tracks, start: Structure, lens: Lens
) -> Reconstruction:
    """Everything that can be built onto two views."""
    first, second, pose = seed
    poses = np.tile(np.eye(4), (tracks.seen.shape[1], 1, 1))
    poses[second] = pose
    build = _Build(replace(start, camera_from_world=poses, points=np.zeros((len(tracks), 3))), tracks, lens, first)
    build.registered[[first, second]] = True
    build.extend(iterations=8, calibrate=False)
    # The view that sees most points is next, as long as there is one that fits.
    while (view := build.next_view()) is not None:
        if build.register(view):
            # In long windows not after every view.
            count = int(build.registered.sum())
            build.extend(iterations=0 if count % max(count // 8, 1) else 4, calibrate=count > 3)
    for _ in range(2):
        build.extend(iterations=12, calibrate=True)
    # Views whose matches the others' points do not explain saw another thing that looks alike.
    while (view := build.contradicted(matched)) is not None:
        build.leave_out(view)
        build.extend(iterations=4, calibrate=True)
    return Reconstruction(build.structure, build.registered, tracks, build.used, build.first, lens)


def _seeds(features: Sequence[Features], pairs: Pairs, start: Structure) -> list[Seed]:
    """Pairs of views to begin with: those with most matches at a good parallax, the best first."""
    promising = sorted(pairs, key=lambda pair: -_promise(features, pairs, pair, start))[:SEEDS]
    found = [
        (*_relative_pose(features, pairs, pair, start), pair) for pair in promising if len(pairs[pair]) >= LEAST_SEED
    ]
    return [
        (first, second, pose) for score, pose, (first, second) in sorted(found, key=lambda one: -one[0]) if score > 0
    ]


def _promise(features: Sequence[Features], pairs: Pairs, pair: tuple[int, int], start: Structure) -> float:
    """Matches of a pair, fewer where one turn of the camera explains them: rays compared after the best rotation."""
    here, there = _pair_rays(features, pairs, pair, start)
    u, _, vt = np.linalg.svd(there.T @ here)
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    apart = np.degrees(np.median(np.linalg.norm(there - here @ turn.T, axis=1)))
    return len(here) * min(1.0, float(apart) / GOOD_PARALLAX)


def _pair_rays(
    features: Sequence[Features], pairs: Pairs, pair: tuple[int, int], start: Structure
) -> tuple[Float[ndarray, "n 3"], Float[ndarray, "n 3"]]:
    both = []
    for side, view in enumerate(pair):
        local = start.tangents(features[view].pixels[pairs[pair][:, side]])
        local = np.concatenate([local, np.ones_like(local[:, :1])], axis=1)
        both.append(local / np.linalg.norm(local, axis=1, keepdims=True))
    return both[0], both[1]


def _relative_pose(
    features: Sequence[Features], pairs: Pairs, pair: tuple[int, int], start: Structure
) -> tuple[float, Float[ndarray, "4 4"]]:
    """How well a pair serves as the first one (0: not at all), and its relative pose, of unit length."""
    here, there = (start.straightened(features[view].pixels[pairs[pair][:, side]]) for side, view in enumerate(pair))
    pose = np.eye(4)
    try:
        essential, inliers = cv2.findEssentialMat(
            here, there, start.matrix, cv2.USAC_MAGSAC, CONFIDENCE, NOISE, maxIters=1000
        )
    except cv2.error:  # raised where no sample gives a model
        return 0.0, pose
    if essential is None or essential.shape != (3, 3):
        return 0.0, pose
    count, rotation, translation, front, points = cv2.recoverPose(
        essential, here, there, start.matrix, distanceThresh=100.0, mask=inliers.copy()
    )
    if count < LEAST_SEED:
        return 0.0, pose
    pose[:3, :3], pose[:3, 3] = rotation, translation[:, 0]
    origins = centres(np.stack([np.eye(4), pose]))
    good = front.ravel() > 0
    angle = parallax((points[:3] / points[3]).T[good], origins, np.ones((int(good.sum()), 2), bool))
    return count * min(1.0, float(np.median(angle)) / GOOD_PARALLAX), pose


@dataclass
class _Build:
    """A reconstruction in the making."""

    structure: Structure
    tracks: Tracks
    lens: Lens
    first: int
    registered: Bool[ndarray, " views"] = field(init=False)
    used: Bool[ndarray, "points views"] = field(init=False)
    refused: Bool[ndarray, " views"] = field(init=False)
    """Views that did not fit, by the number of points that they saw then."""

    def __post_init__(self) -> None:
        views = self.tracks.seen.shape[1]
        self.registered, self.refused = np.zeros(views, bool), np.zeros(views, bool)
        self.used = np.zeros_like(self.tracks.seen)

    @property
    def known(self) -> Bool[ndarray, " points"]:
        """Points that are triangulated."""
        return np.asarray(self.used.any(axis=1))

    def next_view(self) -> int | None:
        """The view, not registered yet nor refused, that sees most of the points."""
        count = np.where(self.registered | self.refused, 0, self.tracks.seen[self.known].sum(axis=0))
        return int(count.argmax()) if count.max(initial=0) >= LEAST_POINTS else None

    def register(self, view: int) -> bool:
        """Find a view's pose from the points that it sees; refuse it where too few fit."""
        points = np.flatnonzero(self.known & self.tracks.seen[:, view])
        straight = self.structure.straightened(self.tracks.pixels[points, view])
        ok, turn, translation, inliers = cv2.solvePnPRansac(
            self.structure.points[points], straight, self.structure.matrix, None,
            iterationsCount=TRIALS, reprojectionError=REACH * NOISE, confidence=CONFIDENCE, flags=cv2.SOLVEPNP_SQPNP,
        )  # fmt: skip
        if not ok or inliers is None or len(inliers) < LEAST_POINTS - 1:
            self.refused[view] = True
            return False
        poses = self.structure.camera_from_world.copy()
        poses[view, :3, :3], poses[view, :3, 3] = cv2.Rodrigues(turn)[0], translation[:, 0]
        self.structure = replace(self.structure, camera_from_world=poses)
        self.registered[view] = True
        return True

    def contradicted(self, matched: Float[ndarray, "views views"]) -> int | None:
        """The registered view of whose matches with others the smallest share, too small a one, is in use."""
        explained = self.used.T.astype(np.int64) @ self.used
        others = self.registered & self.registered[:, None] & ~np.eye(len(explained), dtype=bool)
        explained, matched = np.where(others, explained, 0).sum(axis=1), np.where(others, matched, 0).sum(axis=1)
        share = np.where(self.registered, explained / np.maximum(matched, 1), np.inf)
        worst = int(share.argmin())
        return worst if share[worst] < LEAST_EXPLAINED and self.registered.sum() > 2 else None

    def leave_out(self, view: int) -> None:
        """Take a registered view back."""
        self.registered[view], self.used[:, view] = False, False
        self.used &= (self.used.sum(axis=1) >= 2)[:, None]
        if view == self.first:
            self.first = int(self.registered.argmax())

    def extend(self, iterations: int, calibrate: bool) -> None:
        """Triangulate what registered views see, adjust, and drop what does not agree."""
        visible = self.tracks.seen & self.registered
        # Points that are not known yet, from all their views.
        fresh = ~self.known & (visible.sum(axis=1) >= 2)
        points = self.structure.points.copy()
        points[fresh] = triangulate(self.structure, self.tracks.select(fresh), visible[fresh])
        self.structure = replace(self.structure, points=points)
        self._choose(visible)
        if not self.known.any():
            return
        # Cameras, points and, once enough views are there, the focal length.
        self._adjust(iterations, calibrate)
        self._choose(visible)

    def _choose(self, visible: Bool[ndarray, "points views"]) -> None:
        """Use observations that agree with their point, of points that two views see from different sides."""
        point, view = np.nonzero(visible)
        observed = Observations(view, point, self.tracks.pixels[point, view])
        miss = np.linalg.norm(self.structure.residuals(observed), axis=1)
        front = self.structure.seen_from(observed)[:, 2] > 0
        use = np.zeros_like(visible)
        use[point, view] = (miss < REACH * NOISE) & front
        angle = parallax(self.structure.points, centres(self.structure.camera_from_world), use)
        self.used = use & ((use.sum(axis=1) >= 2) & (angle > LEAST_PARALLAX))[:, None]

    def _adjust(self, iterations: int, calibrate: bool) -> None:
        """Bundle adjustment of the registered views and known points alone."""
        part, observed, first = _part(self.structure, self.tracks, self.registered, self.used, self.first)
        lens = self.lens if calibrate else Lens(Focal(part.log_focal, 0.0), Radial(part.radial))
        part = adjust_structure(part, observed, lens, first, iterations)
        poses, points = self.structure.camera_from_world.copy(), self.structure.points.copy()
        poses[self.registered], points[self.known] = part.camera_from_world, part.points
        self.structure = replace(part, camera_from_world=poses, points=points)


def _part(
    structure: Structure,
    tracks: Tracks,
    registered: Bool[ndarray, " views"],
    used: Bool[ndarray, "points views"],
    first: int,
) -> tuple[Structure, Observations, int]:
    """Registered views and points in use, numbered anew, with their observations and the place of `first`."""
    views, known = np.flatnonzero(registered), np.flatnonzero(used.any(axis=1))
    point, view = np.nonzero(used[np.ix_(known, views)])
    observed = Observations(view, point, tracks.pixels[known[point], views[view]])
    part = replace(structure, camera_from_world=structure.camera_from_world[views], points=structure.points[known])
    return part, observed, int(np.searchsorted(views, first))
