"""Rectification: lens distortion undone, so that a pinhole camera describes what is left."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy import ndarray

PINHOLE_MODELS = ("plumb_bob", "rational_polynomial", "thin_prism_model")
FISHEYE_MODELS = ("equidistant", "fisheye")
MAX_SIDE = 16_384
"""Pixels of an image's side; OpenCV's remap takes less than 32,767."""
MAX_PIXELS = 2**26
"""Pixels of an image, 8192 squared: decoding takes six bytes for each, and so do the maps of a rectification."""
SIZE_LIMITS = f"an image has at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all"
MAX_FOCAL = 100.0
"""Focal lengths lie between the image's long side divided by this (178.9°) and multiplied by it (half a degree)."""
MAX_OFF_CENTRE = 2.0
"""Long sides, or focal lengths (63° off the axis), by which the principal point of a crop may lie off its centre."""
MAX_SKEW = 0.01
MAX_ZOOM = 20.0
"""By which straight images may be magnified or reduced beside the bent ones."""
MAX_OUTSIDE = 0.25
"""Long sides by which the content of a straight pixel may lie outside of the bent image."""
GRID = 32
"""Pixels a side of the straight image on which a distortion is tried."""
MAX_SHOWN = 40
"""Characters of a foreign text in a message."""
HALF_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


class UnknownDistortionError(ValueError):
    """A distortion model that nobody here can undo."""


class ImpossibleCameraError(ValueError):
    """A camera matrix or a distortion that no camera has. `reason` is a short fixed phrase, fit for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Rectifier:
    """Undoes one camera's lens distortion; images without distortion pass through untouched.

    `camera_matrix` ["3 3"] in pixels, `distortion` the model's coefficients as in sensor_msgs/CameraInfo, `size` is
    (width, height). `intrinsics` then holds the camera matrix of the straightened images, zoomed in until no pixel
    lacks content, with pixel centres at integer + 0.5 as everywhere here (CameraInfo and OpenCV have them at integers).
    What takes memory is made with the first image. Raises UnknownDistortionError when coefficients come with a model it
    does not know, ImpossibleCameraError where the camera cannot be, or its image is too large to be straightened.
    """

    def __init__(
        self, camera_matrix: Float64[ndarray, "3 3"], distortion: list[float], model: str, size: tuple[int, int]
    ) -> None:
        self.size = size
        self._bent = np.asarray(camera_matrix, dtype=np.float64)
        self._straight = self._bent
        self._distortion = np.asarray(distortion, dtype=np.float64)
        self._bends = any(distortion)
        self._fisheye = model in FISHEYE_MODELS
        check_pinhole(self._bent, size)
        if self._bends:
            if not self._fisheye and model not in PINHOLE_MODELS:
                known = ", ".join(PINHOLE_MODELS + FISHEYE_MODELS)
                raise UnknownDistortionError(f"distortion model {model[:MAX_SHOWN]!r} is not one of {known}")
            try:
                self._straight = self._zoomed()
                self._check_distortion()
            except cv2.error as error:
                raise ImpossibleCameraError("impossible distortion", f"{self._words()}: {error.err}") from error
        self.intrinsics = self._straight + HALF_PIXEL

    def __call__(self, image: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w 3"]:
        """The straightened image, of the same size."""
        if not self._bends:
            return image
        return cv2.remap(image, *self._maps, cv2.INTER_LINEAR)

    def depth(self, depth: Float32[ndarray, "h w"]) -> Float32[ndarray, "h w"]:
        """A depth image registered to the bent image, straightened; never a mean of near and far. 0 outside."""
        if not self._bends:
            return depth
        return cv2.remap(depth, self._maps[0], np.empty(0), cv2.INTER_NEAREST)

    @cached_property
    def _maps(self) -> tuple[ndarray, ndarray]:
        """Where each straight pixel's content lies in the bent image, in OpenCV's fixed-point form."""
        return self._bent_from_straight(self._straight, self.size, cv2.CV_16SC2)

    def _zoomed(self) -> Float64[ndarray, "3 3"]:
        """The camera matrix of straightened images that are full of content."""
        if self._fisheye:
            found = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(
                self._bent, self._distortion[:4], self.size, np.eye(3), balance=0.0
            )
        else:
            found, _ = cv2.getOptimalNewCameraMatrix(self._bent, self._distortion, self.size, alpha=0)
        straight = np.asarray(found, dtype=np.float64)
        zoom = np.diag(straight)[:2] / np.diag(self._bent)[:2]
        if not np.isfinite(straight).all() or zoom.min() < 1 / MAX_ZOOM or zoom.max() > MAX_ZOOM:
            raise ImpossibleCameraError("impossible distortion", f"{self._words()} leaves no picture to look at")
        return straight

    def _check_distortion(self) -> None:
        """A lens bends straight lines, but neither folds nor mirrors the picture, nor shows what is not in it."""
        width, height = self.size
        small = np.diag([GRID / width, GRID / height, 1.0]) @ self._straight
        u, v = self._bent_from_straight(small, (GRID, GRID), cv2.CV_32FC1)
        along_x, along_y = np.stack(np.gradient(u)), np.stack(np.gradient(v))  # each: down the rows, along them
        turned = along_x[1] * along_y[0] - along_x[0] * along_y[1]
        margin = MAX_OUTSIDE * max(width, height)
        inside = (np.abs(u - width / 2) < width / 2 + margin) & (np.abs(v - height / 2) < height / 2 + margin)
        if not (np.isfinite(turned).all() and (turned > 0).all() and inside.all()):
            raise ImpossibleCameraError("impossible distortion", f"{self._words()} folds the picture")

    def _bent_from_straight(
        self, straight: Float64[ndarray, "3 3"], size: tuple[int, int], kind: int
    ) -> tuple[ndarray, ndarray]:
        if self._fisheye:
            return cv2.fisheye.initUndistortRectifyMap(
                self._bent, self._distortion[:4], np.eye(3), straight, size, kind
            )
        return cv2.initUndistortRectifyMap(self._bent, self._distortion, None, straight, size, kind)

    def _words(self) -> str:
        shown = ", ".join(f"{value:.4g}" for value in self._distortion)
        return f"D = [{shown}] with focal lengths {self._bent[0, 0]:.4g} and {self._bent[1, 1]:.4g}"


def check_pinhole(matrix: Float64[ndarray, "3 3"], size: tuple[int, int]) -> None:
    """Raise ImpossibleCameraError for a camera matrix in pixels that no camera with images of (width, height) has."""
    width, height = size
    if not 0 < width <= MAX_SIDE or not 0 < height <= MAX_SIDE or width * height > MAX_PIXELS:
        raise ImpossibleCameraError("impossible size", f"{width}x{height}; {SIZE_LIMITS}")
    if not np.isfinite(matrix).all():
        raise ImpossibleCameraError("impossible camera matrix", f"not finite: {matrix.tolist()}")
    focal = np.diag(matrix)[:2]
    centre = matrix[:2, 2]
    side = max(size)
    if (focal < side / MAX_FOCAL).any() or (focal > side * MAX_FOCAL).any():
        allowed = f"{side / MAX_FOCAL:g} to {side * MAX_FOCAL:g} pixels for {width}x{height}"
        raise ImpossibleCameraError("impossible focal length", f"{focal[0]:g} and {focal[1]:g}; possible is {allowed}")
    if (np.abs(centre - np.array(size) / 2) > MAX_OFF_CENTRE * max(side, *focal)).any():
        detail = f"({centre[0]:g}, {centre[1]:g}) is far outside of {width}x{height}"
        raise ImpossibleCameraError("impossible principal point", detail)
    rest = np.array([matrix[0, 1] / focal[0], *(matrix - np.eye(3))[[1, 2, 2, 2], [0, 0, 1, 2]]])
    if np.abs(rest).max() > MAX_SKEW:
        raise ImpossibleCameraError("impossible camera matrix", f"{matrix.tolist()} is no [fx 0 cx; 0 fy cy; 0 0 1]")
