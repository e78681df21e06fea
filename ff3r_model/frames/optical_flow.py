"""Dense optical flow between two images (OpenCV's DIS), and the grey pictures that it works on."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor


def grey(image: Float[Tensor, "3 height width"]) -> UInt8[ndarray, "height width"]:
    """The mean of the colours of an image in [0, 1], as bytes."""
    return (image.float().mean(0) * 255).clamp(0, 255).byte().cpu().numpy()


def dense_flow(
    before: UInt8[ndarray, "height width"],
    after: UInt8[ndarray, "height width"],
    expected: Float32[ndarray, "height width 2"] | None = None,
) -> Float32[ndarray, "height width 2"]:
    """(right, down) in pixels that each pixel of `before` moves by.

    Fast and coarse by itself; with the flow that is `expected` slower, started from there, and at full resolution.
    """
    if expected is None:
        fast = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        return fast.calc(before, after, np.zeros((*before.shape, 2), np.float32))
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)  # the preset stops at half resolution: too coarse for images of a hundred pixels
    return method.calc(before, after, expected)
