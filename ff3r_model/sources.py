"""Frames from files: videos, folders of images, RGB-D sequences and ROS bags, all behind one iterable."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import torch
from PIL import Image, UnidentifiedImageError

from ff3r_model.rgbd import RgbdError, RgbdSource, is_rgbd
from ff3r_model.types import Frame

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})
NOMINAL_FPS = 10.0
"""What folders of images, and videos that do not say, are stamped with. Only the order of stamps matters here."""


class SourceError(Exception):
    """Nothing to read frames from; the message says what was found instead."""


@runtime_checkable
class FrameSource(Protocol):
    """Frames in the order of their stamps. Iterating again starts again."""

    name: str
    fps: float
    count: int | None
    """How many frames are expected; None where the file does not say. Damaged files yield fewer."""

    def __iter__(self) -> Iterator[Frame]: ...


class VideoSource:
    """The frames of a video file, as OpenCV decodes them."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError when the file cannot be opened or holds not one frame."""
        self.path, self.name = path, path.name
        capture = self._open()
        try:
            fps, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            if not capture.read()[0]:
                raise SourceError(f"{path} opens as a video but not one frame of it can be decoded")
        finally:
            capture.release()
        self.fps = fps if 0 < fps < 1000 else NOMINAL_FPS
        self.count = count if count > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        capture, index = self._open(), 0
        try:
            while True:
                ok, bgr = capture.read()
                if not ok:
                    break
                yield Frame(_tensor(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), stamp=round(index * 1e9 / self.fps))
                index += 1
        finally:
            capture.release()
        if self.count is not None and index < self.count:
            log.warning("%s promises %d frames; %d could be decoded", self.path, self.count, index)

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened() or _is_text(self.path):  # FFmpeg renders text files as terminals
            raise SourceError(
                f"{self.path} does not open as a video ({self.path.stat().st_size} bytes); "
                "supported: what FFmpeg decodes (mp4, avi, mkv, mov, webm …), folders of images, rosbag2, .mcap"
            )
        return capture


class FolderSource:
    """The colour images of a folder in natural order (frame2 before frame10). Depth maps beside them are left out."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError when no colour image is there."""
        self.name, self.fps = path.name, NOMINAL_FPS
        files = sorted((file for file in path.iterdir() if _visible(file)), key=lambda file: natural_key(file.name))
        self.files = [file for file in files if _is_color_image(file)]
        skipped = sorted({file.name for file in files} - {file.name for file in self.files})
        if not self.files:
            found = f"only {_some(skipped)}" if skipped else "nothing"
            raise SourceError(f"{path} holds no colour images ({' '.join(sorted(IMAGE_SUFFIXES))}): {found} found")
        if skipped:
            log.warning("%s: left out %d files that are no colour images: %s", path, len(skipped), _some(skipped))
        self.count: int | None = len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self.files):
            bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if bgr is None:
                log.warning("%s cannot be decoded: left out", file)
                continue
            yield Frame(_tensor(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), stamp=round(index * 1e9 / self.fps))


def open_source(path: str | Path, topic: str | None = None) -> FrameSource:
    """The source behind a path: a video file, a folder of images, a rosbag2 folder, or an .mcap, .db3 or .bag file.

    Folders laid out as 7-Scenes or TUM RGB-D give depth and poses with their images.
    `topic` names a bag's image topic; None takes the one with the most colour images.
    Raises SourceError that says what is wrong with the path.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)")
    if is_bag(path):
        from ff3r_model.bags import BagSource  # rosbags is only needed, and only loaded, for bags

        return BagSource(path, topic)
    if topic is not None:
        raise SourceError(f"{path} is no bag, so it has no topic {topic!r}")
    if is_rgbd(path):
        return _rgbd(path)
    return FolderSource(path) if path.is_dir() else VideoSource(path)


def _rgbd(path: Path) -> FrameSource:
    try:
        return RgbdSource(path)
    except RgbdError as error:
        raise SourceError(str(error)) from error


def is_bag(path: Path) -> bool:
    """Whether a path looks like a ROS bag: by its suffix, or a folder by what lies in it."""
    if path.is_dir():
        return any(file.suffix in BAG_SUFFIXES or file.name == "metadata.yaml" for file in path.iterdir())
    return path.suffix in BAG_SUFFIXES


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts numbers inside names by value: a2 < a10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def _visible(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")


def _is_color_image(file: Path) -> bool:
    """Judged by suffix and header, without decoding: 16-bit and float greys are depth."""
    if file.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    try:
        with Image.open(file) as image:
            return not image.mode.startswith(("I", "F"))
    except (UnidentifiedImageError, OSError):
        return False


def _is_text(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(4096)
    return not any(byte < 9 or (13 < byte < 32 and byte != 27) for byte in start)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _tensor(rgb: cv2.typing.MatLike) -> torch.Tensor:
    return torch.from_numpy(rgb)
