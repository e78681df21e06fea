"""Choice of topics in a ROS bag: which one has the colour images, and whether depth and odometry are there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from ff3r_model.frames.bag_reader import DamagedBag, DamagedMessage, count_messages, deserialize, listing, read_raw
from ff3r_model.frames.image_messages import ImageRejected, decode, decode_depth
from ff3r_model.frames.source import SourceError
from ff3r_model.frames.stamps import nanoseconds_from_time

RAW, COMPRESSED, INFO = (f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo"))
TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "zstd")
"""Last parts of topic names that image_transport appends; the camera_info lies beside what comes before."""
TF, TF_STATIC = "/tf", "/tf_static"
SPREAD = 6
"""Images of each topic that are looked at, spread over the bag."""
PATIENCE = 100
"""Messages of a topic that are looked at where none can be used."""


@dataclass(frozen=True)
class ImageTopic:
    """An image topic and what its messages show."""

    name: str
    count: int
    color: bool = False
    stamped: bool = False
    """Whether its images have the time of their exposure in their headers."""
    refusal: str = ""
    """Why its images cannot be used; empty where some can."""


def choose_topic(reader: AnyReader, path: Path, wanted: str | None) -> tuple[ImageTopic, list[ImageTopic]]:
    """The wanted image topic, or the one with the most colour images, else with the most grey ones; and the others.

    Raises SourceError, with the bag's topics, where there is none that can be used.
    """
    names = sorted({item.topic for item in reader.connections if item.msgtype in (RAW, COMPRESSED)})
    if wanted is not None and wanted not in names:
        raise SourceError(f"{path} has no image topic {wanted!r}; its topics:\n{listing(reader)}")
    topics = [_look(reader, name) for name in ([wanted] if wanted else names)]
    usable = [topic for topic in topics if not topic.refusal]
    if not usable:
        reasons = "; ".join(f"{topic.name}: {topic.refusal}" for topic in topics) or "it has no image topic"
        raise SourceError(f"{path} has no usable colour images: {reasons}; its topics:\n{listing(reader)}")
    first, *others = sorted(usable, key=lambda topic: (not topic.color, -topic.count, topic.name))
    return first, others


def _look(reader: AnyReader, name: str) -> ImageTopic:
    """Judges a topic by several of its images: the first may be damaged, grey or black."""
    refusal, seen = "", 0
    color = stamped = False
    for connection, raw in _samples(reader, name):
        try:
            message = deserialize(reader, connection, raw)
            image = decode(message)
        except (DamagedMessage, ImageRejected) as rejection:
            refusal = refusal or str(rejection)
            continue
        seen += 1
        color = color or not bool((image == image[..., :1]).all())
        stamped = stamped or nanoseconds_from_time(message.header.stamp) != 0
        if seen == SPREAD or (color and stamped):
            break
    return ImageTopic(name, count_messages(reader, name), color, stamped, "" if seen else refusal or "no messages")


def _samples(reader: AnyReader, topic: str) -> Iterator[tuple[Connection, bytes]]:
    """Messages spread over the bag, then the topic's first ones; each once."""
    starts = [reader.start_time + reader.duration * index // SPREAD for index in range(SPREAD)]
    spread = [islice(read_raw(reader, topic, start=start), 1) for start in starts]
    taken = set()
    for messages in (*spread, islice(read_raw(reader, topic), PATIENCE)):
        with suppress(DamagedBag):
            for connection, received, raw in messages:
                if received not in taken:
                    taken.add(received)
                    yield connection, raw


def check_depth(reader: AnyReader, path: Path, topic: str) -> None:
    """Raises SourceError where the topic has no depth images."""
    if topic not in {item.topic for item in reader.connections if item.msgtype in (RAW, COMPRESSED)}:
        raise SourceError(f"{path} has no image topic {topic!r} for depth; its topics:\n{listing(reader)}")
    reason = ""
    for connection, raw in _samples(reader, topic):
        try:
            decode_depth(deserialize(reader, connection, raw))
            return
        except (DamagedMessage, ImageRejected) as rejection:
            reason = reason or str(rejection)
    raise SourceError(f"{path} has no depth on {topic}: {reason or 'no messages'}; its topics:\n{listing(reader)}")


def check_transforms(reader: AnyReader, path: Path, odom_frame: str) -> None:
    """Raises SourceError for a bag without /tf."""
    if not count_messages(reader, TF):
        wanted = f"so no pose of the camera in {odom_frame!r} is known"
        raise SourceError(f"{path} has no {TF}, {wanted}; its topics:\n{listing(reader)}")


def info_topic(topic: str) -> str:
    """Where image_transport puts the camera_info: /camera/image_raw/compressed → /camera/camera_info."""
    path = PurePosixPath(topic)
    return str((path.parent if path.name in TRANSPORTS else path).parent / "camera_info")
