"""Self-calibration: the focal length from matches alone, under a prior on the field of view, shared by a run."""

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
from ff3r_model.slam.refinement.matching import Pairs
from ff3r_model.slam.refinement.structure_adjustment import Focal

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
LEAST_GAIN = 0.1
"""Information that a window must add, of what was known, to say anything."""
REMEMBERED = 200
"""Windows whose estimates count."""
ROUNDS = 10
"""Of reweighting."""


@dataclass
class FocalBelief:
    """What a run believes of its camera's focal length: the prior, and every window's estimate with its confidence.

    In units of the long side, so that pictures of any size share it.
    """

    estimates: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """(log focal length, sigma) of each window."""

    def learn(self, before: Focal, after: Focal, long_side: float) -> None:
        """What a window adds, whose estimate was `after` under the prior `before`, both in pixels of the pictures."""
        information, prior = after.log_sigma**-2, before.log_sigma**-2
        gained = information - prior
        if gained < LEAST_GAIN * prior:
            return
        mean = (after.log_mean * information - before.log_mean * prior) / gained
        self.estimates.append((mean - math.log(long_side), math.hypot(gained**-0.5, WINDOW_SIGMA)))

    def recall(self, focal: float, sigma: float) -> None:
        """What an earlier run believed, as one window's estimate: windows of another camera soon outvote it."""
        self.estimates.append((math.log(focal), sigma))

    def focal(self, long_side: float = 1.0) -> Focal:
        """The belief in pixels of a picture; a mean that estimates far from the others hardly move."""
        values, sigmas = np.array([(math.log(PRIOR_FOCAL), PRIOR_SIGMA), *self.estimates]).T
        information = sigmas**-2.0
        mean = _median(values, information)
        for _ in range(ROUNDS):
            weights = information / (1 + ((values - mean) / (2 * sigmas)) ** 2)
            mean = float((weights * values).sum() / weights.sum())
        # Windows of one camera share their errors: confidence does not grow below a window's own floor over two.
        sigma = max(float(weights.sum()) ** -0.5, WINDOW_SIGMA / 2)
        return Focal(mean + math.log(long_side), sigma)


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
