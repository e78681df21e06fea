"""A camera's lens: focal length and radial distortion, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray

FARTHEST = 2.5
"""Standard deviations of what was known before within which estimates stay."""
WIDEST = 2.0
"""Squared tangent of the angle from the axis at which distortion grows no more: beyond that the model means nothing."""
ROUNDS = 6
"""Of fixed-point iteration that undoes distortion."""


@dataclass(frozen=True)
class Focal:
    """A focal length, as the logarithm of pixels, and how sure it is."""

    log_mean: float
    log_sigma: float
    """0: known."""

    @property
    def pixels(self) -> float:
        """The likeliest one."""
        return float(np.exp(self.log_mean))

    def within(self, log_focal: float) -> float:
        """The nearest that is not out of the question: where little is observed it must not run away."""
        reach = FARTHEST * self.log_sigma
        return min(max(log_focal, self.log_mean - reach), self.log_mean + reach)


@dataclass(frozen=True)
class Radial:
    """Radial distortion k₁ (Brown 1971), and how sure it is: a ray at the tangent r from the axis is seen at
    r + k₁r³."""

    mean: float = 0.0
    sigma: float = 0.0
    """0: known."""

    def within(self, radial: float) -> float:
        """The nearest that is not out of the question."""
        reach = FARTHEST * self.sigma
        return min(max(radial, self.mean - reach), self.mean + reach)


@dataclass(frozen=True)
class Lens:
    """What is known of a lens before: of the focal length and of the distortion."""

    focal: Focal
    radial: Radial = field(default_factory=Radial)


def squared(tangents: Float[ndarray, "*n 2"]) -> Float[ndarray, "*n 1"]:
    """Squared tangent of the angle from the axis, as far as it matters."""
    return np.minimum(np.square(tangents).sum(axis=-1, keepdims=True), WIDEST)


def undistorted(tangents: Float[ndarray, "*n 2"], radial: float) -> Float[ndarray, "*n 2"]:
    """Where rays that are seen at these tangents (x/z, y/z) really are."""
    straight = tangents
    for _ in range(ROUNDS if radial else 0):
        straight = tangents / (1 + radial * squared(straight))
    return straight
