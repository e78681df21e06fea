"""Playback for the demo's camera node: a synthetic room, whose poses are known, or a recording."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import cv2
import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.types import Frame
from ff3r_model.frames.intrinsics import stated_camera
from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.source import FrameSource
from ff3r_ros.parameters import parameter

if TYPE_CHECKING:
    from ff3r_model.synthetic import Room

log = logging.getLogger(__name__)

TOUR_FRAMES = 20_000
"""Frames after which a synthetic tour starts over."""


@dataclass(frozen=True)
class CameraParameters:
    """Of the camera node."""

    source: str = parameter("", "Video, folder of images, or bag to play. Empty: a synthetic room.", change="never")
    topic: str = parameter("", "Image topic of a bag. Empty: the one with the most colour images.", change="never")
    seed: int = parameter(1, "Which synthetic room.", low=0, high=2**31 - 1, change="never")
    trajectory: str = parameter(
        "robot", "How the camera moves through the synthetic room.", choices=("robot", "handheld"), change="never"
    )
    step: float = parameter(0.03, "Metres between frames in the synthetic room.", low=0.001, high=1.0, change="never")
    field_of_view: float = parameter(
        70.0, "Horizontal, degrees, in the synthetic room.", low=20.0, high=140.0, change="never"
    )
    intrinsics: str = parameter(
        "",
        "Of a recording: fx,fy,cx,cy in its pixels, or a file of them or of a calibration. Empty: what it says itself.",
        change="never",
    )
    recorded_fov: float = parameter(
        0.0, "Of a recording: horizontal field of view, degrees. 0: what it says itself.", low=0.0, high=170.0,
        change="never",
    )  # fmt: skip
    width: int = parameter(
        320, "Pixels; wider recordings are reduced to it (0: as recorded).", low=0, high=8192, change="never"
    )
    height: int = parameter(240, "Pixels of synthetic images.", low=16, high=8192, change="never")
    rate: float = parameter(
        10.0, "Images per second; 0: as recorded (synthetic: 10).", low=0.0, high=1000.0, change="never"
    )
    loop: bool = parameter(True, "Start over at the end.", change="never")
    ahead: int = parameter(16, "Frames prepared ahead, so that the rate holds.", low=1, high=1000, change="never")
    frame_id: str = parameter("camera_optical", "Optical frame of the images.", change="never")
    image_transport: str = parameter(
        "raw",
        "Publish `image`, `image/compressed` (JPEG) or both.",
        choices=("raw", "compressed", "both"),
        change="never",
    )
    reliable: bool = parameter(False, "Reliable instead of best-effort images.", change="never")


@dataclass(frozen=True)
class Shot:
    """A frame and, in a synthetic room, where it was taken."""

    frame: Frame
    world_from_camera: Float[Tensor, "4 4"] | None = None


def tour(parameters: CameraParameters) -> tuple[Room, Float[Tensor, "frames 4 4"]]:
    """The synthetic room and the camera's poses world_from_camera in it: the truth that a demo can compare with."""
    from ff3r_model.synthetic import make_room, make_trajectory

    room = make_room(parameters.seed)
    kind = cast(Literal["robot", "handheld"], parameters.trajectory)
    return room, make_trajectory(room, parameters.seed, TOUR_FRAMES, kind, parameters.step)


class SyntheticRoom:
    """Renders the tour's frames one by one."""

    def __init__(self, parameters: CameraParameters) -> None:
        from ff3r_model.synthetic import pinhole, render

        self.name, self.fps = f"synthetic room {parameters.seed}", 10.0
        self._room, self._poses = tour(parameters)
        self._size = (parameters.height, parameters.width or 320)
        self._intrinsics = pinhole(*self._size, field_of_view=parameters.field_of_view)
        self._render, self._frame_id = render, parameters.frame_id

    def __iter__(self) -> Iterator[Shot]:
        for index, pose in enumerate(self._poses):
            views = self._render(self._room, pose[None], self._intrinsics[None], *self._size)
            stamp = round(index * 1e9 / self.fps)
            yield Shot(Frame(views.images[0], stamp, self._intrinsics, self._frame_id), pose)


class Recording:
    """Plays a video, folder or bag."""

    def __init__(self, parameters: CameraParameters) -> None:
        """Raises SourceError for what cannot be played."""
        camera = stated_camera(parameters.intrinsics or None, parameters.recorded_fov or None)
        self._source: FrameSource = open_source(parameters.source, parameters.topic or None, camera=camera)
        self.name, self.fps = self._source.name, self._source.fps
        self._width = parameters.width

    def __iter__(self) -> Iterator[Shot]:
        for frame in self._source:
            yield Shot(reduced(frame, self._width) if self._width else frame)


def reduced(frame: Frame, width: int) -> Frame:
    """The frame at most `width` pixels wide, its aspect kept to the nearest pixel, with intrinsics to match."""
    old_height, old_width = frame.image.shape[:2]
    if old_width <= width:
        return frame
    height = max(1, round(old_height * width / old_width))
    image = torch.from_numpy(cv2.resize(frame.image.numpy(), (width, height), interpolation=cv2.INTER_AREA))
    intrinsics = frame.intrinsics
    if intrinsics is not None:
        intrinsics = torch.diag(torch.tensor([width / old_width, height / old_height, 1.0])) @ intrinsics
    return Frame(image, frame.stamp, intrinsics, frame.camera_name)


class Prefetch:
    """Fetches shots on a thread of its own, at most `ahead` of them before they are wanted."""

    def __init__(self, shots: SyntheticRoom | Recording, ahead: int, loop: bool) -> None:
        self._shots = itertools.chain.from_iterable(itertools.repeat(shots)) if loop else iter(shots)
        self._queue: queue.Queue[Shot] = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self.finished = threading.Event()
        """Set once the source has ended and everything was taken."""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="camera source", daemon=True)
        self._thread.start()

    def take(self) -> Shot | None:
        """The next shot, or None where it is not ready."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            if not self._thread.is_alive():
                self.finished.set()
            return None

    def close(self) -> None:
        """Stop fetching."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            for shot in self._shots:
                if not self._put(shot):
                    return
        except Exception as error:  # a broken recording must not take the node with it
            self.error = error
            log.exception("the camera's source failed")

    def _put(self, shot: Shot) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(shot, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
