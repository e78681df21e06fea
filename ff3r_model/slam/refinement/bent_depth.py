"""Bent depth: the network's depth images, multiplied by smooth fields so that they pass through measured points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from ff3r_model.slam.refinement.canvas import Canvas
from ff3r_model.slam.refinement.smooth_field import smooth_field
from ff3r_model.slam.refinement.structure_from_motion import Reconstruction

GRID = 56
"""Cells of a field along the long side, at most."""
MOST_WEIGHT = 4
"""Points of a cell that count."""
LEAST_POINTS = 3
MOST = math.log(2.5)
"""Log ratio by which no depth is changed: a network is not as wrong as points of a wrong structure can be."""
LEAST_RELIEF = 0.5
"""Exponent of a relief that does not fit the points at all: smoothness has to come from somewhere."""
MISFIT = 0.2
"""Log ratio at which a point counts half for the relief."""
ROUNDS = 8


@dataclass(frozen=True)
class MeasuredDepths:
    """What triangulated points say of the depth at the pixels that saw them."""

    view: Int[ndarray, " n"]
    pixels: Float[ndarray, "n 2"]
    """(u, v) of the network's images."""
    z: Float[ndarray, " n"]

    @classmethod
    def of(cls, found: Reconstruction, canvas: Canvas) -> MeasuredDepths:
        """Of all observations in use."""
        observed = found.observations()
        z = found.structure.seen_from(observed)[:, 2]
        return cls(observed.view, canvas.to_images(observed.pixels, observed.view), z)

    def of_view(self, view: int) -> tuple[Float[ndarray, "m 2"], Float[ndarray, " m"]]:
        """(pixels, depths) of one view."""
        mine = self.view == view
        return self.pixels[mine], self.z[mine]

    def over(self, depth: Float[ndarray, "views h w"]) -> Float[ndarray, " n"]:
        """The measured depths over those of depth images."""
        row, column = places(self.pixels, depth[0])
        return self.z / depth[self.view, row, column]


def bend_all(
    depth: Float[ndarray, "views h w"], images: Float[ndarray, "views h w 3"], measured: MeasuredDepths
) -> Float[ndarray, "views h w"]:
    """Each view's depth, passing through the points that it sees."""
    if not len(measured.z):
        return depth
    relief = fitting_relief(depth, measured)
    return np.stack([bend(depth[view], images[view], *measured.of_view(view), relief) for view in range(len(depth))])


def bend(
    depth: Float[ndarray, "h w"],
    image: Float[ndarray, "h w 3"],
    pixels: Float[ndarray, "n 2"],
    measured: Float[ndarray, " n"],
    relief: float = 1.0,
) -> Float[ndarray, "h w"]:
    """A depth image that passes near depths measured at some pixels (u, v), and elsewhere keeps its shape.

    Both are in one unit: nothing changes by more than a factor of 2.5. The log ratio of measured to given depth is
    spread smoothly up to the edges of the RGB image. `relief`: exponent of the given depth, about its median. With less
    than three points only the scale changes, by their median; with none nothing does.
    """
    if len(measured) == 0:
        return depth
    shaped = flattened(depth, relief)
    row, column = places(pixels, depth)
    ratio = np.log(measured / shaped[row, column])
    if len(measured) < LEAST_POINTS:
        return depth * np.exp(np.clip(np.median(np.log(measured / depth[row, column])), -MOST, MOST))
    # Means of the points in each cell of a coarser grid, spread over all cells.
    size = -(-max(depth.shape) // GRID)
    height, width = (-(-side // size) for side in depth.shape)
    cell = row // size * width + column // size
    count = np.bincount(cell, minlength=height * width).reshape(height, width)
    mean = np.bincount(cell, ratio, height * width).reshape(height, width) / np.maximum(count, 1)
    guide = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    field = smooth_field(mean, np.minimum(count, MOST_WEIGHT).astype(np.float64), guide.astype(np.float64))
    fine = cv2.resize(field, depth.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return depth * np.exp(np.clip(np.log(shaped / depth) + fine, -MOST, MOST))


def flattened(depth: Float[ndarray, "h w"], relief: float) -> Float[ndarray, "h w"]:
    """Depth whose logarithms lie nearer to their median by a factor."""
    median = np.median(depth)
    return median * (depth / median) ** relief


def fitting_relief(depth: Float[ndarray, "views h w"], measured: MeasuredDepths) -> float:
    """How much of depth images' relief to believe, from how it fits the points that views measured: 0.5 to 1.

    The slope of the regression of log measured on log given depth, each about its mean in the view, times the share of
    the variance that it explains; robust (Cauchy's loss). A relief that is right has 1.
    """
    view, (row, column) = measured.view, places(measured.pixels, depth[0])
    given, wanted = np.log(depth[view, row, column]), np.log(measured.z)
    weight, views = np.ones(len(wanted)), len(depth)

    def centred(values: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        total = np.maximum(np.bincount(view, weight, views), 1e-9)
        return np.asarray(values - (np.bincount(view, weight * values, views) / total)[view])

    slope, explained = 1.0, 0.0
    for _ in range(ROUNDS):
        x, y = centred(given), centred(wanted)
        slope = float((weight * x * y).sum() / max(float((weight * x * x).sum()), 1e-9))
        miss = y - slope * x
        explained = 1 - float((weight * miss**2).sum() / max(float((weight * y * y).sum()), 1e-9))
        weight = 1 / (1 + (miss / MISFIT) ** 2)
    return float(np.clip(min(slope, 1.0) * explained, LEAST_RELIEF, 1.0))


def places(pixels: Float[ndarray, "n 2"], image: Float[ndarray, "h w"]) -> tuple[ndarray, ndarray]:
    """Rows and columns of pixels (u, v)."""
    height, width = image.shape
    column, row = np.clip(pixels.astype(int), 0, [width - 1, height - 1]).T
    return row, column
