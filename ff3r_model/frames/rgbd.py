"""RGB-D sequences with poses from folders, their depth in metres tested against the poses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from ff3r_model.core.types import Frame
from ff3r_model.frames.depth_unit import compare, name_unit, unit_factor
from ff3r_model.frames.image_folder import ImageList
from ff3r_model.frames.read_image import ImageFileError, opened, read_color, read_depth, upright_size
from ff3r_model.frames.rgbd_intrinsics import read_intrinsics, typical_intrinsics
from ff3r_model.frames.rgbd_layouts import LAYOUTS, SEVEN_SCENES, RgbdEntry, layout_of
from ff3r_model.frames.source import LeftOut
from ff3r_model.frames.tum_lists import RgbdError, read_files

log = logging.getLogger(__name__)

UNKNOWN = 65535
"""What some cameras store where they measured nothing, besides 0."""
SAME_SHAPE = 0.02
"""Difference of aspect ratios, relative, up to which depth of another resolution fits the colour image."""
GIVEN = "given"
PAIRS = 5
"""Pairs of frames by which the unit of depth is tested."""
MOTION = (0.03, 0.15)
"""Metres of the camera between the frames of a pair."""
TURN = 0.2
"""Radians between them, at most."""


class RgbdSource:
    """Frames with registered depth, their pose as odometry, and where the world's up is known, that too.

    A pair of images that is damaged is left out, by name.
    """

    def __init__(self, path: Path, depth_unit: float | None = None) -> None:
        """`depth_unit`: metres per step of the depth images, where it is not the layout's.

        Raises RgbdError when the folder is none of the known layouts, or poses contradict the depth.
        """
        layout = layout_of(path)
        if layout is None:
            known = ", ".join(each.name for each in LAYOUTS)
            raise RgbdError(f"{path} is no RGB-D sequence: it has none of the known layouts ({known})")
        if depth_unit is not None and not 0 < depth_unit < 1e3:
            raise RgbdError(f"the depth unit must be positive metres per step (0.001: millimetres), not {depth_unit}")
        self.name, self.path = path.resolve().name, path
        self.entries = layout.entries(path)
        if not self.entries:
            raise RgbdError(f"{path} holds no frame that has colour, depth and a pose")
        self.world_up = layout.world_up(path)
        self._unit = layout.unit if depth_unit is None else depth_unit
        self._size = _size(self.entries)
        self.intrinsics = read_intrinsics(path, self._size, layout is SEVEN_SCENES)
        self.count: int | None = len(self.entries)
        seconds = (self.entries[-1].stamp - self.entries[0].stamp) / 1e9
        self.fps = (len(self.entries) - 1) / seconds if seconds > 0 else 1.0
        self._check_unit(layout.name if depth_unit is None else GIVEN)

    def __iter__(self) -> Iterator[Frame]:
        left_out = LeftOut(self.path)
        for entry in self.entries:
            try:
                frame = self.read(entry)
            except (RgbdError, ImageFileError) as error:
                left_out.add(error)
                continue
            yield frame
        left_out.tell_rest()

    def read(self, entry: RgbdEntry) -> Frame:
        """One frame. Raises RgbdError or ImageFileError for images that cannot be decoded or differ in shape."""
        color, depth = read_color(entry.color), read_depth(entry.depth)
        height, width = color.shape[:2]
        if (height, width) != self._size:
            raise RgbdError(f"{entry.color} is {width}x{height}, other images are {self._size[1]}x{self._size[0]}")
        registered = _resampled(depth, height, width)
        if registered is None:
            raise RgbdError(
                f"{entry.color} and {entry.depth} are no pair of colour and depth: "
                f"{width}x{height} and {depth.shape[1]}x{depth.shape[0]} differ in shape"
            )
        known = np.isfinite(registered) & (registered > 0) & (registered != UNKNOWN)
        metres = torch.from_numpy(np.where(known, registered, 0).astype(np.float32)) * self._unit
        up = None if self.world_up is None else entry.world_from_camera[:3, :3].T @ self.world_up
        return Frame(
            image=color,
            stamp=entry.stamp,
            intrinsics=self.intrinsics,
            depth=metres,
            odom_from_camera=entry.world_from_camera,
            up=up,
        )

    def _check_unit(self, whose: str) -> None:
        """Raise RgbdError where poses say that depth has another unit."""
        intrinsics = typical_intrinsics(self._size) if self.intrinsics is None else self.intrinsics
        agreements = []
        for first, second in _pairs(self.entries):
            try:
                agreements.append(compare(self.read(first), self.read(second), intrinsics))
            except (RgbdError, ImageFileError):  # told where the frame is read for the map
                continue
        factor = unit_factor(agreements)
        if factor is not None:
            unit = name_unit(self._unit * factor)
            amount = f"{factor:.1f} times too small" if factor > 1 else f"{1 / factor:.1f} times too large"
            raise RgbdError(
                f"{self.path}: depth in steps of {self._unit:.4g} m ({whose}) is {amount} for the poses; "
                f"the depth unit {unit:.4g} would fit (--depth-unit {unit:.4g})"
            )
        if not agreements and whose != GIVEN:
            told = "%s: depth is read in steps of %.4g m (%s), which no poses confirm; --depth-unit says another"
            log.warning(told, self.path, self._unit, whose)


def is_rgbd(path: Path) -> bool:
    """Whether a folder looks like an RGB-D sequence with poses."""
    return layout_of(path) is not None


def tum_images(path: Path) -> ImageList | None:
    """The images of a TUM folder without poses or without depth; None for a folder without rgb.txt."""
    if not (path / "rgb.txt").is_file() or is_rgbd(path):
        return None
    missing = [name for name in ("depth.txt", "groundtruth.txt") if not (path / name).is_file()]
    log.warning("%s has no %s: its colour images alone are read", path, " and no ".join(missing))
    rows = read_files(path / "rgb.txt")
    return ImageList(path.resolve().name, [row.value for row in rows], [round(row.stamp * 1e9) for row in rows])


def _pairs(entries: list[RgbdEntry]) -> Iterator[tuple[RgbdEntry, RgbdEntry]]:
    """Frames spread over the sequence, each with the farthest of those that follow and look the same way."""
    for start in range(0, len(entries), max(1, len(entries) // PAIRS)):
        first, best, farthest = entries[start], None, MOTION[0]
        for second in entries[start + 1 :]:
            moved = torch.linalg.inv(first.world_from_camera) @ second.world_from_camera
            turn = float(((moved[:3, :3].trace() - 1) / 2).clamp(-1, 1).arccos())
            distance = float(moved[:3, 3].norm())
            if turn > TURN or (distance > MOTION[1] and best is not None):
                break
            if distance >= farthest:
                best, farthest = second, distance
        if best is not None:
            yield first, best


def _size(entries: list[RgbdEntry]) -> tuple[int, int]:
    """(height, width) of the first colour image that can be opened. Raises ImageFileError where none can."""
    for entry in entries:
        try:
            with opened(entry.color) as image:
                return upright_size(image)
        except ImageFileError as error:
            last = error
    raise last


def _resampled(depth: ndarray, height: int, width: int) -> ndarray | None:
    """Depth at each colour pixel, the nearest measurement; None where the shapes differ."""
    rows, columns = depth.shape
    if abs(columns * height - width * rows) > SAME_SHAPE * width * rows:
        return None
    down = ((np.arange(height) + 0.5) * rows / height).astype(int)
    across = ((np.arange(width) + 0.5) * columns / width).astype(int)
    return depth[down[:, None], across[None]]
