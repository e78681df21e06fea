"""Image messages of a bag → frames, stamped and rectified; what is left out is counted and said."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from ff3r_model.core.types import Frame
from ff3r_model.frames.bag_topics import ImageTopic
from ff3r_model.frames.calibration import Calibration
from ff3r_model.frames.calibration_history import CalibrationHistory
from ff3r_model.frames.image_messages import ImageRejected, decode
from ff3r_model.frames.stamps import is_time, nanoseconds_from_time

log = logging.getLogger(__name__)

JUMP = 10**9
"""Nanoseconds by which an image's stamp must differ from both of its neighbours' to be no time at all."""
Taken = tuple[Frame, float, Calibration | None]
"""A frame, seconds of its recording, and the calibration that it was rectified by."""


class BagImages:
    """One topic's image messages → frames, one behind, so that a wrong stamp between right ones can be seen."""

    def __init__(self, path: Path, topic: ImageTopic) -> None:
        self._path, self._topic = path, topic
        name = PurePosixPath(topic.name)
        rectified = "rect" in name.name or "rect" in name.parent.name
        self.calibrations = CalibrationHistory(rectified, lambda text: log.warning("%s: %s", path, text))
        self._held: Taken | None = None
        self._before: int | None = None
        self._left_out: Counter[str] = Counter()
        self._example: dict[str, str] = {}
        self._unfit: Counter[str] = Counter()

    def take(self, message: Any, received: int) -> Taken | None:
        """A new message; returns the frame before it, if that can be used."""
        try:
            stamp = self._stamp(message, received)
            image = decode(message)
        except ImageRejected as rejection:
            self._leave_out(rejection)
            return None
        frame = Frame(image, stamp, camera_name=message.header.frame_id)
        calibration = self.calibrations.at(stamp)
        if calibration is not None:
            frame = self._calibrated(frame, calibration)
        elif len(self.calibrations):
            self._unfit["their camera_info cannot be used"] += 1
        before, self._held = self._held, (frame, received / 1e9, calibration)
        return None if before is None else self._checked(before, stamp)

    def last(self) -> Taken | None:
        """The frame that is still held, when nothing more comes."""
        last, self._held = self._held, None
        return last

    def report(self) -> None:
        """Log what was left out."""
        for reason, count in self._left_out.most_common():
            where = f"{count} of {self._topic.count} images on {self._topic.name}"
            log.warning("%s: %s left out: %s", self._path, where, self._example[reason])
        for mismatch, count in self._unfit.most_common():
            log.warning("%s: %d images on %s: %s", self._path, count, self._topic.name, mismatch)

    def _stamp(self, message: Any, received: int) -> int:
        """Nanoseconds of the exposure; of the recording, where the topic has no stamps at all."""
        if not is_time(message.header.stamp):
            detail = f"{message.header.stamp.sec} s and {message.header.stamp.nanosec} ns"
            raise ImageRejected("impossible stamp", detail)
        stamp = nanoseconds_from_time(message.header.stamp)
        if stamp == 0 and self._topic.stamped:
            raise ImageRejected("no stamp", "the stamp is 0, as it is not in others")
        return stamp or received

    def _calibrated(self, frame: Frame, calibration: Calibration) -> Frame:
        if mismatch := calibration.mismatch(frame):
            self._unfit[mismatch] += 1
        return calibration.apply(frame)

    def _checked(self, taken: Taken, after: int) -> Taken | None:
        """The frame, unless its stamp lies apart from both neighbours', which follow each other."""
        stamp, before = taken[0].stamp, self._before
        early = before is not None and stamp < before - JUMP
        late = stamp > after + JUMP
        if (early or late) and (before is None or before <= after):
            self._leave_out(ImageRejected("impossible stamp", f"{stamp} ns between {before} and {after} ns"))
            return None
        self._before = stamp
        return taken

    def _leave_out(self, rejection: ImageRejected) -> None:
        self._left_out[rejection.reason] += 1
        self._example.setdefault(rejection.reason, str(rejection))
