"""Moving objects: pixels whose surface is not where the other views would have to see it.

A pixel is carried into the other views by its depth and the cameras. What stands still has its colour there, or is
hidden; where most views that could see it show another colour, something has moved. Depth alone does not tell: a small
network puts somebody who walks onto the wall behind.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, max_pool2d

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.core.types import Cameras

SIDE = 128
"""Pixels along the long side at which views are compared, at most."""
OTHERS = 8
"""Views that each is compared with, at most: the nearest in the window."""
BEHIND = 0.15
"""Share of a depth by which a point must lie behind what a view sees to be hidden from it."""
DIFFERENT, FAINT = 0.15, 0.08
"""Differences of colour, of 1, from all that a view shows within a pixel: sure ones, and such as go with sure ones."""
LEAST_VIEWS = 2
"""Views that must disagree."""
SURE = 0.4
"""Share of a moving area's pixels that differ for sure."""
LEAST_AREA, MOST_AREA = 0.004, 0.5
"""Shares of a picture: smaller areas are chance, and of a larger one the depth must be wrong."""


def moving_pixels(
    images: Float[Tensor, "views 3 h w"], depth: Float[Tensor, "views h w"], cameras: Cameras
) -> Bool[Tensor, "views h w"]:
    """Which pixels show something that moved between the views, as far as colours tell; none in fewer than three views.

    `images` in [0, 1]; depth and cameras in one unit and on the CPU; depths are right to some 10 %.
    """
    height, width = depth.shape[1:]
    still = torch.zeros(depth.shape, dtype=torch.bool)
    if len(depth) <= LEAST_VIEWS:
        return still
    # Small pictures are enough; exposures that differ are brought to one mean.
    step = -(-max(height, width) // SIDE)
    small, intrinsics = depth[:, step // 2 :: step, step // 2 :: step].float(), cameras.intrinsics.float().clone()
    scale = intrinsics.new_tensor([small.shape[2] / width, small.shape[1] / height, 1.0])
    colors = adaptive_avg_pool2d(images.float(), (small.shape[1], small.shape[2]))
    colors = colors - colors.mean((2, 3), keepdim=True) + colors.mean()
    views = Cameras(cameras.camera_from_world.float(), intrinsics * scale[:, None])
    # How many views show another colour than a pixel has, and how many its own.
    different, visible = _votes(colors, small, views)
    sure = _outvoted(different[0], visible, 2.0).numpy()
    faint = _outvoted(different[1], visible, 1.0).numpy()
    # Areas that are large enough, with enough in them that is sure.
    moved = np.stack([_areas(one, weak) for one, weak in zip(sure, faint, strict=True)])
    grown = interpolate(torch.from_numpy(moved)[:, None].float(), (height, width))[:, 0] > 0
    return torch.where((grown.float().mean((1, 2)) <= MOST_AREA)[:, None, None], grown, still)


def _outvoted(different: Tensor, visible: Tensor, times: float) -> Tensor:
    """Where enough views differ, and more than `times` those that agree."""
    return (different >= LEAST_VIEWS) & (different > times * (visible - different))


def _votes(
    colors: Float[Tensor, "views 3 h w"], depth: Float[Tensor, "views h w"], cameras: Cameras
) -> tuple[Float[Tensor, "2 views h w"], Float[Tensor, "views h w"]]:
    """Of each pixel: the views in which its colour differs, for sure and faintly, and all that should show it."""
    views, height, width = depth.shape
    world = transform_points(
        invert_rigid(cameras.camera_from_world), unproject(depth, cameras.intrinsics).flatten(1, 2)
    )
    # What each view shows within a pixel: the farthest depth, the range of each channel.
    farthest = max_pool2d(depth[:, None], 3, 1, 1)[:, 0].flatten(1)
    low, high = -max_pool2d(-colors, 3, 1, 1).flatten(2), max_pool2d(colors, 3, 1, 1).flatten(2)
    different, visible = torch.zeros(2, views, height * width), torch.zeros(views, height * width)
    for view in range(views):
        nearest = sorted(range(views), key=lambda other: abs(other - view))[1 : OTHERS + 1]
        for other in nearest:
            local = transform_points(cameras.camera_from_world[other], world[view])
            pixels, z = project(local, cameras.intrinsics[other])
            column, row = pixels.floor().long().unbind(1)
            inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = (row * width + column).where(inside, 0)
            # What lies behind the other view's surface is hidden there.
            seen = inside & (z < farthest[other][place] * (1 + BEHIND))
            mine = colors[view].flatten(1)
            off = torch.maximum(low[other][:, place] - mine, mine - high[other][:, place]).amax(0)
            visible[view] += seen
            different[0, view] += seen & (off > DIFFERENT)
            different[1, view] += seen & (off > FAINT)
    return different.unflatten(2, (height, width)), visible.unflatten(1, (height, width))


def _areas(sure: Bool[ndarray, "h w"], faint: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Connected areas that differ, large enough and some of it for sure, with an edge of two pixels around them."""
    smooth = cv2.medianBlur(faint.astype(np.uint8), 5)
    count, label, statistics, _ = cv2.connectedComponentsWithStats(smooth)
    area = statistics[:, cv2.CC_STAT_AREA]
    certain = np.bincount(label[sure & (smooth > 0)], minlength=count)
    keep = (area >= LEAST_AREA * faint.size) & (certain >= SURE * area)
    keep[0] = False
    return cv2.dilate(keep[label].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
