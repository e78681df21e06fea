"""Bundle adjustment of cameras, points and one lens (Triggs et al. 2000), by the Schur complement.

Unlike `bundle_adjustment`, which knows each match's depth from the network, this knows pixels alone: points are
unknowns that every view which sees them must agree on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from ff3r_model.slam.refinement.lens import WIDEST, Lens, squared, undistorted

ROBUST = 2.0
"""Pixels at which an observation counts half (Cauchy's loss)."""
CLOSEST = 1e-3
"""Depths below this are taken for it: points behind a camera say nothing."""
SMALL_CHANGE = 1e-4
"""Relative gain of a step at which it is over."""
LARGEST_ZOOM = 0.3
"""Of the log focal length in one step."""
MIN_DAMPING, START_DAMPING = 1e-7, 1e-4
TRIALS = 4
"""Steps that are tried, each shorter than the one before."""
RIDGE = 1e-9
LENS = 2
"""Unknowns of the lens, after those of the cameras: log focal length, k₁."""
HELD = 1e8
"""Information that holds what nothing observes, for covariances."""


@dataclass(frozen=True)
class Observations:
    """Which view saw which point where."""

    view: Int[ndarray, " n"]
    point: Int[ndarray, " n"]
    pixels: Float[ndarray, "n 2"]
    """(u, v)."""


@dataclass(frozen=True)
class Structure:
    """Cameras and points of one scene."""

    camera_from_world: Float[ndarray, "views 4 4"]
    points: Float[ndarray, "points 3"]
    log_focal: float
    """Of the horizontal focal length in pixels."""
    aspect: float
    """Vertical over horizontal focal length."""
    centre: Float[ndarray, " 2"]
    """Principal point, (u, v)."""
    radial: float = 0.0
    """Radial distortion of the lens, as in `Radial`."""

    @property
    def focal(self) -> Float[ndarray, " 2"]:
        """(horizontal, vertical), pixels."""
        return np.exp(self.log_focal) * np.array([1, self.aspect])

    @property
    def matrix(self) -> Float[ndarray, "3 3"]:
        """Intrinsics."""
        (fx, fy), (cx, cy) = self.focal, self.centre
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

    def seen_from(self, observations: Observations) -> Float[ndarray, "n 3"]:
        """The observed points in their observers' cameras."""
        poses = self.camera_from_world[observations.view]
        return (poses[:, :3, :3] @ self.points[observations.point, :, None])[..., 0] + poses[:, :3, 3]

    def residuals(self, observations: Observations) -> Float[ndarray, "n 2"]:
        """Pixels observed minus projected."""
        there = self.seen_from(observations)
        tangents = there[:, :2] / np.maximum(there[:, 2:], CLOSEST)
        return observations.pixels - tangents * (1 + self.radial * squared(tangents)) * self.focal - self.centre

    def tangents(self, pixels: Float[ndarray, "*n 2"]) -> Float[ndarray, "*n 2"]:
        """(x/z, y/z) of the rays of pixels, distortion undone."""
        return undistorted((pixels - self.centre) / self.focal, self.radial)

    def straightened(self, pixels: Float[ndarray, "*n 2"]) -> Float[ndarray, "*n 2"]:
        """Where pixels would be without distortion."""
        return self.tangents(pixels) * self.focal + self.centre


def adjust_structure(
    start: Structure, observations: Observations, lens: Lens, first: int = 0, iterations: int = 12
) -> Structure:
    """Levenberg and Marquardt's steps on reprojection errors under Cauchy's loss; the camera `first` stays.

    Focal length and distortion are one unknown each of all views with the given prior, unless they are known. The
    scale is free and stays near where it starts.
    """
    problem = _Problem(observations, lens, first, len(start.camera_from_world), len(start.points))
    state, cost, damping = start, problem.cost(start), START_DAMPING
    for _ in range(iterations):
        # Normal equations, then the first step, from long to short, that lowers the cost.
        system = problem.linearise(state)
        for _ in range(TRIALS):
            moved = problem.moved(state, *system.solve(damping))
            lower = problem.cost(moved)
            if lower < cost:
                break
            damping *= 10
        else:
            return state
        gain = cost - lower
        state, cost, damping = moved, lower, max(damping / 10, MIN_DAMPING)
        if gain < SMALL_CHANGE * cost:
            break
    return state


def pose_covariance(
    structure: Structure, observations: Observations, lens: Lens, first: int = 0
) -> Float[ndarray, "n n"]:
    """Covariance of all cameras' twists (translation, rotation; six each), log focal length and k₁, for unit noise.

    The camera `first` has none, and the scale is held: only what relative poses say means anything.
    """
    problem = _Problem(observations, lens, first, len(structure.camera_from_world), len(structure.points))
    information = problem.linearise(structure).reduced(0.0)[0]
    # Along a change of scale about the fixed camera nothing is observed.
    fixed = structure.camera_from_world[first]
    origin = -fixed[:3, :3].T @ fixed[:3, 3]
    growth = np.zeros((len(structure.camera_from_world), 6))
    growth[:, :3] = structure.camera_from_world[:, :3, :3] @ origin + structure.camera_from_world[:, :3, 3]
    along = np.append(growth.ravel(), np.zeros(LENS))[problem.free]
    held = information + HELD * np.outer(along, along) / max(along @ along, RIDGE)
    covariance = np.zeros((6 * len(growth) + LENS,) * 2)
    covariance[np.ix_(problem.free, problem.free)] = np.linalg.pinv(held, hermitian=True)
    return covariance


@dataclass(frozen=True)
class _System:
    """Normal equations in blocks: cameras with the lens, points, and between them."""

    cameras: Float[ndarray, "n n"]
    points: Float[ndarray, "m 3 3"]
    between: Float[ndarray, "n m 3"]
    camera_side: Float[ndarray, " n"]
    point_side: Float[ndarray, "m 3"]

    def reduced(self, damping: float) -> tuple[ndarray, ndarray, ndarray]:
        """The cameras' system after the points are eliminated, its right side, and the points' inverse blocks."""
        diagonal = self.points.diagonal(axis1=1, axis2=2)
        inverse = np.linalg.inv(self.points + (damping * diagonal + RIDGE)[:, :, None] * np.eye(3))
        folded = np.einsum("nmi,mij->nmj", self.between, inverse).reshape(len(self.cameras), -1)
        flat = self.between.reshape(len(self.cameras), -1)
        left = self.cameras + np.diag(damping * self.cameras.diagonal() + RIDGE) - folded @ flat.T
        return left, self.camera_side - folded @ self.point_side.ravel(), inverse

    def solve(self, damping: float) -> tuple[Float[ndarray, " n"], Float[ndarray, "m 3"]]:
        """The steps of the cameras (with the lens), and of the points."""
        left, right, inverse = self.reduced(damping)
        cameras = np.linalg.solve(left, right)
        follow = self.point_side - np.tensordot(cameras, self.between, axes=1)
        return cameras, (inverse @ follow[..., None])[..., 0]


@dataclass(frozen=True)
class _Problem:
    observations: Observations
    lens: Lens
    first: int
    views: int
    points: int

    @cached_property
    def free(self) -> Int[ndarray, " n"]:
        """Which of the unknowns (six per view, the lens) move."""
        cameras = np.arange(6 * self.views)
        cameras = cameras[(cameras < 6 * self.first) | (cameras >= 6 * self.first + 6)]
        return np.append(cameras, 6 * self.views + np.flatnonzero(self._certainty))

    @cached_property
    def by_view(self) -> csr_array:
        """Sums over the observations of each view."""
        return self._sums(self.observations.view, self.views)

    @cached_property
    def by_point(self) -> csr_array:
        """Sums over the observations of each point."""
        return self._sums(self.observations.point, self.points)

    def _sums(self, of: Int[ndarray, " n"], count: int) -> csr_array:
        return csr_array((np.ones(len(of)), (of, np.arange(len(of)))), shape=(count, len(of)))

    def cost(self, state: Structure) -> float:
        """Half the robust sum of squares, and the prior's share."""
        squares = np.square(state.residuals(self.observations)).sum(axis=1)
        robust = ROBUST**2 / 2 * np.log1p(squares / ROBUST**2).sum()
        return float(robust + (self._certainty * np.square(self._deviation(state))).sum() / 2)

    @cached_property
    def _certainty(self) -> Float[ndarray, " 2"]:
        """Information on the lens before; 0 where it is known, and no unknown."""
        sigmas = np.array([self.lens.focal.log_sigma, self.lens.radial.sigma])
        return np.divide(1, sigmas**2, out=np.zeros(LENS), where=sigmas > 0)

    def _deviation(self, state: Structure) -> Float[ndarray, " 2"]:
        return np.array([state.log_focal - self.lens.focal.log_mean, state.radial - self.lens.radial.mean])

    def linearise(self, state: Structure) -> _System:
        """A camera is moved by exp(ξ) on its left, ξ = (translation, rotation)."""
        residual = state.residuals(self.observations)
        by_camera, by_point, by_lens = _jacobians(state, self.observations)
        weight = 1 / (1 + np.square(residual).sum(axis=1) / ROBUST**2)
        # Rows times weight, once for all products.
        weighted_camera = (by_camera * weight[:, None, None]).transpose(0, 2, 1)
        weighted_point = (by_point * weight[:, None, None]).transpose(0, 2, 1)
        weighted_lens = (by_lens * weight[:, None, None]).transpose(0, 2, 1)
        # Cameras and lens.
        unknowns = 6 * self.views + LENS
        own = (self.by_view @ (weighted_camera @ by_camera).reshape(-1, 36)).reshape(-1, 6, 6)
        cameras = np.zeros((unknowns, unknowns))
        for view in range(self.views):
            cameras[6 * view : 6 * view + 6, 6 * view : 6 * view + 6] = own[view]
        across = (self.by_view @ (weighted_camera @ by_lens).reshape(-1, 6 * LENS)).reshape(-1, LENS)
        cameras[:-LENS, -LENS:], cameras[-LENS:, :-LENS] = across, across.T
        cameras[-LENS:, -LENS:] = (weighted_lens @ by_lens).sum(axis=0) + np.diag(self._certainty)
        side = np.append(
            (self.by_view @ (weighted_camera @ residual[..., None])[..., 0]).ravel(),
            (weighted_lens @ residual[..., None])[..., 0].sum(axis=0) - self._certainty * self._deviation(state),
        )
        # Points, and what ties them to the cameras: one block per observation.
        points = (self.by_point @ (weighted_point @ by_point).reshape(-1, 9)).reshape(-1, 3, 3)
        point_side = self.by_point @ (weighted_point @ residual[..., None])[..., 0]
        between = np.zeros((unknowns, self.points, 3))
        rows = 6 * self.observations.view[:, None] + np.arange(6)
        between[rows, self.observations.point[:, None]] = weighted_camera @ by_point
        lens = self.by_point @ (weighted_lens @ by_point).reshape(-1, LENS * 3)
        between[-LENS:] = lens.reshape(-1, LENS, 3).transpose(1, 0, 2)
        free = self.free
        return _System(cameras[np.ix_(free, free)], points, between[free], side[free], point_side)

    def moved(self, state: Structure, cameras: Float[ndarray, " n"], points: Float[ndarray, "m 3"]) -> Structure:
        """The state after a step."""
        step = np.zeros(6 * self.views + LENS)
        step[self.free] = cameras
        twist, (zoom, bulge) = step[:-LENS].reshape(-1, 6), step[-LENS:]
        turn = rotations(twist[:, 3:])
        poses = state.camera_from_world.copy()
        poses[:, :3, :3] = turn @ poses[:, :3, :3]
        poses[:, :3, 3] = (turn @ poses[:, :3, 3:])[..., 0] + twist[:, :3]
        log_focal, radial = state.log_focal, state.radial
        if self.lens.focal.log_sigma > 0:
            log_focal = self.lens.focal.within(log_focal + float(np.clip(zoom, -LARGEST_ZOOM, LARGEST_ZOOM)))
        if self.lens.radial.sigma > 0:
            radial = self.lens.radial.within(radial + float(bulge))
        moved = state.points + points
        return replace(state, camera_from_world=poses, points=moved, log_focal=log_focal, radial=radial)


def rotations(vectors: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3 3"]:
    """Rotations by vectors of radians (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    generator = cross_matrices(vectors)
    sine = np.sinc(angle / np.pi)
    versine = np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.eye(3) + sine * generator + versine * generator @ generator


def cross_matrices(vectors: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3 3"]:
    """Matrices whose product with x is vector × x."""
    matrices = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    matrices[:, 0, 1], matrices[:, 1, 0] = -z, z
    matrices[:, 0, 2], matrices[:, 2, 0] = y, -y
    matrices[:, 1, 2], matrices[:, 2, 1] = -x, x
    return matrices


def _jacobians(
    state: Structure, observations: Observations
) -> tuple[Float[ndarray, "n 2 6"], Float[ndarray, "n 2 3"], Float[ndarray, "n 2 2"]]:
    """Derivatives of the projections by camera twist, point and lens (log focal length, k₁)."""
    there = state.seen_from(observations)
    z = np.maximum(there[:, 2], CLOSEST)
    tangents = there[:, :2] / z[:, None]
    square = squared(tangents)
    # Pixels by tangents: distortion stretches, and the more the farther out.
    stretch = 1 + state.radial * square
    by_tangents = 2 * state.radial * (square < WIDEST)[..., None] * tangents[:, :, None] * tangents[:, None]
    by_tangents = (by_tangents + stretch[..., None] * np.eye(2)) * state.focal[:, None]
    by_there = np.zeros((len(there), 2, 3))
    by_there[:, 0, 0] = by_there[:, 1, 1] = 1 / z
    by_there[:, :, 2] = -tangents / z[:, None]
    by_there = by_tangents @ by_there
    by_point = by_there @ state.camera_from_world[observations.view, :3, :3]
    by_camera = np.concatenate([by_there, -by_there @ cross_matrices(there)], axis=2)
    by_lens = np.stack([tangents * stretch * state.focal, tangents * square * state.focal], axis=2)
    return by_camera, by_point, by_lens
