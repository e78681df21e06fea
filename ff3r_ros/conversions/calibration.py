"""camera_info → intrinsics and a rectifier, checked before use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo
from torch import Tensor

from ff3r_model.frames.rectify import FISHEYE_MODELS, PINHOLE_MODELS, Rectifier, UnknownDistortionError

COEFFICIENTS = {name: (4, 5, 8, 12, 14) for name in PINHOLE_MODELS} | {name: (4,) for name in FISHEYE_MODELS}
"""How many coefficients each distortion model may have."""


class CalibrationRejected(ValueError):
    """A camera_info that cannot be used; the message says why."""


@dataclass(frozen=True)
class Calibration:
    """What a camera_info says, ready to be applied to images of one size."""

    height: int
    width: int
    intrinsics: Float[Tensor, "3 3"]
    """Of the rectified image; pixel centres at integer + 0.5 (ROS and OpenCV put them at integers)."""
    rectifier: Rectifier
    warning: str = ""
    """What the user should know about this calibration; empty where all is well."""

    def rectify(self, image: UInt8[Tensor, "height width 3"]) -> UInt8[Tensor, "height width 3"]:
        """The image without lens distortion (itself where there is none)."""
        straight = self.rectifier(image.numpy())
        return torch.from_numpy(straight)


def calibration_from_info(info: CameraInfo, image_is_rectified: bool = False) -> Calibration | None:
    """The calibration in a camera_info message; None for an uncalibrated camera (K all zero).

    With `image_is_rectified` (image_proc's image_rect topics keep D in their camera_info) P is used and nothing is
    undone. A distortion model that nobody knows is left alone, with a warning in the result.
    Raises CalibrationRejected for values that no camera has.
    """
    height, width = image_size(info)
    matrix = np.array(info.p, np.float64).reshape(3, 4)[:, :3] if image_is_rectified else _matrix(info)
    distortion = [] if image_is_rectified else [float(value) for value in info.d]
    if not matrix.any():
        return None
    _check(info, matrix, distortion)
    matrix, warning = _in_image_pixels(matrix, info), ""
    try:
        rectifier = Rectifier(matrix, distortion, info.distortion_model, (width, height))
    except UnknownDistortionError as error:
        rectifier, warning = Rectifier(matrix, [], "", (width, height)), f"{error}: images are used as they are"
    intrinsics = torch.from_numpy(rectifier.intrinsics).float()
    return Calibration(height, width, intrinsics, rectifier, warning)


def image_size(info: CameraInfo) -> tuple[int, int]:
    """(height, width) of the images that this camera_info comes with: region of interest and binning applied."""
    roi = info.roi
    height, width = (roi.height, roi.width) if roi.height and roi.width else (info.height, info.width)
    return height // max(1, info.binning_y), width // max(1, info.binning_x)


def _matrix(info: CameraInfo) -> NDArray[np.float64]:
    return np.array(info.k, np.float64).reshape(3, 3)


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
    if not (np.isfinite(matrix).all() and np.isfinite(distortion).all()):
        raise CalibrationRejected(f"camera_info with values that are not finite: {matrix.tolist()}, D {distortion}")
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise CalibrationRejected(f"focal lengths must be positive, not {matrix[0, 0]} and {matrix[1, 1]}")
    counts = COEFFICIENTS.get(info.distortion_model)
    if counts and any(distortion) and len(distortion) not in counts:
        allowed = " or ".join(map(str, counts))
        raise CalibrationRejected(f"{info.distortion_model} takes {allowed} coefficients, not {len(distortion)}")
