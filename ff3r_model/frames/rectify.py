"""Rectification: lens distortion undone, so that a pinhole camera describes what is left."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy import ndarray

PINHOLE_MODELS = ("plumb_bob", "rational_polynomial", "thin_prism_model")
FISHEYE_MODELS = ("equidistant", "fisheye")
HALF_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


class UnknownDistortionError(ValueError):
    """A distortion model that nobody here can undo."""


class Rectifier:
    """Undoes one camera's lens distortion; images without distortion pass through untouched.

    `camera_matrix` ["3 3"] in pixels, `distortion` the model's coefficients as in sensor_msgs/CameraInfo, `size` is
    (width, height). `intrinsics` then holds the camera matrix of the straightened images, zoomed in until no pixel
    lacks content, with pixel centres at integer + 0.5 as everywhere here (CameraInfo and OpenCV have them at integers).
    Raises UnknownDistortionError when coefficients come with a model it does not know.
    """

    def __init__(
        self, camera_matrix: Float64[ndarray, "3 3"], distortion: list[float], model: str, size: tuple[int, int]
    ) -> None:
        self.size = size
        camera_matrix = np.asarray(camera_matrix, dtype=np.float64)
        self.intrinsics = camera_matrix + HALF_PIXEL
        self._maps: tuple[ndarray, ndarray] | None = None
        if not any(distortion):
            return
        coefficients = np.asarray(distortion, dtype=np.float64)
        if model in PINHOLE_MODELS:
            straight, _ = cv2.getOptimalNewCameraMatrix(camera_matrix, coefficients, size, alpha=0)
            maps = cv2.initUndistortRectifyMap(camera_matrix, coefficients, None, straight, size, cv2.CV_16SC2)
        elif model in FISHEYE_MODELS:
            straight = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(
                camera_matrix, coefficients[:4], size, np.eye(3), balance=0.0
            )
            maps = cv2.fisheye.initUndistortRectifyMap(
                camera_matrix, coefficients[:4], np.eye(3), straight, size, cv2.CV_16SC2
            )
        else:
            known = ", ".join(PINHOLE_MODELS + FISHEYE_MODELS)
            raise UnknownDistortionError(f"distortion model {model!r} is not one of {known}")
        self.intrinsics, self._maps = np.asarray(straight, dtype=np.float64) + HALF_PIXEL, maps

    @property
    def coverage(self) -> float:
        """Share of the straightened image's pixels that come from within the bent image."""
        if self._maps is None:
            return 1.0
        x, y = self._maps[0][..., 0], self._maps[0][..., 1]
        return float(((x >= 0) & (x < self.size[0]) & (y >= 0) & (y < self.size[1])).mean())

    def __call__(self, image: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w 3"]:
        """The straightened image, of the same size."""
        if self._maps is None:
            return image
        return cv2.remap(image, self._maps[0], self._maps[1], cv2.INTER_LINEAR)

    def depth(self, depth: Float32[ndarray, "h w"]) -> Float32[ndarray, "h w"]:
        """A depth image registered to the bent image, straightened; never a mean of near and far. 0 outside."""
        if self._maps is None:
            return depth
        return cv2.remap(depth, self._maps[0], np.empty(0), cv2.INTER_NEAREST)
