"""Edge-aware interpolation: smooth fields through scattered values, by weighted least squares (Farbman et al. 2008)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.linalg import spsolve

STIFFNESS = 0.2
"""Weight of a difference between neighbours beside that of a value."""
CONTRAST = 0.1
"""Difference of colours (RGB in [0, 1]) between neighbours at which their tie is weaker by e."""
LEAST_TIE = 0.003
"""Of neighbours across the sharpest edge."""
DISAGREEMENT = 0.2
"""Distance from the field at which a value counts half (Cauchy's loss)."""
ROUNDS = 3
"""Of reweighting."""
HELD = 1e-7
"""Weight of the median in every cell: holds fields of which nothing else is known."""


def smooth_field(
    values: Float[ndarray, "h w"], weights: Float[ndarray, "h w"], guide: Float[ndarray, "h w 3"]
) -> Float[ndarray, "h w"]:
    """The field F of least Σ w (F − value)² + stiffness · Σ tie · (F − F')², whose ties are weak at edges of `guide`.

    Robust: values that the field cannot follow count less. `weights` are 0 where there is no value.
    """
    height, width = values.shape
    differences = _differences(height, width)
    steps = np.linalg.norm(differences @ guide.reshape(-1, 3).astype(np.float64), axis=1)
    ties = np.exp(-steps / CONTRAST) + LEAST_TIE
    stiff = STIFFNESS * (differences.T @ diags_array(ties) @ differences)
    value, given = values.ravel(), weights.ravel()
    median = float(np.median(value[given > 0]))
    weight, field = given, np.full(value.shape, median)
    for _ in range(ROUNDS):
        field = spsolve((diags_array(weight + HELD) + stiff).tocsc(), weight * value + HELD * median)
        weight = given / (1 + ((field - value) / DISAGREEMENT) ** 2)
    return field.reshape(height, width)


@lru_cache(maxsize=4)
def _differences(height: int, width: int) -> csr_array:
    """Differences between all neighbours of a grid, as a matrix."""
    cell = np.arange(height * width).reshape(height, width)
    here = np.concatenate([cell[:, :-1].ravel(), cell[:-1].ravel()])
    there = np.concatenate([cell[:, 1:].ravel(), cell[1:].ravel()])
    row, one = np.arange(len(here)), np.ones(len(here))
    entries = (np.concatenate([one, -one]), (np.concatenate([row, row]), np.concatenate([here, there])))
    return csr_array(coo_array(entries, shape=(len(here), cell.size)))
