"""Frames from video files, decoded by OpenCV."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import torch

from ff3r_model.core.types import Frame
from ff3r_model.frames.source import NOMINAL_FPS, SourceError

log = logging.getLogger(__name__)


class VideoSource:
    """The frames of a video file, as OpenCV decodes them, stamped with their presentation times."""

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
        first, last = 0.0, -1.0
        try:
            while True:
                ok, bgr = capture.read()
                if not ok:
                    break
                # the container's presentation time, from 0; where it does not advance, the mean rate goes on
                time = capture.get(cv2.CAP_PROP_POS_MSEC)
                first = time if index == 0 else first
                last = time - first if time - first > last else last + 1e3 / self.fps
                yield Frame(torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), stamp=round(last * 1e6))
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


def _is_text(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(4096)
    return not any(byte < 9 or (13 < byte < 32 and byte != 27) for byte in start)
