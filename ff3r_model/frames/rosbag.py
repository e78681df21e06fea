"""Frames from ROS bags, read without any ROS: images, registered depth and odometry (TF), synchronised."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from rosbags.highlevel import AnyReader

from ff3r_model.core.types import Frame
from ff3r_model.frames.bag_images import BagImages
from ff3r_model.frames.bag_reader import count_messages, open_bag, opened_path, read_messages
from ff3r_model.frames.bag_topics import (
    INFO,
    TF,
    TF_STATIC,
    ImageTopic,
    check_depth,
    check_transforms,
    choose_topic,
    info_topic,
)
from ff3r_model.frames.sensor_sync import SensorSynchronizer, SyncConfig
from ff3r_model.frames.source import NOMINAL_FPS
from ff3r_model.frames.stamps import stamp_by_arrival
from ff3r_model.frames.transforms import TransformBuffer

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds of the recording that a frame waits for its depth and its pose: nobody waits for a bag's frames."""


class BagSource:
    """The images of one topic of a bag, rectified by the camera_info that holds at their time, where one fits them.

    `depth_topic` holds depth images registered to them; `odom_frame` is the TF frame in which the camera's poses are
    wanted. Both come with the frames by the same rules as on a live robot.
    """

    def __init__(
        self, path: Path, topic: str | None = None, depth_topic: str | None = None, odom_frame: str | None = None
    ) -> None:
        """Opens `topic`, or the topic with the most colour images, and logs what was found.

        Raises SourceError for a damaged bag, and one that lists the bag's topics when one that is needed is missing or
        cannot be used.
        """
        self.path, self.name = path, path.name
        self.depth_topic, self.odom_frame = depth_topic, odom_frame
        with open_bag(path) as reader:
            self._images, others = choose_topic(reader, path, topic)
            if depth_topic is not None:
                check_depth(reader, path, depth_topic)
            if odom_frame is not None:
                check_transforms(reader, path, odom_frame)
            log.info("%s: %s", path, self._found(reader, others))
            self._opened = opened_path(reader)
            seconds = reader.duration / 1e9
        self.topic = self._images.name
        self.count: int | None = self._images.count or None
        self.fps = (self._images.count - 1) / seconds if self._images.count > 1 and seconds > 0 else NOMINAL_FPS

    def __iter__(self) -> Iterator[Frame]:
        frames: list[Frame] = []
        transforms = TransformBuffer()
        synchronizer = SensorSynchronizer(
            SyncConfig(self.depth_topic is not None, self.odom_frame or "", max_wait=PATIENCE),
            transforms,
            lambda frame, arrival: frames.append(frame),
            lambda text: log.warning("%s: %s", self.path, text),
        )
        images = BagImages(self.path, self._images)
        with open_bag(self._opened) as reader:
            # What is mounted, and how the camera sees, is known from the beginning, whenever it was recorded.
            if self.odom_frame is not None:
                for _, _, message in read_messages(reader, TF_STATIC):
                    transforms.add(message.transforms, static=True)
            for _, received, info in read_messages(reader, info_topic(self.topic), kind=INFO):
                images.calibrations.add(info, received)
            # Everything else comes in the order of its recording, as it came on the robot.
            for connection, received, message in read_messages(reader, *self._topics):
                if connection.topic == self.depth_topic:
                    stamp_by_arrival(message.header, received)
                    synchronizer.take_depth(message)
                elif connection.topic != self.topic:
                    transforms.add(message.transforms)
                elif (taken := images.take(message, received)) is not None:
                    synchronizer.take_frame(*taken)
                synchronizer.pump(received / 1e9)
                yield from frames
                frames.clear()
        # At the end nothing more comes for the frames that still wait.
        if (taken := images.last()) is not None:
            synchronizer.take_frame(*taken)
        synchronizer.clear()
        yield from frames
        images.report()
        for reason, count in sorted(synchronizer.missing.items()):
            log.warning("%s: %d frames: %s", self.path, count, reason)
        for reason, count in sorted(transforms.rejected.items()):
            log.warning("%s: %d transforms not used: %s", self.path, count, reason)

    @property
    def _topics(self) -> list[str]:
        """What is read in the order of its recording."""
        wanted = [self.topic, self.depth_topic, None if self.odom_frame is None else TF]
        return [topic for topic in wanted if topic is not None]

    def _found(self, reader: AnyReader, others: list[ImageTopic]) -> str:
        """What the frames are made of, in words."""
        images = f"images of {self._images.name} ({self._images.count})"
        if others:
            images += f", not of {', '.join(f'{topic.name} ({topic.count})' for topic in others)}"
        name = info_topic(self._images.name)
        calibrated = name
        if not count_messages(reader, name):
            elsewhere = sorted({item.topic for item in reader.connections if item.msgtype == INFO})
            calibrated = f"none, as there is no {name}{' but ' if elsewhere else ''}{', '.join(elsewhere)}"
        depth, odometry = self.depth_topic or "not asked for", self.odom_frame or "not asked for"
        return f"{images}; calibration: {calibrated}; depth: {depth}; odometry: {odometry}"
