"""Semi-global matching (Hirschmüller 2008): smooths a cost volume along scan lines, and leaves it sharp at edges."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

SMALL_STEP, LARGE_STEP = 0.06, 0.5
"""Costs of a change by one hypothesis between neighbours, and by more than one, of matching costs from 0 to 1."""
EDGE = 8.0
"""Difference of grey values between neighbours at which a large change costs half."""


def aggregate(
    cost: Float32[ndarray, "hypotheses h w"], picture: Float32[ndarray, "h w"]
) -> Float32[ndarray, "hypotheses h w"]:
    """Mean costs of the best paths that lead to each pixel from the left, right, top and bottom (his equation 14)."""
    down = np.ascontiguousarray(cost.transpose(1, 0, 2))
    across = np.ascontiguousarray(cost.transpose(2, 0, 1))
    total = _paths(down, picture) + _paths(down[::-1], picture[::-1])[::-1]
    total = total.transpose(1, 0, 2)
    total += (_paths(across, picture.T) + _paths(across[::-1], picture.T[::-1])[::-1]).transpose(1, 2, 0)
    return total / 4


def _paths(
    cost: Float32[ndarray, "lines hypotheses n"], grey: Float32[ndarray, "lines n"]
) -> Float32[ndarray, "lines hypotheses n"]:
    """Costs of the best paths that come from the first line, less the least of the line before."""
    paths = np.empty_like(cost)
    paths[0] = cost[0]
    jumps = np.maximum(LARGE_STEP / (1 + np.abs(np.diff(grey, axis=0)) / EDGE), 1.5 * SMALL_STEP)
    for line in range(1, len(cost)):
        before = paths[line - 1]
        least = before.min(axis=0)
        best = np.minimum(before, least + jumps[line - 1])
        np.minimum(best[1:], before[:-1] + SMALL_STEP, out=best[1:])
        np.minimum(best[:-1], before[1:] + SMALL_STEP, out=best[:-1])
        best -= least
        np.add(cost[line], best, out=paths[line])
    return paths
