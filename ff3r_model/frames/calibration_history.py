"""Calibration history of a recording: the camera_info that holds at an image's time (zoom, other resolutions)."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

from ff3r_model.frames.calibration import (
    Calibration,
    CalibrationRejected,
    calibration_from_info,
    calibration_identity,
)
from ff3r_model.frames.stamps import nanoseconds_from_time


class CalibrationHistory:
    """The camera_info messages of a recording, those that changed something; rectifiers are made when they are needed.

    `warn(text)` is called once for each reason why one that is asked for cannot be used.
    """

    def __init__(self, image_is_rectified: bool, warn: Callable[[str], None]) -> None:
        self._image_is_rectified, self._warn = image_is_rectified, warn
        self._stamps: list[int] = []
        self._infos: list[Any] = []
        self._identity: tuple[object, ...] | None = None
        self._made: tuple[int, Calibration | None] = (-1, None)
        self._warned: set[str] = set()

    def __len__(self) -> int:
        """How many different ones followed each other."""
        return len(self._infos)

    def add(self, info: Any, received: int) -> None:
        """A camera_info and when it was recorded (ns), which is its time where it has no stamp."""
        identity = calibration_identity(info)
        if identity == self._identity:
            return
        self._identity = identity
        stamp = nanoseconds_from_time(info.header.stamp) or received
        place = bisect.bisect_right(self._stamps, stamp)
        self._stamps.insert(place, stamp)
        self._infos.insert(place, info)

    def at(self, stamp: int) -> Calibration | None:
        """The calibration of an image taken at `stamp` (ns): the last one before, or where there is none, the first.

        None where that cannot be used.
        """
        if not self._infos:
            return None
        place = max(0, bisect.bisect_right(self._stamps, stamp) - 1)
        if place != self._made[0]:
            self._made = place, self._calibration(self._infos[place])
        return self._made[1]

    def _calibration(self, info: Any) -> Calibration | None:
        try:
            calibration = calibration_from_info(info, self._image_is_rectified)
        except CalibrationRejected as rejection:
            self._warn_once(rejection.reason, f"camera_info not used: {rejection}")
            return None
        if calibration is None:
            self._warn_once("zero", "camera_info says that the camera is not calibrated (K is zero): not used")
        elif calibration.warning:
            self._warn_once("distortion model", calibration.warning)
        return calibration

    def _warn_once(self, reason: str, text: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            self._warn(text)
