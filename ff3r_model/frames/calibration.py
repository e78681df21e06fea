"""Camera calibration: a camera_info message → intrinsics and a rectifier, checked before use.

Duck-typed, for live robots and bags of ROS 1 and 2 alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ff3r_model.core.types import Frame
from ff3r_model.frames.rectify import (
    FISHEYE_MODELS,
    PINHOLE_MODELS,
    ImpossibleCameraError,
    Rectifier,
    UnknownDistortionError,
)

COEFFICIENTS = {name: (4, 5, 8, 12, 14) for name in PINHOLE_MODELS} | {name: (4,) for name in FISHEYE_MODELS}
"""How many coefficients each distortion model may have."""
MAX_COEFFICIENTS = 64
"""Of any model, known here or not."""


CameraInfo = Any
"""Anything with the fields of sensor_msgs/CameraInfo; ROS 1 writes D, K and P where ROS 2 has d, k and p."""


class CalibrationRejected(ValueError):
    """A camera_info that cannot be used; the message gives the reason. `reason` is a fixed phrase, fit for counting."""

    def __init__(self, text: str, reason: str = "impossible values") -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Calibration:
    """A camera calibration, ready to be applied to images of one size: intrinsics and rectification."""

    height: int
    width: int
    intrinsics: Float[Tensor, "3 3"] | None
    """Of the rectified image; pixel centres at integer + 0.5 (ROS and OpenCV put them at integers). None for a
    distortion that cannot be undone: no pinhole camera describes such images."""
    rectifier: Rectifier
    warning: str = ""
    """What the user should know about this calibration; empty where all is well."""

    def rectify(self, image: UInt8[Tensor, "height width 3"]) -> UInt8[Tensor, "height width 3"]:
        """The image without lens distortion (itself where there is none)."""
        return torch.from_numpy(self.rectifier(image.numpy()))

    def rectify_depth(self, depth: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
        """A depth image registered to the camera's images, straightened as they are; one of another size as it is."""
        if tuple(depth.shape) != (self.height, self.width):
            return depth
        return torch.from_numpy(self.rectifier.depth(depth.numpy()))

    def mismatch(self, frame: Frame) -> str:
        """Why this calibration cannot be of the frame's camera, in words; empty where it can."""
        height, width = frame.image.shape[:2]
        if (height, width) == (self.height, self.width):
            return ""
        sizes = f"camera_info is for {self.width}x{self.height}, images have {width}x{height}"
        return f"{sizes}: not used; resized or cropped images need a camera_info of their own, with binning or roi"

    def apply(self, frame: Frame) -> Frame:
        """The frame, rectified, with its intrinsics; as it is where the calibration is for another size."""
        if self.mismatch(frame):
            return frame
        return replace(frame, image=self.rectify(frame.image), intrinsics=self.intrinsics)


def calibration_from_info(info: CameraInfo, image_is_rectified: bool = False) -> Calibration | None:
    """The calibration in a camera_info message; None for an uncalibrated camera (K all zero).

    With `image_is_rectified` (image_proc's image_rect topics keep D in their camera_info) P is used and nothing is
    undone. Images of a distortion model that nobody knows are left alone, without intrinsics and with a warning.
    Raises CalibrationRejected for values that no camera has.
    """
    matrix = _values(info, "p").reshape(3, 4)[:, :3] if image_is_rectified else _values(info, "k").reshape(3, 3)
    distortion = [] if image_is_rectified else _values(info, "d").tolist()
    if not matrix.any():
        return None
    _check(info, matrix, distortion)
    height, width = image_size(info)
    matrix = _in_image_pixels(matrix, info)
    try:
        rectifier = Rectifier(matrix, distortion, info.distortion_model, (width, height))
    except UnknownDistortionError as error:
        warning = f"{error}: images are used as they are, their intrinsics are unknown"
        return Calibration(height, width, None, Rectifier(matrix, [], "", (width, height)), warning)
    except ImpossibleCameraError as error:
        raise CalibrationRejected(f"camera_info with {error}", error.reason) from error
    return Calibration(height, width, torch.from_numpy(rectifier.intrinsics).float(), rectifier)


def calibration_identity(info: CameraInfo) -> tuple[object, ...]:
    """Everything that matters for the calibration, to compare; headers change all the time."""
    roi = (info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width)
    sizes = (info.height, info.width, info.binning_x, info.binning_y, *roi)
    return (*sizes, info.distortion_model, *(_values(info, name).tobytes() for name in "dkp"))


def image_size(info: CameraInfo) -> tuple[int, int]:
    """(height, width) of the images that this camera_info comes with: region of interest and binning applied."""
    roi = info.roi
    height, width = (roi.height, roi.width) if roi.height and roi.width else (info.height, info.width)
    return height // max(1, info.binning_y), width // max(1, info.binning_x)


def _values(info: CameraInfo, name: str) -> NDArray[np.float64]:
    """The numbers of a field."""
    return np.array(getattr(info, name if hasattr(info, name) else name.upper()), np.float64)


def _in_image_pixels(matrix: NDArray[np.float64], info: CameraInfo) -> NDArray[np.float64]:
    """The camera matrix of the full sensor → of the image: region of interest, then binning."""
    shifted = matrix.copy()
    shifted[:2, 2] += 0.5 - np.array([info.roi.x_offset, info.roi.y_offset])  # binning scales about pixel corners
    shifted[:2] /= np.array([[max(1, info.binning_x)], [max(1, info.binning_y)]])
    shifted[:2, 2] -= 0.5
    return shifted


def _check(info: CameraInfo, matrix: NDArray[np.float64], distortion: list[float]) -> None:
    if info.width == 0 or info.height == 0:
        raise CalibrationRejected(f"camera_info of size {info.width}x{info.height}")
    _check_window(info)
    if len(distortion) > MAX_COEFFICIENTS:
        raise CalibrationRejected(f"no distortion model has {len(distortion)} coefficients")
    if not (np.isfinite(matrix).all() and np.isfinite(distortion).all()):
        raise CalibrationRejected(f"camera_info with values that are not finite: {matrix.tolist()}, D {distortion}")
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise CalibrationRejected(f"focal lengths must be positive, not {matrix[0, 0]} and {matrix[1, 1]}")
    counts = COEFFICIENTS.get(info.distortion_model)
    if counts and any(distortion) and len(distortion) not in counts:
        allowed = " or ".join(map(str, counts))
        raise CalibrationRejected(f"{info.distortion_model} takes {allowed} coefficients, not {len(distortion)}")


def _check_window(info: CameraInfo) -> None:
    """Raises CalibrationRejected where region of interest and binning leave no image."""
    roi = info.roi
    if roi.x_offset + roi.width > info.width or roi.y_offset + roi.height > info.height:
        window = f"{roi.width}x{roi.height} at ({roi.x_offset}, {roi.y_offset})"
        raise CalibrationRejected(f"the region of interest, {window}, is not within {info.width}x{info.height}")
    if 0 in image_size(info):
        binning = f"{info.binning_x}x{info.binning_y}"
        raise CalibrationRejected(f"binning of {binning} leaves nothing of {info.width}x{info.height}")
