"""Frames from ROS bags, read without any ROS: images, registered depth and odometry (TF), synchronised."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ff3r_model.core.types import Frame
from ff3r_model.frames.bag_reader import (
    TF,
    TF_STATIC,
    calibration_beside,
    check_depth,
    check_transforms,
    choose_topic,
    count_messages,
    open_bag,
    read_messages,
)
from ff3r_model.frames.calibration import Calibration
from ff3r_model.frames.image_messages import ImageRejected, decode
from ff3r_model.frames.sensor_sync import SensorSynchronizer, SyncConfig
from ff3r_model.frames.source import NOMINAL_FPS
from ff3r_model.frames.stamps import nanoseconds_from_time
from ff3r_model.frames.transforms import TransformBuffer

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds of the recording that a frame waits for its depth and its pose: nobody waits for a bag's frames."""


class BagSource:
    """The images of one topic of a bag, rectified where the bag holds a camera_info that fits them.

    `depth_topic` holds depth images registered to them; `odom_frame` is the TF frame in which the camera's poses are
    wanted. Both come with the frames by the same rules as on a live robot.
    """

    def __init__(
        self, path: Path, topic: str | None = None, depth_topic: str | None = None, odom_frame: str | None = None
    ) -> None:
        """Opens `topic`, or the topic with the most colour images.

        Raises SourceError for a damaged bag, and one that lists the bag's topics when one that is needed is missing or
        cannot be used.
        """
        self.path, self.name = path, path.name
        self.depth_topic, self.odom_frame = depth_topic, odom_frame
        with open_bag(path) as reader:
            self.topic = choose_topic(reader, path, topic)
            if depth_topic is not None:
                check_depth(reader, path, depth_topic)
            if odom_frame is not None:
                check_transforms(reader, path, odom_frame)
            self.count: int | None = count_messages(reader, self.topic)
            seconds = reader.duration / 1e9
            self._calibration = calibration_beside(reader, self.topic)
        self.fps = (self.count - 1) / seconds if self.count > 1 and seconds > 0 else NOMINAL_FPS

    def __iter__(self) -> Iterator[Frame]:
        frames: list[Frame] = []
        transforms = TransformBuffer()
        synchronizer = SensorSynchronizer(
            SyncConfig(self.depth_topic is not None, self.odom_frame or "", max_wait=PATIENCE),
            transforms,
            lambda frame, arrival: frames.append(frame),
            lambda text: log.warning("%s: %s", self.path, text),
            self._calibration.rectify_depth if self._calibration else lambda depth: depth,
        )
        images = _Images(self._calibration)
        with open_bag(self.path) as reader:
            # What is mounted is known from the beginning, whenever it was recorded.
            if self.odom_frame is not None:
                for _, _, message in read_messages(reader, TF_STATIC):
                    transforms.add(message.transforms, static=True)
            # Everything else comes in the order of its recording, as it came on the robot.
            for connection, received, message in read_messages(reader, *self._topics):
                if connection.topic == self.depth_topic:
                    synchronizer.take_depth(message)
                elif connection.topic != self.topic:
                    transforms.add(message.transforms)
                elif (frame := images.frame(message, received)) is not None:
                    synchronizer.take_frame(frame, received / 1e9)
                synchronizer.pump(received / 1e9)
                yield from frames
                frames.clear()
        # At the end nothing more comes for the frames that still wait.
        synchronizer.clear()
        yield from frames
        images.report(self.path, self.topic, self.count)
        for reason, count in sorted(synchronizer.missing.items()):
            log.warning("%s: %d frames: %s", self.path, count, reason)

    @property
    def _topics(self) -> list[str]:
        """What is read in the order of its recording."""
        wanted = [self.topic, self.depth_topic, None if self.odom_frame is None else TF]
        return [topic for topic in wanted if topic is not None]


class _Images:
    """A topic's image messages → frames; counts those that were of no use."""

    def __init__(self, calibration: Calibration | None) -> None:
        self._calibration = calibration
        self._failed = self._unfit = 0
        self._reason = ""

    def frame(self, message: Any, received: int) -> Frame | None:
        """The frame, rectified; None for an image that cannot be decoded."""
        try:
            image = decode(message)
        except ImageRejected as rejection:
            self._failed += 1
            self._reason = str(rejection)
            return None
        stamp = nanoseconds_from_time(message.header.stamp) or received
        frame = Frame(image, stamp, camera_name=message.header.frame_id)
        if self._calibration is None:
            return frame
        self._unfit += bool(self._calibration.mismatch(frame))
        return self._calibration.apply(frame)

    def report(self, path: Path, topic: str, count: int | None) -> None:
        """Log what was left out."""
        if self._failed:
            log.warning("%s: %d of %s images on %s left out: %s", path, self._failed, count, topic, self._reason)
        if self._unfit:
            log.warning("%s: %d images on %s differ in size from their camera_info", path, self._unfit, topic)
