"""Sensor synchronisation: each frame gets the registered depth, the odometry (TF) and the gravity of its own moment.

For a live robot and for bags alike; messages are duck-typed, as in `image_messages`.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.types import Frame
from ff3r_model.frames.calibration import Calibration
from ff3r_model.frames.image_messages import ImageRejected, Message, decode_depth
from ff3r_model.frames.stamps import nanoseconds_from_time
from ff3r_model.frames.transforms import TransformBuffer, TransformUnavailable

MAX_WAITING = 256
"""Frames that may wait for their company."""
MAX_DEPTHS = 64
MAX_HELD_BYTES = 2**29
"""Of the pixels of frames that wait, and as much again of depth images."""
UP_LENGTHS = (1e-3, 1e3)
"""Metres per second squared of accelerations, and lengths of quaternions, that say where up is."""
MAX_ASPECT_ERROR = 0.01
DepthMap = Float[Tensor, "height width"]


@dataclass(frozen=True)
class SyncConfig:
    """What frames are synchronised with, and how long they wait for it."""

    use_depth: bool = False
    odom_frame: str = ""
    """Frame of the odometry, as in REP-105; empty: poses are not asked for."""
    use_imu: bool = False
    tolerance: float = 0.02
    """Seconds by which a depth image's stamp may differ from the colour image's."""
    max_wait: float = 0.3
    """Seconds that a frame waits for depth and TF; then it goes on without."""
    jump_back: float = 1.0
    """Seconds that stamps must jump back (a bag that loops) for everything known to be forgotten."""


@dataclass(frozen=True)
class _Waiting:
    """A frame that waits for its company."""

    frame: Frame
    arrival: float
    calibration: Calibration | None


class SensorSynchronizer:
    """Sensor synchronisation: holds frames back until their depth and pose are there, passes them on in order.

    `deliver(frame, arrival)` gets each frame with what came for it; what did not come is counted in `missing`, and
    `warn(text)` is called once for each reason. Everything is called from one thread.
    """

    def __init__(
        self,
        config: SyncConfig,
        transforms: TransformBuffer,
        deliver: Callable[[Frame, float], None],
        warn: Callable[[str], None],
    ) -> None:
        self.config, self.transforms = config, transforms
        self._deliver, self._warn = deliver, warn
        self._waiting: deque[_Waiting] = deque()
        self._depths: deque[tuple[int, DepthMap]] = deque()
        self._up: tuple[str, Float[Tensor, " 3"]] | None = None
        self._newest = 0
        self._warned: set[str] = set()
        self.missing: Counter[str] = Counter()
        """Frames that went on without depth, odometry or gravity; depth images and IMU messages that were not used."""
        self.why = ""
        """What the newest frame lacks, in words; empty where nothing."""

    def take_frame(self, frame: Frame, arrival: float, calibration: Calibration | None = None) -> None:
        """A new image, when its message came (`time.monotonic`, seconds), and what its depth is straightened by."""
        if frame.stamp < self._newest - self.config.jump_back * 1e9:
            self.clear()
        self._newest = frame.stamp
        self._waiting.append(_Waiting(frame, arrival, calibration))
        while len(self._waiting) > MAX_WAITING or _bytes(item.frame.image for item in self._waiting) > MAX_HELD_BYTES:
            self._pass_on(self._waiting.popleft())
        self.pump(arrival)

    def take_depth(self, message: Message) -> None:
        """A depth image registered to the colour image."""
        try:
            self._depths.append((nanoseconds_from_time(message.header.stamp), decode_depth(message)))
        except ImageRejected as rejection:
            self._lack(f"depth image: {rejection.reason}", f"depth image not used: {rejection}")
        while len(self._depths) > MAX_DEPTHS or _bytes(depth for _, depth in self._depths) > MAX_HELD_BYTES:
            self._depths.popleft()

    def take_imu(self, message: Any) -> None:
        """A sensor_msgs/Imu: its orientation, or where it has none its acceleration, gives the direction of up."""
        if message.orientation_covariance[0] != -1:
            q = message.orientation
            length = math.hypot(q.x, q.y, q.z, q.w)
            x, y, z, w = (value / length if length else 0.0 for value in (q.x, q.y, q.z, q.w))
            up = torch.tensor([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dtype=torch.float64)
        else:
            a = message.linear_acceleration
            length = math.hypot(a.x, a.y, a.z)
            up = torch.tensor([a.x, a.y, a.z], dtype=torch.float64)
        if not UP_LENGTHS[0] <= length <= UP_LENGTHS[1]:  # NaN is outside as well
            self._lack("IMU: no direction", f"IMU not used: its vector of length {length:g} says not where up is")
            return
        self._up = (message.header.frame_id, up / up.norm())

    def pump(self, now: float) -> None:
        """Pass on the frames that have all they wait for, or have waited long enough."""
        while self._waiting:
            first = self._waiting[0]
            if now - first.arrival < self.config.max_wait and not self._complete(first.frame):
                return
            self._pass_on(self._waiting.popleft())

    def clear(self) -> None:
        """Pass on what waits, forget depth images and moving transforms: time jumped back."""
        while self._waiting:
            self._pass_on(self._waiting.popleft())
        self._depths.clear()
        self.transforms.clear()

    def _complete(self, frame: Frame) -> bool:
        if self.config.use_depth and self._nearest(frame.stamp) is None:
            return False
        if not self.config.odom_frame:
            return True
        try:
            self.transforms.lookup(self.config.odom_frame, frame.camera_name, frame.stamp)
        except TransformUnavailable:
            return False
        return True

    def _pass_on(self, waiting: _Waiting) -> None:
        self.why, frame = "", waiting.frame
        pose = self._pose(frame)
        up = pose[2, :3] if pose is not None else self._gravity(frame)
        frame = replace(
            frame,
            depth=self._depth(waiting),
            odom_from_camera=None if pose is None else pose.float(),
            up=None if up is None else up.float(),
        )
        self._deliver(frame, waiting.arrival)

    def _nearest(self, stamp: int) -> DepthMap | None:
        """The depth image of that time."""
        if not self._depths:
            return None
        taken, depth = min(self._depths, key=lambda item: abs(item[0] - stamp))
        return depth if abs(taken - stamp) <= self.config.tolerance * 1e9 else None

    def _depth(self, waiting: _Waiting) -> DepthMap | None:
        frame, calibration = waiting.frame, waiting.calibration
        if not self.config.use_depth:
            return None
        depth = self._nearest(frame.stamp)
        if depth is None:
            self._lack("no depth image", f"frames without a depth image within {self.config.tolerance:g} s")
            return None
        height, width = frame.image.shape[:2]
        if abs(depth.shape[1] * height / (depth.shape[0] * width) - 1) > MAX_ASPECT_ERROR:
            sizes = f"{depth.shape[1]}x{depth.shape[0]} for an image of {width}x{height}"
            self._lack("depth image of another shape", f"depth {sizes}: it must be registered to the image")
            return None
        if tuple(depth.shape) != (height, width):
            depth = torch.from_numpy(cv2.resize(depth.numpy(), (width, height), interpolation=cv2.INTER_NEAREST))
        return depth if calibration is None else calibration.rectify_depth(depth)

    def _pose(self, frame: Frame) -> Float[Tensor, "4 4"] | None:
        if not self.config.odom_frame:
            return None
        try:
            return self.transforms.lookup(self.config.odom_frame, frame.camera_name, frame.stamp)
        except TransformUnavailable as error:
            self._lack("no odometry", f"frames without odometry: {error}")
            return None

    def _gravity(self, frame: Frame) -> Float[Tensor, " 3"] | None:
        """Up in the camera's axes, from the IMU."""
        if not self.config.use_imu or self._up is None:
            return None
        imu_frame, up = self._up
        try:
            return self.transforms.lookup(frame.camera_name, imu_frame, frame.stamp)[:3, :3] @ up
        except TransformUnavailable as error:
            self._lack("no transform of the IMU", f"the IMU is not used: {error}")
            return None

    def _lack(self, reason: str, text: str) -> None:
        self.missing[reason] += 1
        self.why = text
        if reason not in self._warned:
            self._warned.add(reason)
            self._warn(text)


def _bytes(images: Iterable[Tensor]) -> int:
    """What they hold together."""
    return sum(image.nbytes for image in images)
