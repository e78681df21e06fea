"""RGB-D sequences with poses from folders: 7-Scenes, TUM RGB-D, and the excerpt of TUM that cube_slam publishes."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ff3r_model.core.geometry import nearest_rotation, quaternion_to_matrix, rigid
from ff3r_model.core.types import Frame
from ff3r_model.frames.source import SourceError

SEVEN_SCENES_FPS = 30.0
SEVEN_SCENES_INTRINSICS = (585.0, 585.0, 320.0, 240.0)
"""fx, fy, cx, cy that 7-Scenes gives for all its scenes."""
SEVEN_SCENES_SIZE = (640, 480)
"""Width and height of the images that these are of."""
SEVEN_SCENES_UNIT = 1e-3
"""Metres per step of the depth images."""
TUM_UNIT = 1 / 5000
MAX_STAMP_GAP = 0.02
"""Seconds between colour, depth and pose that still belong together in TUM's lists."""

T = TypeVar("T")


class RgbdError(SourceError):
    """A folder that holds no RGB-D sequence, or a damaged one; the message names what is missing."""


@dataclass(frozen=True)
class RgbdEntry:
    """One frame's files and pose."""

    stamp: int
    color: Path
    depth: Path
    world_from_camera: Float[Tensor, "4 4"]


class RgbdSource:
    """Frames with registered depth, their pose as odometry, and where the world's up is known, that too."""

    def __init__(self, path: Path) -> None:
        """Raises RgbdError when the folder is none of the known layouts."""
        self.name, self.path = path.name, path
        self.world_up: Float[Tensor, " 3"] | None = None
        if _is_seven_scenes(path):
            self.entries, self._unit = _seven_scenes(path), SEVEN_SCENES_UNIT
            self.world_up = _seven_scenes_up(path)
        elif (path / "rgb.txt").is_file():
            self.entries, self._unit = _tum(path), TUM_UNIT
        elif (path / "raw_imgs").is_dir():
            self.entries, self._unit = _cube_slam(path), TUM_UNIT
        else:
            raise RgbdError(f"{path} is no RGB-D sequence: no frame-*.pose.txt, no rgb.txt and no raw_imgs in it")
        if not self.entries:
            raise RgbdError(f"{path} holds no frame that has colour, depth and a pose")
        if self._unit == TUM_UNIT:
            self.world_up = torch.tensor([0.0, 0.0, 1.0])
        self.intrinsics = _intrinsics(path, self.entries[0].color if self._unit == SEVEN_SCENES_UNIT else None)
        self.count: int | None = len(self.entries)
        seconds = (self.entries[-1].stamp - self.entries[0].stamp) / 1e9
        self.fps = (len(self.entries) - 1) / seconds if seconds > 0 else 1.0

    def __iter__(self) -> Iterator[Frame]:
        return (self.read(entry) for entry in self.entries)

    def read(self, entry: RgbdEntry) -> Frame:
        """One frame. Raises RgbdError for images that cannot be decoded or differ in size."""
        color = cv2.imread(str(entry.color), cv2.IMREAD_COLOR)
        depth = cv2.imread(str(entry.depth), cv2.IMREAD_UNCHANGED)
        if color is None or depth is None or depth.ndim != 2 or depth.shape != color.shape[:2]:
            sizes = [None if image is None else image.shape for image in (color, depth)]
            raise RgbdError(f"{entry.color} and {entry.depth} are no pair of colour and depth: {sizes[0]}, {sizes[1]}")
        metres = torch.from_numpy(np.where(depth == 65535, 0, depth).astype(np.float32)) * self._unit
        up = None if self.world_up is None else entry.world_from_camera[:3, :3].T @ self.world_up
        return Frame(
            image=torch.from_numpy(cv2.cvtColor(color, cv2.COLOR_BGR2RGB)),
            stamp=entry.stamp,
            intrinsics=self.intrinsics,
            depth=metres,
            odom_from_camera=entry.world_from_camera,
            up=up,
        )


def is_rgbd(path: Path) -> bool:
    """Whether a folder looks like an RGB-D sequence with poses."""
    if not path.is_dir():
        return False
    tum = (path / "rgb.txt").is_file() and (path / "depth.txt").is_file() and (path / "groundtruth.txt").is_file()
    return tum or _is_seven_scenes(path) or ((path / "raw_imgs").is_dir() and (path / "depth_imgs").is_dir())


def _is_seven_scenes(path: Path) -> bool:
    return any(path.glob("frame-*.pose.txt"))


def _seven_scenes(path: Path) -> list[RgbdEntry]:
    entries = []
    for pose in sorted(path.glob("frame-*.pose.txt")):
        stem = pose.name.removesuffix(".pose.txt")
        depth = path / f"{stem}.depth.png"
        colors = [file for kind in ("png", "jpg") if (file := path / f"{stem}.color.{kind}").is_file()]
        if colors and depth.is_file():
            stamp = round(int(stem.removeprefix("frame-")) / SEVEN_SCENES_FPS * 1e9)
            entries.append(RgbdEntry(stamp, colors[0], depth, _orthonormal(_numbers(pose, 16).reshape(4, 4))))
    return entries


def _seven_scenes_up(path: Path) -> Float[Tensor, " 3"] | None:
    """Against the direction of gravity in the world's axes, where a file gives it."""
    file = path / "gravity-direction.txt"
    if not file.is_file():
        return None
    return -torch.nn.functional.normalize(_numbers(file, 3), dim=0).float()


def _cube_slam(path: Path) -> list[RgbdEntry]:
    """Line k of groundtruth_tum.txt belongs to images k."""
    entries = []
    for index, (stamp, pose) in enumerate(_poses(path / "groundtruth_tum.txt")):
        color, depth = path / f"raw_imgs/{index:04d}_rgb_raw.jpg", path / f"depth_imgs/{index:04d}_depth_raw.png"
        if color.is_file() and depth.is_file():
            entries.append(RgbdEntry(round(stamp * 1e9), color, depth, pose))
    return entries


def _tum(path: Path) -> list[RgbdEntry]:
    """Colour images with the depth image and the pose nearest in time."""
    depths = [(float(stamp), path / name) for stamp, name in _lines(path / "depth.txt")]
    poses = _poses(path / "groundtruth.txt")
    entries = []
    for stamp, name in ((float(row[0]), row[1]) for row in _lines(path / "rgb.txt")):
        depth, pose = _nearest(depths, stamp), _nearest(poses, stamp)
        if depth is not None and pose is not None:
            entries.append(RgbdEntry(round(stamp * 1e9), path / name, depth, pose))
    return entries


def _nearest(timed: list[tuple[float, T]], stamp: float) -> T | None:
    """What lies nearest to a stamp in a list in order of time, within MAX_STAMP_GAP."""
    after = bisect.bisect_left(timed, stamp, key=lambda item: item[0])
    near = min(timed[max(after - 1, 0) : after + 1], key=lambda item: abs(item[0] - stamp), default=None)
    return near[1] if near is not None and abs(near[0] - stamp) <= MAX_STAMP_GAP else None


def _poses(path: Path) -> list[tuple[float, Float[Tensor, "4 4"]]]:
    """(seconds, world_from_camera) of a file in TUM's format: stamp tx ty tz qx qy qz qw."""
    rows = torch.tensor([[float(word) for word in line] for line in _lines(path)], dtype=torch.float64)
    if rows.ndim != 2 or rows.shape[1] != 8:
        raise RgbdError(f"{path} is no list of poses: eight numbers are needed on each line")
    matrices = rigid(quaternion_to_matrix(rows[:, [7, 4, 5, 6]]), rows[:, 1:4]).float()
    return list(zip(rows[:, 0].tolist(), matrices, strict=True))


def _intrinsics(path: Path, seven_scenes: Path | None) -> Float[Tensor, "3 3"] | None:
    """From the file that lies beside the images; 7-Scenes has one camera for all."""
    if (file := path / "camera-intrinsics.txt").is_file():
        return _numbers(file, 9).reshape(3, 3).float()
    file = path / "intrinsics.txt"
    if file.is_file():
        fx, fy, cx, cy = _numbers(file, 4).tolist()
    elif seven_scenes is not None:
        fx, fy, cx, cy = _seven_scenes_intrinsics(seven_scenes)
    else:
        return None
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _seven_scenes_intrinsics(image: Path) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy at the size of the stored images, which need not be that of 7-Scenes. Raises RgbdError."""
    try:
        with Image.open(image) as opened:
            width, height = opened.size
    except OSError as error:
        raise RgbdError(f"{image} cannot be decoded ({error}): its size is needed for the intrinsics") from error
    (fx, fy, cx, cy), (usual_width, usual_height) = SEVEN_SCENES_INTRINSICS, SEVEN_SCENES_SIZE
    return fx * width / usual_width, fy * height / usual_height, cx * width / usual_width, cy * height / usual_height


def _orthonormal(pose: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The rigid transform nearest to a matrix: 7-Scenes' rotations are off by some 1e-3."""
    return rigid(nearest_rotation(pose[:3, :3]), pose[:3, 3]).float()


def _lines(path: Path) -> list[list[str]]:
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError as error:
        raise RgbdError(f"{path} cannot be read: {error}") from error
    return [row for row in rows if row and not row[0].startswith("#")]


def _numbers(path: Path, count: int) -> Float[Tensor, " count"]:
    try:
        values = [float(word) for word in path.read_text().split()]
    except (OSError, ValueError) as error:
        raise RgbdError(f"{path} cannot be read: {error}") from error
    if len(values) != count:
        raise RgbdError(f"{path} holds {len(values)} numbers, {count} are needed")
    return torch.tensor(values, dtype=torch.float64)
