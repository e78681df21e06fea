"""Camera input: one camera's messages → frames, decoded and rectified; what goes wrong is counted and logged once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ff3r_model.core.types import Frame
from ff3r_model.frames.calibration import (
    Calibration,
    CalibrationRejected,
    calibration_from_info,
    calibration_identity,
)
from ff3r_model.frames.image_messages import ImageRejected
from ff3r_model.frames.stamps import LEAP, StampGate, is_time, nanoseconds_from_time
from ff3r_model.frames.transforms import MAX_NAME
from ff3r_ros.conversions.image_decoding import decode


class CameraInput:
    """Turns image messages into frames with the newest camera_info.

    `warn(text)` is called once per kind of trouble, `now()` gives nanoseconds for images without a stamp.
    """

    def __init__(self, warn: Callable[[str], None], now: Callable[[], int], image_is_rectified: bool = False) -> None:
        self._warn, self._now, self._image_is_rectified = warn, now, image_is_rectified
        self._calibration: Calibration | None = None
        self._info: tuple[object, ...] | None = None
        self._info_problem = ""
        self._gate, self._stamped = StampGate(LEAP, LEAP), False
        self._warned: set[str] = set()
        self.received = 0
        self.arrival = time.monotonic()
        """Of the newest image, seconds; of this object before there is one."""
        self.dropped: Counter[str] = Counter()
        """Messages that never became frames, by reason."""
        self.rejected_infos: Counter[str] = Counter()
        """Messages with a new camera_info that could not be used, by reason."""
        self.uncalibrated = 0
        """Frames whose camera_info could not be used (wrong size, impossible values)."""
        self.problem = ""
        """What is wrong with the newest image; empty where nothing is."""
        self.name = ""
        """TF frame of the newest image."""

    def take_info(self, info: CameraInfo) -> None:
        """Remember the calibration; nothing is computed but when something changed."""
        key = calibration_identity(info)
        if key == self._info:
            return
        self._info, self._calibration, self._info_problem = key, None, ""
        try:
            self._calibration = calibration_from_info(info, self._image_is_rectified)
        except CalibrationRejected as rejection:
            self.rejected_infos[rejection.reason] += 1
            self._info_problem = f"camera_info not used: {rejection}"
            self._warn_once(self._info_problem, key=rejection.reason)
            return
        if self._calibration is None:
            self._warn_once("camera_info says that the camera is not calibrated (K is zero): not used")
        elif self._calibration.warning:
            self._warn_once(self._calibration.warning, key="distortion model")

    def take_image(self, message: Image | CompressedImage) -> Frame | None:
        """The frame in an image message; None, counted and said in `problem`, where there is none."""
        self.received += 1
        self.arrival = time.monotonic()
        try:
            image = decode(message)
            stamp = self._stamp(message.header)
        except ImageRejected as rejection:
            self.dropped[rejection.reason] += 1
            self.problem = str(rejection)
            self._warn_once(f"image dropped: {rejection}", key=rejection.reason)
            return None
        self.name = message.header.frame_id
        return self._calibrated(Frame(image, stamp, camera_name=self.name))

    @property
    def calibration(self) -> Calibration | None:
        """By which the newest frame was rectified, and its depth image shall be."""
        return self._calibration

    def _stamp(self, head: Header) -> int:
        """Nanoseconds. Raises ImageRejected for a header that no camera writes."""
        if len(head.frame_id) > MAX_NAME:
            raise ImageRejected("impossible frame_id", f"{len(head.frame_id)} characters, at most {MAX_NAME} are used")
        if not is_time(head.stamp):
            raise ImageRejected("impossible stamp", f"{head.stamp.sec} s and {head.stamp.nanosec} ns")
        stamp = nanoseconds_from_time(head.stamp)
        if stamp == 0 and self._stamped:
            raise ImageRejected("no stamp", "the stamp is 0, as it is not in others")
        if stamp == 0:
            self._warn_once("images carry no stamp: the time of their arrival is used")
            return self._now()
        if self._gate.judge(stamp) == "stray":
            raise ImageRejected("stamp far from those before", f"{stamp / 1e9:.3f} s; a second one like it is believed")
        self._stamped = True
        return stamp

    def _calibrated(self, frame: Frame) -> Frame:
        if self._calibration is None:
            self.problem = self._info_problem
            self.uncalibrated += self._info is not None
            return frame
        self.problem = self._calibration.mismatch(frame)
        if self.problem:
            self.uncalibrated += 1
            self._warn_once(self.problem, key="size")
        return self._calibration.apply(frame)

    def _warn_once(self, text: str, key: str = "") -> None:
        if (key or text) not in self._warned:
            self._warned.add(key or text)
            self._warn(text)
