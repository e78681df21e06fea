"""Frames from ROS bags, read without any ROS through `rosbags`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from ff3r_model.core.types import Frame
from ff3r_model.frames.calibration import Calibration, CalibrationRejected, calibration_from_info
from ff3r_model.frames.image_messages import ImageRejected, decode_compressed, decode_depth, decode_image, holds_depth
from ff3r_model.frames.sensor_sync import SensorSynchronizer, SyncConfig
from ff3r_model.frames.source import NOMINAL_FPS, SourceError
from ff3r_model.frames.stamps import nanoseconds_from_time
from ff3r_model.frames.transforms import TransformBuffer

log = logging.getLogger(__name__)

RAW, COMPRESSED, INFO = (f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo"))
TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "zstd")
"""Last parts of topic names that image_transport appends; the camera_info lies beside what comes before."""
TF, TF_STATIC = "/tf", "/tf_static"
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
        with _opened(path) as reader:
            self.topic = _choose(reader, path, topic)
            if depth_topic is not None:
                _check_depth(reader, path, depth_topic)
            if odom_frame is not None:
                _check_transforms(reader, path, odom_frame)
            self.count: int | None = _count(reader, self.topic)
            seconds = reader.duration / 1e9
            self._calibration = _calibration(reader, self.topic)
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
        with _opened(self.path) as reader:
            if self.odom_frame is not None:
                for _, _, message in _messages(reader, TF_STATIC):
                    transforms.add(message.transforms, static=True)
            for connection, received, message in _messages(reader, *self._topics):
                if connection.topic == self.depth_topic:
                    synchronizer.take_depth(message)
                elif connection.topic != self.topic:
                    transforms.add(message.transforms)
                elif (frame := images.frame(message, received)) is not None:
                    synchronizer.take_frame(frame, received / 1e9)
                synchronizer.pump(received / 1e9)
                yield from frames
                frames.clear()
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
            image = decode_compressed(message) if hasattr(message, "format") else decode_image(message)
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


@contextmanager
def _opened(path: Path) -> Iterator[AnyReader]:
    """A reader of the bag. Raises SourceError where rosbags cannot open it."""
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = sorted(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
        if len(files) > 1:
            raise SourceError(f"{path} has no metadata.yaml and {len(files)} recordings; name one, e.g. {files[0]}")
        path = files[0] if files else path
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except Exception as error:  # rosbags raises many kinds for damaged bags: its own, struct, yaml, sqlite, assertions
        raise SourceError(f"{path} cannot be read as a ROS bag: {error or type(error).__name__}") from error
    try:
        yield reader
    finally:
        reader.close()


@dataclass(frozen=True)
class _Candidate:
    """One image topic and what its first message shows."""

    topic: str
    count: int
    color: bool = False
    refusal: str = ""
    """Why its images cannot be used; empty where they can."""


def _choose(reader: AnyReader, path: Path, wanted: str | None) -> str:
    """The wanted image topic, or the one with the most colour images; else the one with the most grey ones."""
    topics = sorted({item.topic for item in reader.connections if item.msgtype in (RAW, COMPRESSED)})
    if wanted is not None and wanted not in topics:
        raise SourceError(f"{path} has no image topic {wanted!r}; its topics:\n{_listing(reader)}")
    candidates = [_look(reader, topic) for topic in ([wanted] if wanted else topics)]
    usable = [candidate for candidate in candidates if not candidate.refusal]
    if not usable:
        reasons = "; ".join(f"{item.topic}: {item.refusal}" for item in candidates) or "it has no image topic"
        raise SourceError(f"{path} has no usable colour images: {reasons}; its topics:\n{_listing(reader)}")
    return min(usable, key=lambda item: (not item.color, -item.count, item.topic)).topic


def _look(reader: AnyReader, topic: str) -> _Candidate:
    count = _count(reader, topic)
    for _, _, message in _messages(reader, topic):
        if depth := holds_depth(message):
            return _Candidate(topic, count, refusal=depth)
        try:
            image = decode_compressed(message) if hasattr(message, "format") else decode_image(message)
        except ImageRejected as rejection:
            return _Candidate(topic, count, refusal=str(rejection))
        grey = bool((image == image[..., :1]).all())
        return _Candidate(topic, count, color=not grey)
    return _Candidate(topic, 0, refusal="no messages")


def _check_depth(reader: AnyReader, path: Path, topic: str) -> None:
    """Raises SourceError unless the topic begins with a depth image."""
    if topic not in {item.topic for item in reader.connections if item.msgtype == RAW}:
        raise SourceError(f"{path} has no topic {topic!r} of {RAW} for depth; its topics:\n{_listing(reader)}")
    try:
        decode_depth(next(message for _, _, message in _messages(reader, topic)))
    except (StopIteration, ImageRejected) as error:
        reason = str(error) or "no messages"
        raise SourceError(f"{path} has no depth on {topic}: {reason}; its topics:\n{_listing(reader)}") from error


def _check_transforms(reader: AnyReader, path: Path, odom_frame: str) -> None:
    """Raises SourceError for a bag without /tf."""
    if not _count(reader, TF):
        wanted = f"so no pose of the camera in {odom_frame!r} is known"
        raise SourceError(f"{path} has no {TF}, {wanted}; its topics:\n{_listing(reader)}")


def _calibration(reader: AnyReader, topic: str) -> Calibration | None:
    """What the camera_info beside the image topic says, or None with the reason logged."""
    name = _info_topic(topic)
    info = next((message for _, _, message in _messages(reader, name, kind=INFO)), None)
    if info is None:
        return None
    rectified = "rect" in PurePosixPath(topic).name or "rect" in PurePosixPath(topic).parent.name
    try:
        calibration = calibration_from_info(info, rectified)
    except CalibrationRejected as rejection:
        log.warning("%s is unused: %s", name, rejection)
        return None
    if calibration is None:
        log.warning("%s is not calibrated (its camera matrix is zero): unused", name)
    elif calibration.warning:
        log.warning("%s: %s", name, calibration.warning)
    return calibration


def _info_topic(topic: str) -> str:
    """/camera/image_raw/compressed → /camera/camera_info."""
    path = PurePosixPath(topic)
    return str((path.parent if path.name in TRANSPORTS else path).parent / "camera_info")


def _messages(reader: AnyReader, *topics: str, kind: str | None = None) -> Iterator[tuple[Connection, int, Any]]:
    """(connection, nanoseconds of its recording, message) of all messages on the topics, in the order of recording."""
    connections = [item for item in reader.connections if item.topic in topics and kind in (None, item.msgtype)]
    if not connections:  # rosbags takes an empty list for "all"
        return
    for connection, received, raw in reader.messages(connections):
        yield connection, received, reader.deserialize(raw, connection.msgtype)


def _count(reader: AnyReader, topic: str) -> int:
    return sum(connection.msgcount for connection in reader.connections if connection.topic == topic)


def _listing(reader: AnyReader) -> str:
    rows = sorted({(item.topic, item.msgtype) for item in reader.connections})
    return "\n".join(f"  {topic}  {kind}  {_count(reader, topic)} messages" for topic, kind in rows) or "  none"
