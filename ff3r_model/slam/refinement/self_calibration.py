"""Self-calibration: focal length and distortion from matches alone, under priors, shared by a run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ff3r_model.slam.refinement.features import Features
from ff3r_model.slam.refinement.lens import Focal, Radial
from ff3r_model.slam.refinement.matching import Pairs

PRIOR_FOCAL = 0.85
"""Of the long side: a field of view of 61 degrees."""
PRIOR_SIGMA = 0.45
"""Of the logarithm: two thirds of all cameras lie between 40 and 86 degrees."""
LEAST_MATCHES = 30
LEAST_MOTION = 0.02
"""Median way of a pair's matches, of the long side, below which its epipolar geometry says nothing."""
CANDIDATES = 60
NARROWEST, WIDEST = 2.5, 0.4
"""Focal lengths that are tried, of the long side."""
WORST = 0.5
"""Difference of singular values beyond which a pair is an outlier."""
PRIOR_WEIGHT = 0.02
"""Of a deviation of one sigma, in the same unit."""
WINDOW_SIGMA = 0.04
"""What a window's estimate is at least off by: its errors are not those of its pixels alone."""
RADIAL_SIGMA = 0.05
"""Of k₁ before anything is known: few cameras bend the corners of their pictures by more than a twentieth."""
RADIAL_WINDOW_SIGMA = 0.01
"""As `WINDOW_SIGMA`, of k₁."""
LEAST_GAIN = 0.1
"""Information that a window must add, of what was known, to say anything."""
REMEMBERED = 200
"""Windows whose estimates count."""
ROUNDS = 10
"""Of reweighting."""


@dataclass
class Belief:
    """What a run believes of one unknown of its camera: a prior, and every window's estimate with its confidence."""

    mean: float
    sigma: float
    """Of the prior, like `mean`."""
    window_sigma: float
    """What a window's estimate is at least off by."""
    estimates: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """(mean, sigma) of each window."""

    def learn(self, before: tuple[float, float], after: tuple[float, float]) -> None:
        """What a window adds, whose estimate was `after` under the prior `before`, both as (mean, sigma)."""
        information, prior = after[1] ** -2, before[1] ** -2
        gained = information - prior
        if gained < LEAST_GAIN * prior:
            return
        mean = (after[0] * information - before[0] * prior) / gained
        self.estimates.append((mean, math.hypot(gained**-0.5, self.window_sigma)))

    @property
    def best(self) -> tuple[float, float]:
        """(mean, sigma): a mean that estimates far from the others hardly move."""
        values, sigmas = np.array([(self.mean, self.sigma), *self.estimates]).T
        information = sigmas**-2.0
        mean = _median(values, information)
        for _ in range(ROUNDS):
            weights = information / (1 + ((values - mean) / (2 * sigmas)) ** 2)
            mean = float((weights * values).sum() / weights.sum())
        # Windows of one camera share their errors: confidence does not grow below a window's own floor over two.
        return mean, max(float(weights.sum()) ** -0.5, self.window_sigma / 2)


class LensBelief:
    """What a run believes of its camera's lens. The focal length is in long sides, so that pictures of any size share
    it."""

    def __init__(self) -> None:
        self._focal = Belief(math.log(PRIOR_FOCAL), PRIOR_SIGMA, WINDOW_SIGMA)
        self._radial = Belief(0.0, RADIAL_SIGMA, RADIAL_WINDOW_SIGMA)

    @property
    def estimates(self) -> int:
        """How many windows have said something of the focal length."""
        return len(self._focal.estimates)

    def learn_focal(self, before: Focal, after: Focal, long_side: float) -> None:
        """What a window adds, whose estimate was `after` under the prior `before`, both in pixels of the pictures."""
        unit = math.log(long_side)
        self._focal.learn((before.log_mean - unit, before.log_sigma), (after.log_mean - unit, after.log_sigma))

    def learn_radial(self, before: Radial, after: Radial) -> None:
        """The same of the distortion."""
        self._radial.learn((before.mean, before.sigma), (after.mean, after.sigma))

    def recall(self, focal: float, sigma: float) -> None:
        """What an earlier run believed, as one window's estimate: windows of another camera soon outvote it."""
        self._focal.estimates.append((math.log(focal), sigma))

    def focal(self, long_side: float = 1.0) -> Focal:
        """The belief in pixels of a picture."""
        mean, sigma = self._focal.best
        return Focal(mean + math.log(long_side), sigma)

    @property
    def radial(self) -> Radial:
        """The belief in the distortion."""
        return Radial(*self._radial.best)


def fused(words: Sequence[Focal]) -> Focal:
    """Independent beliefs taken together: the product of their normal distributions."""
    information = np.array([word.log_sigma**-2 for word in words])
    means = np.array([word.log_mean for word in words])
    return Focal(float((information * means).sum() / information.sum()), float(information.sum() ** -0.5))


def _median(values: Float[ndarray, " n"], weights: Float[ndarray, " n"]) -> float:
    order = values.argsort()
    cumulative = weights[order].cumsum()
    return float(values[order][np.searchsorted(cumulative, cumulative[-1] / 2)])


def focal_from_pairs(
    features: Sequence[Features], pairs: Pairs, centre: Float[ndarray, " 2"], aspect: float, belief: Focal
) -> float:
    """The focal length, pixels, at which the pairs' fundamental matrices come nearest to essential ones.

    An essential matrix KᵀFK has two equal singular values (Hartley 1992; Mendonça and Cipolla 1999). Scanned, with the
    belief's deviation added, so that pairs which say little leave it there.
    """
    long_side = 2 * float(centre.max())
    candidates = np.exp(np.linspace(math.log(WIDEST), math.log(NARROWEST), CANDIDATES))
    scale = np.stack([candidates, candidates, np.ones_like(candidates)], axis=1)
    total, weights = np.zeros(CANDIDATES), 0.0
    for (i, j), matches in pairs.items():
        here, there = (
            (features[view].pixels[matches[:, side]] - centre) / (long_side * np.array([1, aspect]))
            for side, view in enumerate((i, j))
        )
        if len(matches) < LEAST_MATCHES or np.median(np.linalg.norm(here - there, axis=1)) < LEAST_MOTION:
            continue
        fundamental, _ = cv2.findFundamentalMat(here, there, cv2.FM_8POINT)
        if fundamental is None:
            continue
        values = np.linalg.svd(scale[:, :, None] * fundamental[:3] * scale[:, None], compute_uv=False)
        difference = (values[:, 0] - values[:, 1]) / (values[:, 0] + values[:, 1])
        total += np.minimum(difference, WORST) * len(matches) ** 0.5
        weights += len(matches) ** 0.5
    if weights == 0:
        return belief.pixels
    deviation = (np.log(candidates * long_side) - belief.log_mean) / belief.log_sigma
    return float(candidates[(total / weights + PRIOR_WEIGHT * deviation**2).argmin()] * long_side)
