"""The unit of depth images, tested against poses: two views of one surface agree in one unit alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.core.types import Frame

FACTORS = tuple(np.geomspace(1 / 12, 12, 53))
"""Lengths of the unit that are tried, in the unit that is assumed."""
CLEAR = 1.5
"""A smaller factor than this, either way, is no other unit: calibration and poses have errors."""
GAIN = 0.6
"""The best factor must leave less than this share of the disagreement in the assumed unit."""
SMALL_DEPTH = 0.01
"""Disagreement in depth, relative, below which views agree."""
SMALL_COLOR = 3.0
"""Disagreement in brightness, grey levels, below which views agree."""
USUAL = (1.0, 0.01, 0.001, 1 / 256, 0.0001, 1 / 5000, 1 / 6553.5, 1 / 4000)
"""Metres per step that data sets have."""
CLOSE = 1.4
"""Factor up to which an estimate is one of these."""
STRIDE = 6
"""One pixel in this many squared is compared."""
MIN_SHARED = 0.25
"""Least share of these that must fall into the other view."""


@dataclass(frozen=True)
class Agreement:
    """How far two views disagree when depth is multiplied by each of FACTORS; infinitely where little is shared."""

    depth: Float[Tensor, " factors"]
    """|z − z'| / z."""
    color: Float[Tensor, " factors"]
    """Grey levels."""


def compare(a: Frame, b: Frame, intrinsics: Float[Tensor, "3 3"]) -> Agreement:
    """Two posed depth views, `a` seen from `b`, for every factor."""
    assert a.depth is not None and a.odom_from_camera is not None and b.odom_from_camera is not None
    b_from_a = (invert_rigid(b.odom_from_camera.double()) @ a.odom_from_camera.double()).float()
    known = torch.zeros_like(a.depth, dtype=torch.bool)
    known[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] = True
    known &= a.depth > 0
    points, gray = unproject(a.depth, intrinsics)[known], a.image[known].float().mean(-1)
    rows = [_disagreement(points, gray, b, b_from_a, intrinsics, float(factor)) for factor in FACTORS]
    depth, color = torch.tensor(rows, dtype=torch.float32).T
    return Agreement(depth, color)


def unit_factor(agreements: list[Agreement]) -> float | None:
    """By what the assumed unit must be multiplied so that views agree; None where it fits or nothing can be told.

    Each measure counts relative to what it is in the assumed unit, or to what is small.
    """
    if not agreements:
        return None
    depth = torch.stack([each.depth for each in agreements]).median(dim=0).values
    color = torch.stack([each.color for each in agreements]).median(dim=0).values
    assumed = len(FACTORS) // 2
    scores = _relative(depth, assumed, SMALL_DEPTH) + _relative(color, assumed, SMALL_COLOR)
    best = int(scores.argmin())
    factor = float(FACTORS[best])
    clear = max(factor, 1 / factor) >= CLEAR and float(scores[best]) < GAIN * min(float(scores[assumed]), 2.0)
    return factor if clear else None


def _relative(values: Float[Tensor, " factors"], assumed: int, small: float) -> Float[Tensor, " factors"]:
    """In units of the value at the assumed factor, which is the worst there is where views share too little then."""
    if not values.isfinite().any():
        return torch.zeros_like(values)
    worst = float(values[values.isfinite()].max())
    at_assumed = values[assumed].clamp(max=worst)
    return values.clamp(max=1e6) / max(float(at_assumed), small)


def _disagreement(
    points: Float[Tensor, "n 3"],
    gray: Float[Tensor, " n"],
    b: Frame,
    b_from_a: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    factor: float,
) -> tuple[float, float]:
    """Medians of relative depth and of grey levels, where the points fall in view b; infinite where few do."""
    assert b.depth is not None
    pixels, z = project(transform_points(b_from_a, points * factor), intrinsics)
    column, row = pixels.nan_to_num(-1).clamp(-1, 1e6).floor().long().unbind(-1)
    seen = (z > 0) & (column >= 0) & (column < b.depth.shape[1]) & (row >= 0) & (row < b.depth.shape[0])
    if not seen.any() or float(seen.float().mean()) < MIN_SHARED:
        return math.inf, math.inf
    column, row = column[seen], row[seen]
    measured = b.depth[row, column] * factor
    errors = ((measured - z[seen]).abs() / measured)[measured > 0]
    color = (gray[seen] - b.image[row, column].float().mean(-1)).abs().median()
    return float(errors.median()) if len(errors) else math.inf, float(color)


def name_unit(unit: float) -> float:
    """The usual unit nearest to an estimate; the estimate itself, rounded, where none is near."""
    nearest = min(USUAL, key=lambda usual: abs(math.log(usual / unit)))
    return nearest if max(nearest / unit, unit / nearest) < CLOSE else float(f"{unit:.2g}")
