"""How far a window's cameras may be off: what its reconstruction says of itself, calibrated on truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from ff3r_model.core.types import WindowQuality
from ff3r_model.slam.refinement.pose_error import covariance_beside_first, relative_errors
from ff3r_model.slam.refinement.structure_adjustment import pose_covariance
from ff3r_model.slam.refinement.structure_from_motion import Reconstruction
from ff3r_model.slam.refinement.triangulation import centres, parallax

UNKNOWN = 180.0
"""Degrees claimed where nothing was measured."""
UNREGISTERED = 45.0
"""Degrees claimed of a pair of which one view is not registered."""
ERROR_FACTOR, ERROR_FLOOR = 12.0, 1.5
"""Claimed are so many times the standard deviation that noise of the size seen causes, and so many degrees more:
calibrated on real windows and rooms, where lens, focal length and matches are off together."""
DOUBTFUL, DOUBT = 0.75, 10.0
"""Degrees claimed at least where a smaller share of the observations than this agrees with the points."""
LEAST_NOISE = 0.1
"""Pixels that are taken for noise at least: few observations fit by chance."""


@dataclass(frozen=True)
class Uncertainty:
    """Standard deviations and covariances of a reconstruction, for pixels off by one on average."""

    pose_covariance: Float[ndarray, "views 6 6"]
    pair_errors: Float[ndarray, " pairs"]
    """Degrees, of registered views, in their order."""
    focal_sigma: float
    """Of the logarithm."""
    radial_sigma: float
    """Of the distortion."""

    @classmethod
    def of(cls, found: Reconstruction) -> Uncertainty:
        """From the information of all observations that are in use."""
        views = np.flatnonzero(found.registered)
        structure, observed, first = found.registered_part()
        covariance = pose_covariance(structure, observed, found.lens, first)
        poses = np.full((len(found.registered), 6, 6), np.nan)
        poses[views] = covariance_beside_first(structure.camera_from_world, covariance)
        errors = relative_errors(structure.camera_from_world, covariance)
        focal, radial = np.sqrt(np.maximum(covariance.diagonal()[-2:], 0))
        return cls(poses, errors, float(focal), float(radial))


def measure_quality(found: Reconstruction, uncertainty: Uncertainty, long_side: float) -> WindowQuality:
    """What a reconstruction claims. `long_side` is the pictures'."""
    observed = found.observations()
    miss = np.linalg.norm(found.structure.residuals(observed), axis=1)
    known = found.used.any(axis=1)
    angles = parallax(found.structure.points[known], centres(found.structure.camera_from_world), found.used[known])
    views = len(found.registered)
    pairs = np.full(views * (views - 1) // 2, UNREGISTERED)
    noise = max(float(np.median(miss)), LEAST_NOISE)
    floor = ERROR_FLOOR if found.explained >= DOUBTFUL else DOUBT
    claimed = floor + ERROR_FACTOR * noise * uncertainty.pair_errors
    pairs[: len(claimed)] = np.minimum(claimed, UNREGISTERED)
    return WindowQuality(
        pose_error=float(pairs.mean()),
        registered=tuple(found.registered.tolist()),
        reprojection=float(np.median(miss)),
        parallax=float(np.median(angles)),
        pose_covariance=torch.from_numpy((ERROR_FACTOR * noise) ** 2 * uncertainty.pose_covariance),
        focal=float(found.structure.focal[0]) / long_side,
        focal_sigma=uncertainty.focal_sigma,
    )


def unmeasured(views: int, focal: float, focal_sigma: float) -> WindowQuality:
    """The quality of a window in which nothing could be tracked."""
    covariance = torch.full((views, 6, 6), torch.nan, dtype=torch.float64)
    return WindowQuality(UNKNOWN, (False,) * views, float("nan"), 0.0, covariance, focal, focal_sigma)
