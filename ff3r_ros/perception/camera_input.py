"""One camera's messages → frames: decoded, rectified, with what went wrong counted and said once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from jaxtyping import Float
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from torch import Tensor

from ff3r_model.core.types import Frame
from ff3r_ros.conversions.calibration import Calibration, CalibrationRejected, calibration_from_info
from ff3r_ros.conversions.image_decoding import ImageRejected, ImageTensor, decode_compressed, decode_image
from ff3r_ros.conversions.messages import nanoseconds_from_time


class CameraInput:
    """Turns image messages into frames with the newest camera_info.

    `warn(text)` is called once per kind of trouble, `now()` gives nanoseconds for images without a stamp.
    """

    def __init__(self, warn: Callable[[str], None], now: Callable[[], int], image_is_rectified: bool = False) -> None:
        self._warn, self._now, self._image_is_rectified = warn, now, image_is_rectified
        self._calibration: Calibration | None = None
        self._info: tuple[object, ...] | None = None
        self._warned: set[str] = set()
        self.received = 0
        self.dropped: Counter[str] = Counter()
        """Messages that never became frames, by reason."""
        self.uncalibrated = 0
        """Frames whose camera_info could not be used (wrong size, impossible values)."""
        self.problem = ""
        """What is wrong with the newest image; empty where nothing is."""

    def take_info(self, info: CameraInfo) -> None:
        """Remember the calibration; maps are built only when something changed."""
        key = _identity(info)
        if key == self._info:
            return
        self._info, self._calibration = key, None
        try:
            self._calibration = calibration_from_info(info, self._image_is_rectified)
        except CalibrationRejected as rejection:
            self._warn_once(f"camera_info not used: {rejection}")
            return
        if self._calibration is None:
            self._warn_once("camera_info says that the camera is not calibrated (K is zero): not used")
        elif self._calibration.warning:
            self._warn_once(self._calibration.warning)

    def take_image(self, message: Image | CompressedImage) -> Frame | None:
        """The frame in an image message; None, counted and said in `problem`, where there is none."""
        self.received += 1
        try:
            image = decode_image(message) if isinstance(message, Image) else decode_compressed(message)
        except ImageRejected as rejection:
            self.dropped[rejection.reason] += 1
            self.problem = str(rejection)
            self._warn_once(f"image dropped: {rejection}", key=rejection.reason)
            return None
        self.problem = ""
        stamp = nanoseconds_from_time(message.header.stamp)
        if stamp == 0:
            self._warn_once("images carry no stamp: the time of their arrival is used")
            stamp = self._now()
        return self._calibrated(image, stamp, message.header.frame_id)

    def rectify_depth(self, depth: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
        """A depth image registered to the camera's images, straightened as they are."""
        calibration = self._calibration
        if calibration is None or tuple(depth.shape) != (calibration.height, calibration.width):
            return depth
        return torch.from_numpy(calibration.rectifier.depth(depth.numpy()))

    def _calibrated(self, image: ImageTensor, stamp: int, frame_id: str) -> Frame:
        calibration = self._calibration
        if calibration is None:
            self.uncalibrated += self._info is not None
            return Frame(image, stamp, None, frame_id)
        height, width = image.shape[:2]
        if (height, width) != (calibration.height, calibration.width):
            self.uncalibrated += 1
            self.problem = (
                f"camera_info is for {calibration.width}x{calibration.height}, images have {width}x{height}: not used"
            )
            self._warn_once(self.problem)
            return Frame(image, stamp, None, frame_id)
        return Frame(calibration.rectify(image), stamp, calibration.intrinsics, frame_id)

    def _warn_once(self, text: str, key: str = "") -> None:
        if (key or text) not in self._warned:
            self._warned.add(key or text)
            self._warn(text)


def _identity(info: CameraInfo) -> tuple[object, ...]:
    """Everything that matters for the calibration; headers change all the time."""
    roi = (info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width)
    sizes = (info.height, info.width, info.binning_x, info.binning_y, *roi)
    return (*sizes, info.distortion_model, info.d.tobytes(), info.k.tobytes(), info.p.tobytes())
