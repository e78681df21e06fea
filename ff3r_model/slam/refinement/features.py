"""SIFT features of a picture, with root-SIFT descriptors (Arandjelović and Zisserman, 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

DIMENSIONS = 128
CONTRAST = 0.01
"""SIFT's threshold: a quarter of OpenCV's, for walls and shadows; the strongest are kept in any case."""
STEPS = 512
"""Of quantised descriptors, in which 1 has no room: hardly any entry is above a half, and those are taken for that."""


@dataclass(frozen=True)
class Features:
    """Points of a picture that can be found again in others."""

    pixels: Float[ndarray, "n 2"]
    """(u, v); pixel centres lie at integer + 0.5."""
    descriptors: Float32[ndarray, "n 128"]
    """Unit vectors, whose product is high where two points look alike."""

    def __len__(self) -> int:
        return len(self.pixels)


def find_features(picture: UInt8[ndarray, "height width"], most: int) -> Features:
    """The `most` strongest SIFT features of a grey picture; none where it is blank."""
    keypoints, descriptors = cv2.SIFT.create(most, contrastThreshold=CONTRAST).detectAndCompute(picture, None)
    if descriptors is None:
        return Features(np.zeros((0, 2)), np.zeros((0, DIMENSIONS), np.float32))
    # OpenCV counts pixels from their centres.
    pixels = np.array([keypoint.pt for keypoint in keypoints], np.float64) + 0.5
    # Root-SIFT: Hellinger's distance of the histograms is Euclid's of their roots.
    total = descriptors.sum(axis=1, keepdims=True)
    return Features(pixels, np.sqrt(descriptors / np.maximum(total, 1e-9)).astype(np.float32))


def quantised(descriptors: Float32[ndarray, "n 128"]) -> UInt8[ndarray, "n 128"]:
    """Descriptors in a byte per entry."""
    return np.clip(np.rint(descriptors * STEPS), 0, 255).astype(np.uint8)


def unquantised(descriptors: UInt8[ndarray, "n 128"]) -> Float32[ndarray, "n 128"]:
    """Unit vectors again; the product of two is off by some thousandths."""
    values = descriptors.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
