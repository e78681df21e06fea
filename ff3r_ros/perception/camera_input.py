"""Camera input: one camera's messages → frames, decoded and rectified; what goes wrong is counted and logged once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ff3r_model.core.types import Frame
from ff3r_model.frames.calibration import (
    Calibration,
    CalibrationRejected,
    calibration_from_info,
    calibration_identity,
)
from ff3r_model.frames.image_messages import ImageRejected
from ff3r_model.frames.stamps import nanoseconds_from_time
from ff3r_ros.conversions.image_decoding import decode


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
        self.name = ""
        """TF frame of the newest image."""

    def take_info(self, info: CameraInfo) -> None:
        """Remember the calibration; maps are built only when something changed."""
        key = calibration_identity(info)
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
            image = decode(message)
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
        self.name = message.header.frame_id
        return self._calibrated(Frame(image, stamp, camera_name=self.name))

    @property
    def calibration(self) -> Calibration | None:
        """By which the newest frame was rectified, and its depth image shall be."""
        return self._calibration

    def _calibrated(self, frame: Frame) -> Frame:
        if self._calibration is None:
            self.uncalibrated += self._info is not None
            return frame
        self.problem = self._calibration.mismatch(frame)
        if self.problem:
            self.uncalibrated += 1
            self._warn_once(self.problem)
        return self._calibration.apply(frame)

    def _warn_once(self, text: str, key: str = "") -> None:
        if (key or text) not in self._warned:
            self._warned.add(key or text)
            self._warn(text)
