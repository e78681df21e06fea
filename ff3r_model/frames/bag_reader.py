"""ROS bag reader (through `rosbags`): messages, the choice of topics, and the camera calibration beside them."""

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

from ff3r_model.frames.calibration import Calibration, CalibrationRejected, calibration_from_info
from ff3r_model.frames.image_messages import ImageRejected, decode, decode_depth, holds_depth
from ff3r_model.frames.source import SourceError

log = logging.getLogger(__name__)

RAW, COMPRESSED, INFO = (f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo"))
TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "zstd")
"""Last parts of topic names that image_transport appends; the camera_info lies beside what comes before."""
TF, TF_STATIC = "/tf", "/tf_static"


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
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


def choose_topic(reader: AnyReader, path: Path, wanted: str | None) -> str:
    """The wanted image topic, or the one with the most colour images; else the one with the most grey ones.

    Raises SourceError, with the bag's topics, where there is none that can be used.
    """
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
    count = count_messages(reader, topic)
    for _, _, message in read_messages(reader, topic):
        if depth := holds_depth(message):
            return _Candidate(topic, count, refusal=depth)
        try:
            image = decode(message)
        except ImageRejected as rejection:
            return _Candidate(topic, count, refusal=str(rejection))
        grey = bool((image == image[..., :1]).all())
        return _Candidate(topic, count, color=not grey)
    return _Candidate(topic, 0, refusal="no messages")


def check_depth(reader: AnyReader, path: Path, topic: str) -> None:
    """Raises SourceError unless the topic begins with a depth image."""
    if topic not in {item.topic for item in reader.connections if item.msgtype in (RAW, COMPRESSED)}:
        raise SourceError(f"{path} has no image topic {topic!r} for depth; its topics:\n{_listing(reader)}")
    try:
        decode_depth(next(message for _, _, message in read_messages(reader, topic)))
    except (StopIteration, ImageRejected) as error:
        reason = str(error) or "no messages"
        raise SourceError(f"{path} has no depth on {topic}: {reason}; its topics:\n{_listing(reader)}") from error


def check_transforms(reader: AnyReader, path: Path, odom_frame: str) -> None:
    """Raises SourceError for a bag without /tf."""
    if not count_messages(reader, TF):
        wanted = f"so no pose of the camera in {odom_frame!r} is known"
        raise SourceError(f"{path} has no {TF}, {wanted}; its topics:\n{_listing(reader)}")


def calibration_beside(reader: AnyReader, topic: str) -> Calibration | None:
    """The camera calibration (camera_info) beside the image topic, or None with the reason logged."""
    name = _info_topic(topic)
    info = next((message for _, _, message in read_messages(reader, name, kind=INFO)), None)
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


def read_messages(reader: AnyReader, *topics: str, kind: str | None = None) -> Iterator[tuple[Connection, int, Any]]:
    """(connection, nanoseconds of its recording, message) of all messages on the topics, in the order of recording."""
    connections = [item for item in reader.connections if item.topic in topics and kind in (None, item.msgtype)]
    if not connections:  # rosbags takes an empty list for "all"
        return
    for connection, received, raw in reader.messages(connections):
        yield connection, received, reader.deserialize(raw, connection.msgtype)


def count_messages(reader: AnyReader, topic: str) -> int:
    """How many messages the topic has."""
    return sum(connection.msgcount for connection in reader.connections if connection.topic == topic)


def _listing(reader: AnyReader) -> str:
    """The topics, their types and how many messages they have, a line each."""
    rows = sorted({(item.topic, item.msgtype) for item in reader.connections})
    return "\n".join(f"  {topic}  {kind}  {count_messages(reader, topic)} messages" for topic, kind in rows) or "  none"
