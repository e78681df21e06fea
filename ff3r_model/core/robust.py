"""Robust statistics: estimates that a share of wrong measurements (outliers) does not carry away."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import nearest_rotation

HUBER = 1.345
"""Huber's threshold in standard deviations: 95 % efficiency on normal errors."""
_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_ROTATION_ROUNDS = 10
_SMALL_ANGLE = 1e-2
"""Radians below which the rotations' L1 weights stop growing."""


def weighted_median(values: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The value that half of the weight lies below."""
    ordered, order = values.sort()
    cumulative = weights[order].cumsum(0)
    return ordered[torch.searchsorted(cumulative, cumulative[-1:] / 2).clamp_max(len(values) - 1)][0]


def huber_weights(residuals: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Factors in (0, 1] that turn least squares into Huber's loss, its threshold from the residuals' own spread."""
    threshold = HUBER * _MAD * weighted_median(residuals, weights)
    tiny = torch.finfo(residuals.dtype).tiny
    return (threshold / residuals.clamp_min(tiny)).clamp(max=1).where(residuals > threshold, 1)


def robust_mean_rotation(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation of least summed angle, by reweighting the chordal mean: one wrong camera of four does no harm."""
    weights = torch.ones_like(rotations[:, 0, 0])
    for _ in range(_ROTATION_ROUNDS):
        mean = nearest_rotation((weights[:, None, None] * rotations).sum(dim=0))
        chords = torch.linalg.matrix_norm(rotations - mean) / 2**0.5
        weights = 1 / chords.clamp_min(_SMALL_ANGLE)
    return mean
