"""Windows of real pictures with known poses: what refinement is measured on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, nearest_rotation
from ff3r_model.core.types import Window
from ff3r_model.frames.prepare import prepare, prepare_picture

VIEWS = 8
SLACK = 4
"""Frame numbers by which a view may miss its place in a window."""


@dataclass(frozen=True)
class Posed:
    """Pictures by frame number, each with its pose."""

    name: str
    pictures: dict[int, Path]
    world_from_camera: dict[int, Float[Tensor, "4 4"]]
    intrinsics: Float[Tensor, "3 3"]
    step: int
    """Frame numbers between the views of a window."""

    def windows(self) -> list[tuple[int, ...]]:
        """The frame numbers of all windows, one per frame that begins one."""
        chains = [[self._nearest(first + place * self.step) for place in range(VIEWS)] for first in self.pictures]
        return [tuple(number for number in chain if number is not None) for chain in chains if None not in chain]

    def _nearest(self, wanted: int) -> int | None:
        nearest = min(self.pictures, key=lambda number: abs(number - wanted))
        return nearest if abs(nearest - wanted) <= min(SLACK, (self.step - 1) // 2) else None

    def window(self, numbers: tuple[int, ...], long_side: int, patch: int) -> tuple[Window, Float[Tensor, "views 4 4"]]:
        """A window as the pipeline would cut it, its keyframes named by their numbers, and its true cameras."""
        images, intrinsics, pictures = [], [], []
        for number in numbers:
            pixels = cv2.cvtColor(cv2.imread(str(self.pictures[number])), cv2.COLOR_BGR2RGB)
            image, matrix, crop = prepare(torch.from_numpy(pixels), self.intrinsics, long_side, patch)
            assert matrix is not None
            images.append(image)
            intrinsics.append(matrix)
            pictures.append(prepare_picture(torch.from_numpy(pixels), crop))
        poses = torch.stack([self.world_from_camera[number] for number in numbers])
        stacked = (torch.stack(images), torch.stack(intrinsics), torch.stack(pictures))
        return Window(stacked[0], numbers, numbers, stacked[1], pictures=stacked[2]), invert_rigid(poses)


def open_posed(data: Path) -> list[Posed]:
    """The four sequences whose poses are known well enough."""
    return [
        _numbered(data / "redkitchen_color_windows", "kitchen", 20),
        _numbered(data / "tsdf_shelf", "shelf", 2),
        _numbered(data / "strecha_fountain", "fountain", 1),
        _cabinet(data / "tum_fr3_cabinet"),
    ]


def _numbered(folder: Path, name: str, step: int) -> Posed:
    """Pictures beside `NAME.pose.txt`, and one `camera-intrinsics.txt`."""
    files = sorted(folder.glob("*.jpg"))
    numbers = [int(re.findall(r"\d+", file.name)[0]) for file in files]
    stems = [file.name.removesuffix(".jpg").removesuffix(".color") for file in files]
    poses = [_pose(np.loadtxt(folder / f"{stem}.pose.txt")) for stem in stems]
    intrinsics = torch.from_numpy(np.loadtxt(folder / "camera-intrinsics.txt")).float()
    return Posed(name, dict(zip(numbers, files, strict=True)), dict(zip(numbers, poses, strict=True)), intrinsics, step)


def _cabinet(folder: Path) -> Posed:
    fx, fy, cx, cy = np.loadtxt(folder / "intrinsics.txt")
    files = sorted((folder / "raw_imgs").glob("*.jpg"))
    rows = np.loadtxt(folder / "groundtruth_tum.txt")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = Rotation.from_quat(rows[:, 4:]).as_matrix(), rows[:, 1:4]
    numbers = range(len(files))
    intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)
    world_from_camera = {number: torch.from_numpy(pose) for number, pose in enumerate(poses)}
    return Posed("cabinet", dict(zip(numbers, files, strict=True)), world_from_camera, intrinsics, 1)


def _pose(matrix: np.ndarray) -> Float[Tensor, "4 4"]:
    pose = torch.from_numpy(matrix)
    pose[:3, :3] = nearest_rotation(pose[:3, :3])
    return pose
