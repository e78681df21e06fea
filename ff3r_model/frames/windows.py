"""Keyframe selection and windows: frames are kept, thinned and grouped so that windows always share views."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ff3r_model.core.config_file import NOT_IN_FILES
from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.ranges import NOT_NEGATIVE, SHARE, Range, check_range
from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS, Frame, Window
from ff3r_model.frames.parallax import ImageMotion, MotionTracker, odometry_motion
from ff3r_model.frames.prepare import prepare, prepare_depth, prepare_picture
from ff3r_model.frames.used_camera import UsedCamera

BLUR = 4
"""Pixels along the side of the squares that are averaged before images are compared."""
RATE_SLACK = 0.05
"""By this share frames may come earlier than the largest rate allows: clocks jitter."""


class FrameRejected(ValueError):
    """A frame that cannot become a keyframe. `reason` is a short fixed phrase, fit for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True)
class WindowConfig:
    """How frames become windows. The paper takes windows as given."""

    views: int = 8
    """Views per window, 2 to 64."""
    overlap: int | None = None
    """Keyframes that a window shares with the one processed before. None: half of `views`."""
    long_side: int | None = None
    """Long side of the network's images, pixels; None: the checkpoint's own (112 for nano, 448 for full)."""
    patch: int = field(default=14, metadata=NOT_IN_FILES)
    """Sides become multiples of this: the network's own."""
    min_difference: float = 0.008
    """Mean absolute difference of prepared images (RGB in [0, 1]) below which a frame repeats the last one."""
    min_motion: float = 0.06
    """Parallax since the last keyframe, as a share of the picture's long side, when the next is due: views from one
    place say nothing about depth. What a turn of the camera moves counts by `turn_share`. Odometry, where there is any,
    counts if it says more than the picture. 0: any motion will do."""
    turn_share: float = 0.4
    """A turn shows new things, but no depth: at 0.4 views of a camera that only turns overlap by five sixths."""
    max_keyframe_rate: float = 10.0
    """Keyframes per second of the frames' own clock, at most, whatever `min_motion` is; .inf: no limit."""
    new_view: float = 0.6
    """A frame that differs from the last keyframe by this much, both blurred and brought to one mean and contrast, is
    due in any case: flow finds no way between them."""
    min_contrast: float = 0.01
    """Standard deviation of a blurred image below which it shows nothing (black, lens cap, white wall)."""
    max_pending: int = 256
    """Keyframes that may wait; the oldest go first."""

    def __post_init__(self) -> None:
        if not MIN_VIEWS <= self.views <= MAX_VIEWS:
            raise ValueError(f"views must be {MIN_VIEWS} to {MAX_VIEWS}, not {self.views}")
        if self.long_side is not None and self.long_side < self.patch:
            raise ValueError(f"long_side must be at least one patch of {self.patch} pixels, not {self.long_side}")
        if not 1 <= self.shared < self.views:
            raise ValueError(f"overlap must be 1 to views - 1 = {self.views - 1}, not {self.overlap}")
        check_range(self, Range(0, math.inf, above=True), "max_keyframe_rate")
        check_range(self, NOT_NEGATIVE, "min_difference", "min_motion", "new_view", "min_contrast")
        check_range(self, SHARE, "turn_share")
        if self.max_pending < self.views:
            raise ValueError(f"max_pending must be at least views = {self.views}, not {self.max_pending}")

    @property
    def shared(self) -> int:
        """Keyframes that two windows in a row share."""
        return self.views // 2 if self.overlap is None else self.overlap


@dataclass(frozen=True)
class PreparedFrame:
    """A keyframe, cropped and resized as the network will see it."""

    id: int
    stamp: int
    image: Float[Tensor, "3 height width"]
    picture: UInt8[Tensor, "rows columns"]
    """As in Window."""
    camera: UsedCamera
    intrinsics: Float[Tensor, "3 3"] | None
    depth: Float[Tensor, "height width"] | None = None
    odom_from_camera: Float[Tensor, "4 4"] | None = None
    up: Float[Tensor, " 3"] | None = None


class WindowBuilder:
    """Collects keyframes and cuts windows out of them."""

    def __init__(self, config: WindowConfig) -> None:
        if config.long_side is None:
            raise ValueError("long_side is None: take the checkpoint's, as Pipeline.from_checkpoint does, or give one")
        self.config = config
        self._long_side = config.long_side
        self.dropped: Counter[str] = Counter()
        """Frames that never reached a window, by reason."""
        self.camera: UsedCamera | None = None
        """Of the newest keyframe; None before there is one."""
        self._pending: deque[PreparedFrame] = deque()
        self._shared: list[PreparedFrame] = []
        self._shared_before: list[PreparedFrame] = []
        self._last: PreparedFrame | None = None
        self._motion = MotionTracker()
        self._next_id = 0

    def add(self, frame: Frame) -> None:
        """Keep a frame for a window to come. Raises FrameRejected (and counts it) for one that cannot be used."""
        try:
            keyframe = self._keyframe(frame)
        except FrameRejected as rejection:
            self.dropped[rejection.reason] += 1
            raise
        self._next_id += 1
        self._last, self.camera = keyframe, keyframe.camera
        self._motion.restart(keyframe.image)
        self._pending.append(keyframe)
        if len(self._pending) > self.config.max_pending:
            self._pending.popleft()
            self.dropped["backlog"] += 1

    @property
    def pending(self) -> int:
        """Keyframes that wait for a window."""
        return len(self._pending)

    @property
    def ready(self) -> bool:
        """Whether enough new keyframes wait for a full window."""
        return len(self._pending) >= self.config.views - len(self._shared)

    def take(self, flush: bool = False) -> Window | None:
        """The next window, or None before enough keyframes came.

        It holds the shared keyframes of the window taken before, then new ones spread evenly over all that
        wait (the rest are counted as "backlog"). With `flush` fewer new ones than usual are enough.
        """
        if not (self.ready or (flush and self._pending and len(self._pending) + len(self._shared) >= MIN_VIEWS)):
            return None
        wanted = min(self.config.views - len(self._shared), len(self._pending))
        waiting = list(self._pending)
        chosen = [waiting[i] for i in np.linspace(0, len(waiting) - 1, wanted + 1).round().astype(int)[1:]]
        if wanted == len(waiting):
            chosen = waiting
        self.dropped["backlog"] += len(waiting) - wanted
        self._pending.clear()
        views = self._shared + chosen
        self._shared_before, self._shared = self._shared, views[-self.config.shared :]
        return _window(views)

    def roll_back(self) -> None:
        """Forget the window taken last, which could not be placed: the next one shares views with its predecessor."""
        self._shared = self._shared_before

    def restart_clock(self) -> None:
        """Accept any time from now on (a bag that loops). What waits is dropped, what is shared is kept."""
        self.dropped["clock restarted"] += len(self._pending)
        self._pending.clear()
        self._last = None

    def reset(self) -> None:
        """Forget all frames, shared ones too, so that the next window starts a new map."""
        self._pending.clear()
        self._shared, self._shared_before = [], []
        self._last, self.camera = None, None

    def _keyframe(self, frame: Frame) -> PreparedFrame:
        if frame.image.numel() == 0:
            raise FrameRejected("empty image", f"shape {tuple(frame.image.shape)}")
        self._check_time(frame.stamp)
        if frame.depth is not None and frame.depth.shape != frame.image.shape[:2]:
            sizes = [tuple(part.shape[:2]) for part in (frame.depth, frame.image)]
            raise FrameRejected("unregistered depth", f"depth is {sizes[0]}, the image {sizes[1]}: align it to colour")
        try:
            image, intrinsics, crop = prepare(frame.image, frame.intrinsics, self._long_side, self.config.patch)
        except ValueError as error:
            raise FrameRejected("unusable size", str(error)) from error
        self._check_content(image, intrinsics, frame.odom_from_camera)
        depth = None if frame.depth is None else prepare_depth(frame.depth, crop)
        picture = prepare_picture(frame.image, crop)
        height, width = frame.image.shape[:2]
        camera = UsedCamera(width, height, crop, frame.intrinsics)
        rest = (intrinsics, depth, frame.odom_from_camera, frame.up)
        return PreparedFrame(self._next_id, frame.stamp, image, picture, camera, *rest)

    def _check_time(self, stamp: int) -> None:
        if self._last is None:
            return
        if stamp <= self._last.stamp:
            raise FrameRejected("time went backwards", f"{stamp} ns after {self._last.stamp} ns")
        if (stamp - self._last.stamp) * self.config.max_keyframe_rate < 1e9 * (1 - RATE_SLACK):
            raise FrameRejected("too soon", f"{(stamp - self._last.stamp) / 1e9:.3f} s after the last keyframe")

    def _check_content(
        self,
        image: Float[Tensor, "3 height width"],
        intrinsics: Float[Tensor, "3 3"] | None,
        odom_from_camera: Float[Tensor, "4 4"] | None,
    ) -> None:
        blurred = _blurred(image)
        contrast = float(blurred.std())
        if contrast < self.config.min_contrast:
            raise FrameRejected("featureless image", f"contrast {contrast:.4f} < {self.config.min_contrast}")
        other = self._last or (self._shared[-1] if self._shared else None)
        if other is None:
            return
        if image.shape != other.image.shape:
            detail = f"{tuple(image.shape[1:])} after {tuple(other.image.shape[1:])}; reset to start over with it"
            raise FrameRejected("aspect ratio changed", detail)
        difference = float((image - other.image).abs().mean())
        if difference < self.config.min_difference:
            raise FrameRejected("identical image", f"difference {difference:.4f} < {self.config.min_difference}")
        motion = self._motion.update(image, intrinsics)
        moved = self._counted(motion)
        if odom_from_camera is not None and other.odom_from_camera is not None:
            step = invert_rigid(other.odom_from_camera.double()) @ odom_from_camera.double()
            moved = max(moved, self._counted(odometry_motion(step, max(image.shape[1:]), intrinsics)))
        familiar = motion.found and _difference(blurred, _blurred(other.image)) < self.config.new_view
        if familiar and moved < self.config.min_motion:
            raise FrameRejected("little motion", f"the picture moved by {moved:.3f} < {self.config.min_motion}")

    def _counted(self, motion: ImageMotion) -> float:
        return motion.parallax + self.config.turn_share * motion.turn


def _blurred(image: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 h w"]:
    """Without most of the sensor's noise."""
    return avg_pool2d(image, BLUR)


def _difference(a: Float[Tensor, "3 h w"], b: Float[Tensor, "3 h w"]) -> float:
    """Mean absolute difference of two images in standard deviations: a lamp that flickers changes little of it."""
    return float(((a - a.mean()) / a.std() - (b - b.mean()) / b.std()).abs().mean())


def _window(views: list[PreparedFrame]) -> Window:
    known = [view.intrinsics for view in views if view.intrinsics is not None]
    size = views[0].image.shape[1:]
    # A camera that changed its resolution has pictures of two sizes for one window or two: none then.
    one_size = len({view.picture.shape for view in views}) == 1
    return Window(
        images=torch.stack([view.image for view in views]),
        keyframes=tuple(view.id for view in views),
        stamps=tuple(view.stamp for view in views),
        intrinsics=torch.stack(known) if len(known) == len(views) else None,
        depth=_stacked([view.depth for view in views], torch.zeros(size)),
        odom_from_camera=_stacked([view.odom_from_camera for view in views], torch.full((4, 4), torch.nan)),
        up=_stacked([view.up for view in views], torch.full((3,), torch.nan)),
        pictures=torch.stack([view.picture for view in views]) if one_size else None,
    )


def _stacked(values: list[Tensor | None], unknown: Tensor) -> Tensor | None:
    """One row per view, `unknown` where a view has none; None where no view has one."""
    like = next((value for value in values if value is not None), None)
    return None if like is None else torch.stack([unknown.to(like) if value is None else value for value in values])
