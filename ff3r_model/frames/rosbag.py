"""Frames from ROS bags, read without any ROS through `rosbags`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from rosbags.highlevel import AnyReader
from rosbags.image import ImageError as RosImageError
from rosbags.image import image_to_cvimage
from rosbags.image.image import to_cvtype
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from ff3r_model.core.types import Frame
from ff3r_model.frames.rectify import Rectifier, UnknownDistortionError
from ff3r_model.frames.source import NOMINAL_FPS, SourceError

log = logging.getLogger(__name__)

RAW, COMPRESSED, INFO = (f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo"))
TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "zstd")
"""Last parts of topic names that image_transport appends; the camera_info lies beside what comes before."""

DEPTH_ENCODINGS = frozenset({"16UC1", "32FC1", "64FC1", "16SC1"})
PLAIN_ENCODINGS = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
"""What OpenCV users mean by images without a named encoding."""


class DecodeError(ValueError):
    """An image message that holds no colour (or grey) image of 8 or 16 bits."""


class BagSource:
    """The images of one topic of a bag, rectified where the bag holds a camera_info that fits them."""

    def __init__(self, path: Path, topic: str | None = None) -> None:
        """Opens `topic`, or the topic with the most colour images.

        Raises SourceError for a damaged bag, and one that lists the bag's topics when none is usable.
        """
        self.path, self.name = path, path.name
        with _opened(path) as reader:
            self.topic = _choose(reader, path, topic)
            self.count: int | None = _count(reader, self.topic)
            seconds = reader.duration / 1e9
            self._rectifier = _rectifier(reader, self.topic)
        self.fps = (self.count - 1) / seconds if self.count > 1 and seconds > 0 else NOMINAL_FPS

    def __iter__(self) -> Iterator[Frame]:
        failed, unfit, reason = 0, 0, ""
        with _opened(self.path) as reader:
            for _, received, message in _messages(reader, self.topic):
                try:
                    image = decode(message)
                except DecodeError as error:
                    failed, reason = failed + 1, str(error)
                    continue
                frame = self._frame(image, message.header, received)
                unfit += frame.intrinsics is None and self._rectifier is not None
                yield frame
        if failed:
            log.warning("%s: %d of %s images on %s left out: %s", self.path, failed, self.count, self.topic, reason)
        if unfit:
            log.warning("%s: %d images on %s differ in size from their camera_info", self.path, unfit, self.topic)

    def _frame(self, image: UInt8[ndarray, "h w 3"], header: Any, received: int) -> Frame:
        stamp = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec or received
        rectifier = self._rectifier
        if rectifier is None or rectifier.size != (image.shape[1], image.shape[0]):
            return Frame(torch.from_numpy(image), stamp, None, header.frame_id)
        intrinsics = torch.from_numpy(rectifier.intrinsics).float()
        return Frame(torch.from_numpy(rectifier(image)), stamp, intrinsics, header.frame_id)


def decode(message: Any) -> UInt8[ndarray, "h w 3"]:
    """RGB bytes of a sensor_msgs Image or CompressedImage. Raises DecodeError for depth and damaged images."""
    return _decode_compressed(message) if hasattr(message, "format") else _decode_raw(message)


def _decode_raw(message: Any) -> UInt8[ndarray, "h w 3"]:
    if not message.height or not message.width:
        raise DecodeError(f"an image of {message.width}x{message.height} pixels is empty")
    if message.encoding in DEPTH_ENCODINGS:
        raise DecodeError(f"encoding {message.encoding!r} holds depth, not colour")
    message.encoding = PLAIN_ENCODINGS.get(message.encoding, message.encoding)
    try:
        _unpad(message)
        return np.array(image_to_cvimage(message, "rgb8"), dtype=np.uint8, order="C")
    except (RosImageError, cv2.error) as error:
        raise DecodeError(str(error)) from error


def _unpad(message: Any) -> None:
    """Joins rows that the sender padded to `step` bytes: rosbags-image takes them to follow each other."""
    _, _, dtype, channels = to_cvtype(message.encoding)
    row = message.width * channels * np.dtype(dtype).itemsize
    if message.step < row or len(message.data) < message.height * message.step:
        size = f"{message.width}x{message.height} {message.encoding}"
        raise DecodeError(f"{len(message.data)} bytes in rows of {message.step} cannot hold {size}")
    if message.step > row:
        padded = message.data[: message.height * message.step].reshape(message.height, message.step)
        message.data, message.step = np.ascontiguousarray(padded[:, :row]).ravel(), row


def _decode_compressed(message: Any) -> UInt8[ndarray, "h w 3"]:
    if "compressedDepth" in message.format:
        raise DecodeError(f"format {message.format!r} holds depth, not colour")
    data = np.frombuffer(message.data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if image is None:
        raise DecodeError(f"{len(data)} bytes of format {message.format!r} cannot be decoded")
    if image.dtype != np.uint8:
        raise DecodeError(f"format {message.format!r} with {image.dtype} values holds depth, not colour")
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


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
        try:
            image = decode(message)
        except DecodeError as error:
            return _Candidate(topic, count, refusal=str(error))
        grey = np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 1], image[..., 2])
        return _Candidate(topic, count, color=not grey)
    return _Candidate(topic, 0, refusal="no messages")


def _rectifier(reader: AnyReader, topic: str) -> Rectifier | None:
    """What the camera_info beside the image topic says, or None with the reason logged."""
    name = _info_topic(topic)
    info = next((message for _, _, message in _messages(reader, name, INFO)), None)
    if info is None:
        return None
    fields = {key.lower(): getattr(info, key) for key in info.__dataclass_fields__}  # ROS 1 writes K, ROS 2 k
    rectified = "rect" in PurePosixPath(topic).name or "rect" in PurePosixPath(topic).parent.name
    matrix = np.array(fields["p"]).reshape(3, 4)[:, :3] if rectified else np.array(fields["k"]).reshape(3, 3)
    distortion = [] if rectified else [float(value) for value in fields["d"]]
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        log.warning("%s is not calibrated (focal length %g): unused", name, matrix[0, 0])
        return None
    try:
        return Rectifier(matrix, distortion, fields["distortion_model"], (info.width, info.height))
    except UnknownDistortionError as error:
        log.warning("%s: %s: unused, images stay distorted", name, error)
        return None


def _info_topic(topic: str) -> str:
    """/camera/image_raw/compressed → /camera/camera_info."""
    path = PurePosixPath(topic)
    return str((path.parent if path.name in TRANSPORTS else path).parent / "camera_info")


def _messages(reader: AnyReader, topic: str, kind: str | None = None) -> Iterator[tuple[Connection, int, Any]]:
    connections = [item for item in reader.connections if item.topic == topic and kind in (None, item.msgtype)]
    if not connections:  # rosbags takes an empty list for "all"
        return
    for connection, received, raw in reader.messages(connections):
        yield connection, received, reader.deserialize(raw, connection.msgtype)


def _count(reader: AnyReader, topic: str) -> int:
    return sum(connection.msgcount for connection in reader.connections if connection.topic == topic)


def _listing(reader: AnyReader) -> str:
    rows = sorted({(item.topic, item.msgtype) for item in reader.connections})
    return "\n".join(f"  {topic}  {kind}  {_count(reader, topic)} messages" for topic, kind in rows) or "  none"
