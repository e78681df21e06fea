"""Plane sweep stereo (Collins 1996): depth of a picture from its neighbours, whose cameras are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray

from ff3r_model.slam.refinement.semi_global import aggregate

PATCH = 5
"""Pixels along a side of the patches that are compared."""
NOISE = 4.0
"""Variance of grey values that is no texture."""
OUTSIDE, GONE = 0.45, -1e4
"""Cost of what the other picture does not show, and the mark of it."""


@dataclass(frozen=True)
class Views:
    """Grey pictures of one size with their cameras."""

    pictures: Float32[ndarray, "views h w"]
    camera_from_world: Float[ndarray, "views 4 4"]
    intrinsics: Float[ndarray, "views 3 3"]
    """In pixels, whose centres lie at integer + 0.5."""

    def relative(self, source: int, view: int) -> Float[ndarray, "4 4"]:
        """Source camera from the view's."""
        return self.camera_from_world[source] @ np.linalg.inv(self.camera_from_world[view])


def sweep(
    views: Views, view: int, sources: Sequence[int], inverse_depths: Float[ndarray, " hypotheses"]
) -> tuple[Float[ndarray, "h w"], Float[ndarray, "h w"]]:
    """(depth, matching cost from 0 to 1) of one view: of fronto-parallel planes, evenly spaced in inverse depth."""
    cost = matching_cost(views, view, sources, inverse_depths)
    smooth = aggregate(cost, views.pictures[view])
    best = smooth.argmin(axis=0)
    place = best + _offset(smooth, best)
    step = inverse_depths[1] - inverse_depths[0]
    return 1 / (inverse_depths[0] + place * step), np.take_along_axis(cost, best[None], axis=0)[0]


def matching_cost(
    views: Views, view: int, sources: Sequence[int], inverse_depths: Float[ndarray, " hypotheses"]
) -> Float32[ndarray, "hypotheses h w"]:
    """(1 − ZNCC) / 2 of patches by hypothesis, the mean over the better half of the sources: others may be hidden."""
    picture = views.pictures[view]
    height, width = picture.shape
    mean = _blurred(picture)
    sigma = np.sqrt(np.maximum(_blurred(picture * picture) - mean * mean, 0) + NOISE)
    cost = np.empty((len(sources), len(inverse_depths), height, width), np.float32)
    for number, source in enumerate(sources):
        for plane, homography in enumerate(homographies(views, view, source, inverse_depths)):
            there = cv2.warpPerspective(
                views.pictures[source], homography, (width, height),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT, borderValue=GONE,
            )  # fmt: skip
            outside = there < 0
            there[outside] = 0
            mean_there = _blurred(there)
            spread = np.sqrt(np.maximum(_blurred(there * there) - mean_there * mean_there, 0) + NOISE)
            alike = (_blurred(picture * there) - mean * mean_there) / (sigma * spread)
            cost[number, plane] = np.where(outside, OUTSIDE, (1 - alike) / 2)
    half = (len(sources) + 1) // 2
    cost.partition(half - 1, axis=0)
    return cost[:half].mean(axis=0)


def homographies(
    views: Views, view: int, source: int, inverse_depths: Float[ndarray, " hypotheses"]
) -> Float[ndarray, "hypotheses 3 3"]:
    """Pixels of the source from those of the view, by planes of constant depth there, as OpenCV counts pixels."""
    relative = views.relative(source, view)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    towards = relative[:3, 3:] @ np.array([[0.0, 0.0, 1.0]])
    planes = relative[:3, :3] + towards * inverse_depths[:, None, None]
    return np.linalg.inv(half) @ views.intrinsics[source] @ planes @ np.linalg.inv(views.intrinsics[view]) @ half


def agreeing(
    views: Views, depth: Float[ndarray, "views h w"], view: int, others: Sequence[int], tolerance: float
) -> Int[ndarray, "h w"]:
    """In how many other views each pixel's point lies, within a share of its depth there, where that view has it."""
    height, width = depth.shape[1:]
    v, u = np.mgrid[:height, :width] + 0.5
    rays = np.linalg.inv(views.intrinsics[view]) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1)
    count = np.zeros(height * width, int)
    for other in others:
        relative = views.relative(other, view)
        x, y, z = views.intrinsics[other] @ (relative[:3, :3] @ (rays * depth[view].ravel()) + relative[:3, 3:])
        ahead = np.maximum(z, 1e-9)
        column, row = np.floor(x / ahead), np.floor(y / ahead)
        inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        there = depth[other, row[inside].astype(int), column[inside].astype(int)]
        count[inside] += np.abs(there / z[inside] - 1) < tolerance
    return count.reshape(height, width)


def _blurred(image: Float32[ndarray, "h w"]) -> Float32[ndarray, "h w"]:
    return cv2.blur(image, (PATCH, PATCH))


def _offset(cost: Float32[ndarray, "hypotheses h w"], best: Int[ndarray, "h w"]) -> Float[ndarray, "h w"]:
    """Where between its neighbours each best hypothesis has its minimum: a parabola's, −0.5 to 0.5."""
    inner = np.clip(best, 1, len(cost) - 2)
    before, here, after = (np.take_along_axis(cost, (inner + by)[None], axis=0)[0] for by in (-1, 0, 1))
    curvature = before - 2 * here + after
    offset = (before - after) / (2 * np.maximum(curvature, 1e-6))
    return np.where((curvature > 1e-6) & (inner == best), np.clip(offset, -0.5, 0.5), 0.0)
