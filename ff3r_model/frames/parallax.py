"""Parallax since a keyframe, by optical flow: image motion apart from what a turn of the camera explains."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ff3r_model.frames.optical_flow import dense_flow, grey

ASSUMED_FOCAL = 0.8
"""Focal length over the picture's long side where the intrinsics are unknown: 64° across."""
ASSUMED_DEPTH = 4.0
"""Metres, of what is seen, where odometry says how far the camera has moved: a keyframe every 0.3 m."""
GRID = 4
"""Pixels between the points whose flow is looked at."""
ROUNDS = 4
"""Of reweighting in the fit of a turn."""
REBASE = 0.06
"""Share of the long side beyond which flow is no longer measured against the keyframe itself but against a later frame,
and added up: flow is only good between pictures that are alike, and what is added up too often adds up noise."""

RETURN = 2.0
"""Pixels by which flow there and back may miss where it began."""
LEAST_RETURNING = 0.6
"""Share of the pixels that must return; of hand-held video 0.86 and more do, of pictures from far apart 0.3 to 0.7."""


@dataclass(frozen=True)
class ImageMotion:
    """Median displacements as shares of the picture's long side."""

    turn: float = 0.0
    """What the best rotation of the camera moves."""
    parallax: float = 0.0
    """What no rotation explains: the camera's place has changed, or something moves."""
    found: bool = True
    """Whether flow finds its way between the pictures; where it does not, it says far too little."""

    def __add__(self, other: ImageMotion) -> ImageMotion:
        return ImageMotion(self.turn + other.turn, self.parallax + other.parallax, self.found and other.found)


def odometry_motion(
    before_from_after: Float[Tensor, "4 4"], long_side: int, intrinsics: Float[Tensor, "3 3"] | None
) -> ImageMotion:
    """What a motion of the camera (metres) moves in its picture, things being `ASSUMED_DEPTH` away.

    Flow says less than that on blank walls, and where a camera walks round a thing: there turn and step cancel out.
    """
    share = ASSUMED_FOCAL if intrinsics is None else float(intrinsics[0, 0]) / long_side
    cosine = (float(before_from_after[:3, :3].trace()) - 1) / 2
    angle = math.acos(min(max(cosine, -1.0), 1.0))
    return ImageMotion(share * angle, share * float(before_from_after[:3, 3].norm()) / ASSUMED_DEPTH)


class MotionTracker:
    """Motion since the last keyframe. A standing camera gives no more than the flow's noise, for however long."""

    def __init__(self) -> None:
        self._reference: ndarray | None = None
        self._before = ImageMotion()

    def restart(self, image: Float[Tensor, "3 height width"] | None) -> None:
        """Measure from this picture on; None: from the next one."""
        self._reference = None if image is None else grey(image)
        self._before = ImageMotion()

    def update(
        self, image: Float[Tensor, "3 height width"], intrinsics: Float[Tensor, "3 3"] | None = None
    ) -> ImageMotion:
        """Motion up to this picture, which comes after the last one shown."""
        picture = grey(image)
        if self._reference is None or self._reference.shape != picture.shape:
            self._reference = picture
            return self._before
        forward, backward = dense_flow(self._reference, picture), dense_flow(picture, self._reference)
        split = _split(forward, _focal(intrinsics, picture))
        motion = self._before + replace(split, found=_returning(forward, backward) >= LEAST_RETURNING)
        if motion.turn + motion.parallax - self._before.turn - self._before.parallax > REBASE:
            self._reference, self._before = picture, motion
        return motion


def _returning(forward: Float[ndarray, "height width 2"], backward: Float[ndarray, "height width 2"]) -> float:
    """The share of pixels that flow there and back brings home."""
    height, width = forward.shape[:2]
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    there_u, there_v = u + forward[..., 0], v + forward[..., 1]
    back = cv2.remap(backward, there_u, there_v, cv2.INTER_LINEAR)
    inside = (there_u >= 0) & (there_u < width) & (there_v >= 0) & (there_v < height)
    return float((inside & (np.linalg.norm(forward + back, axis=2) < RETURN)).mean())


def _focal(intrinsics: Float[Tensor, "3 3"] | None, picture: ndarray) -> float:
    return ASSUMED_FOCAL * max(picture.shape) if intrinsics is None else float(intrinsics[0, 0])


def _split(flow: Float[ndarray, "height width 2"], focal: float) -> ImageMotion:
    """The flow of the rotation that fits best in the sense of least absolute errors, and what is left over."""
    height, width = flow.shape[:2]
    seen = flow[GRID // 2 :: GRID, GRID // 2 :: GRID].reshape(-1, 2).astype(np.float64)
    v, u = np.mgrid[0:height, 0:width][:, GRID // 2 :: GRID, GRID // 2 :: GRID].reshape(2, -1)
    x, y = (u + 0.5 - width / 2) / focal, (v + 0.5 - height / 2) / focal
    across = focal * np.stack([x * y, -(1 + x * x), y], axis=1)
    down = focal * np.stack([1 + y * y, -x * y, -x], axis=1)
    basis = np.stack([across, down], axis=1)
    weights = np.ones(len(seen))
    for _ in range(ROUNDS):
        weighted = basis * weights[:, None, None]
        normal = np.einsum("nik,nil->kl", weighted, basis) + 1e-9 * np.eye(3)
        turned = basis @ np.linalg.solve(normal, np.einsum("nik,ni->k", weighted, seen))
        weights = 1 / np.linalg.norm(seen - turned, axis=1).clip(0.05)
    long_side = max(height, width)
    turn, rest = (float(np.median(np.linalg.norm(part, axis=1))) / long_side for part in (turned, seen - turned))
    return ImageMotion(turn, rest)
