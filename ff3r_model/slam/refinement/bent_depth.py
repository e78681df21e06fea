"""Bent depth: the network's depth images, multiplied by smooth fields so that they pass through triangulated points."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray

WIDTHS = (0.22, 0.11, 0.055, 0.027)
"""Standard deviations of the smoothing, coarse to fine, of the long side."""
HELD = 0.02
"""Weight, of a point at the centre of a kernel, with which the coarser field holds."""
FAR = 0.3
"""Log ratio, seen from the coarser field, at which a point counts half: it may lie elsewhere than its pixel."""
LEAST_POINTS = 3
MOST = math.log(2.5)
"""Log ratio by which no depth is changed: a network is not as wrong as points of a wrong structure can be."""


def bend(
    depth: Float[ndarray, "h w"], pixels: Float[ndarray, "n 2"], measured: Float[ndarray, " n"]
) -> Float[ndarray, "h w"]:
    """A depth image that passes near depths measured at some pixels (u, v), and elsewhere keeps its shape.

    Both are in one unit: nothing changes by more than a factor of 2.5. The log ratio of measured to given depth is
    spread by normalised convolution (Knutsson and Westin 1993), coarse to fine. With less than three points only the
    scale changes, by their median; with none nothing does.
    """
    if len(measured) == 0:
        return depth
    height, width = depth.shape
    column, row = np.clip(pixels.astype(int), 0, [width - 1, height - 1]).T
    ratio = np.log(measured / depth[row, column])
    field = np.full(depth.shape, np.clip(np.median(ratio), -MOST, MOST))
    if len(measured) < LEAST_POINTS:
        return depth * np.exp(field)
    for sigma in (share * max(height, width) for share in WIDTHS):
        left = ratio - field[row, column]
        weight = 1 / (1 + (left / FAR) ** 2)
        pull, count = np.zeros(depth.shape), np.zeros(depth.shape)
        np.add.at(pull, (row, column), weight * left)
        np.add.at(count, (row, column), weight)
        peak = 1 / (2 * np.pi * sigma**2)
        smooth, near = (cv2.GaussianBlur(image, (0, 0), sigma) for image in (pull, count))
        field = np.clip(field + smooth / (near + HELD * max(peak, HELD)), -MOST, MOST)
    return depth * np.exp(field)
