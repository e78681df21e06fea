"""Layouts of RGB-D sequences with poses: 7-Scenes, TUM RGB-D, and the excerpt of TUM that cube_slam publishes."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import is_rigid, nearest_rotation, rigid
from ff3r_model.frames.pictures import some
from ff3r_model.frames.tum_lists import RgbdError, Row, read_files, read_numbers, read_poses

log = logging.getLogger(__name__)

SEVEN_SCENES_FPS = 30.0
SEVEN_SCENES_UNIT = 1e-3
"""Metres per step of the depth images."""
TUM_UNIT = 1 / 5000
MAX_STAMP_GAP = 0.02
"""Seconds between colour, depth and pose that still belong together in TUM's lists."""

T = TypeVar("T")


@dataclass(frozen=True)
class RgbdEntry:
    """One frame's files and pose."""

    stamp: int
    color: Path
    depth: Path
    world_from_camera: Float[Tensor, "4 4"]


@dataclass(frozen=True)
class RgbdLayout:
    """How a kind of RGB-D folder is laid out."""

    name: str
    here: Callable[[Path], bool]
    """Whether a folder has the layout."""
    entries: Callable[[Path], list[RgbdEntry]]
    """Its frames in order of time. Raises RgbdError."""
    unit: float
    """Metres per step of its depth images."""
    world_up: Callable[[Path], Float[Tensor, " 3"] | None]
    """Up in the axes of the poses, where it is known."""


def _seven_scenes(path: Path) -> list[RgbdEntry]:
    entries, lost = [], []
    for file in sorted(path.glob("frame-*.pose.txt")):
        stem = file.name.removesuffix(".pose.txt")
        number = stem.removeprefix("frame-")
        depth = path / f"{stem}.depth.png"
        colors = [image for kind in ("png", "jpg") if (image := path / f"{stem}.color.{kind}").is_file()]
        if not colors or not depth.is_file() or not number.isdecimal():
            lost.append(f"{stem} (no colour or no depth)")
        elif (pose := _pose(file)) is None:
            lost.append(f"{file.name} (no finite pose)")
        else:
            stamp = round(int(number) / SEVEN_SCENES_FPS * 1e9)
            entries.append(RgbdEntry(stamp, colors[0], depth, pose))
    _tell_lost(path, lost)
    return sorted(entries, key=lambda entry: entry.stamp)


def _pose(file: Path) -> Float[Tensor, "4 4"] | None:
    """The rigid transform nearest to the matrix in a file; None for one that is none (7-Scenes, ScanNet: NaN, -inf)."""
    try:
        matrix = read_numbers(file, 16).reshape(4, 4)
    except RgbdError:
        return None
    return rigid(nearest_rotation(matrix[:3, :3]), matrix[:3, 3]).float() if is_rigid(matrix) else None


def _seven_scenes_up(path: Path) -> Float[Tensor, " 3"] | None:
    """Against the direction of gravity in the world's axes, where a file gives it."""
    file = path / "gravity-direction.txt"
    if not file.is_file():
        return None
    return -torch.nn.functional.normalize(read_numbers(file, 3), dim=0).float()


def _cube_slam(path: Path) -> list[RgbdEntry]:
    """Line k of groundtruth_tum.txt belongs to images k."""
    entries, lost = [], []
    for row in read_poses(path / "groundtruth_tum.txt"):
        color = path / f"raw_imgs/{row.number:04d}_rgb_raw.jpg"
        depth = path / f"depth_imgs/{row.number:04d}_depth_raw.png"
        if color.is_file() and depth.is_file():
            entries.append(RgbdEntry(round(row.stamp * 1e9), color, depth, row.value))
        else:
            lost.append(f"image {row.number:04d} (no colour or no depth)")
    _tell_lost(path, lost)
    return entries


def _tum(path: Path) -> list[RgbdEntry]:
    """Colour images with the depth image and the pose nearest in time."""
    colors, depths = read_files(path / "rgb.txt"), read_files(path / "depth.txt")
    poses = read_poses(path / "groundtruth.txt")
    entries, lost = [], []
    for color in colors:
        depth, pose = _nearest(depths, color.stamp), _nearest(poses, color.stamp)
        absent = [row.value for row in (color, depth) if row is not None and not row.value.is_file()]
        if absent:
            lost.append(f"{absent[0].name} (not there)")
        elif depth is not None and pose is not None:
            entries.append(RgbdEntry(round(color.stamp * 1e9), color.value, depth.value, pose.value))
    _tell_lost(path, lost)
    if not entries and not lost:
        gaps = {"depth": _gap(colors, depths), "pose": _gap(colors, poses)}
        told = " and ".join(f"the nearest {what} {gap * 1e3:.0f} ms away" for what, gap in gaps.items())
        raise RgbdError(
            f"{path}: no colour image has a depth image and a pose within {MAX_STAMP_GAP * 1e3:.0f} ms: {told}, mostly"
        )
    return entries


def _nearest(rows: list[Row[T]], stamp: float) -> Row[T] | None:
    """What lies nearest to a stamp in a list in order of time, within MAX_STAMP_GAP."""
    after = bisect.bisect_left(rows, stamp, key=lambda row: row.stamp)
    near = min(rows[max(after - 1, 0) : after + 1], key=lambda row: abs(row.stamp - stamp), default=None)
    return near if near is not None and abs(near.stamp - stamp) <= MAX_STAMP_GAP else None


def _gap(colors: list[Row[Path]], rows: list[Row[T]]) -> float:
    """Seconds from a colour image to the nearest row, the median."""
    if not colors or not rows:
        return float("inf")
    gaps = sorted(min(abs(row.stamp - color.stamp) for row in rows) for color in colors[:100])
    return gaps[len(gaps) // 2]


def _tell_lost(path: Path, lost: list[str]) -> None:
    if lost:
        log.warning("%s: left out %d frames: %s", path, len(lost), some(lost))


def _tum_up(path: Path) -> Float[Tensor, " 3"]:
    """The motion capture's z."""
    return torch.tensor([0.0, 0.0, 1.0])


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda path: all((path / name).exists() for name in names)


LAYOUTS = (
    RgbdLayout(
        "7-Scenes", lambda path: any(path.glob("frame-*.pose.txt")), _seven_scenes, SEVEN_SCENES_UNIT, _seven_scenes_up
    ),
    RgbdLayout("TUM", _has("rgb.txt", "depth.txt", "groundtruth.txt"), _tum, TUM_UNIT, _tum_up),
    RgbdLayout("cube_slam", _has("raw_imgs", "depth_imgs"), _cube_slam, TUM_UNIT, _tum_up),
)
SEVEN_SCENES = LAYOUTS[0]


def layout_of(path: Path) -> RgbdLayout | None:
    """The layout of a folder, if it is an RGB-D sequence's."""
    return next((layout for layout in LAYOUTS if path.is_dir() and layout.here(path)), None)
