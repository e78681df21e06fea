"""A picture of a reconstructed map: its Gaussians rendered from beside and above the camera's path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor
from tyro.conf import Positional, arg

from ff3r_model.core.geometry import invert_rigid, transform_points
from ff3r_model.core.types import Cameras, Gaussians
from ff3r_model.gaussians.ply import read_ply
from ff3r_model.gaussians.render import render

PAPER = 0.98
"""Grey of the background."""
BRIGHT = 0.99
"""Quantile of what is seen that is shown as white."""


@dataclass(frozen=True)
class MapPicture:
    """Render cloud.ply of a folder that `ff3r reconstruct` wrote."""

    folder: Positional[Path]
    output: Annotated[Path, arg(aliases=["-o"])]
    """PNG or JPEG."""
    pose: float = 0.5
    """Which of the path's poses to start from: 0 the first, 1 the last."""
    lift: float = 25.0
    """Degrees by which the viewer is raised about what that pose looks at."""
    turn: float = 0.0
    """Degrees to the right, about the same."""
    away: float = 1.6
    """How many times as far from it."""
    reach: float = 3.0
    """Leave out what lies farther from the path than so many times the median distance."""
    size: tuple[int, int] = (640, 400)
    """Width and height, pixels."""

    def __call__(self) -> None:
        """Write the picture."""
        cloud, path = read_ply(self.folder / "cloud.ply"), read_path(self.folder / "traj_tum.txt")
        start = path[round(self.pose * (len(path) - 1))]
        distance = float((transform_points(invert_rigid(start), cloud.means))[:, 2].clamp(min=0).median())
        near = torch.cdist(cloud.means, path[:, :3, 3]).amin(1) < self.reach * distance
        picture = shown(cloud.select(near), orbit(start, distance, self.lift, self.turn, self.away), self.size)
        cv2.imwrite(str(self.output), (255 * picture.numpy()[..., ::-1]).round().astype(np.uint8))


def read_path(file: Path) -> Float[Tensor, "poses 4 4"]:
    """Poses map_from_camera of a trajectory in TUM's format."""
    rows = np.atleast_2d(np.loadtxt(file))
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = Rotation.from_quat(rows[:, 4:]).as_matrix(), rows[:, 1:4]
    return torch.from_numpy(poses).float()


def orbit(start: Float[Tensor, "4 4"], distance: float, lift: float, turn: float, away: float) -> Float[Tensor, "4 4"]:
    """map_from_camera of a viewer who has gone round the point that a pose looks at, at a distance, up and right."""
    rotation = np.eye(4)
    rotation[:3, :3] = Rotation.from_euler("yx", [-turn, -lift], degrees=True).as_matrix()
    to_focus, back = np.eye(4), np.eye(4)
    to_focus[2, 3], back[2, 3] = distance, -away * distance
    return start @ torch.from_numpy(to_focus @ rotation @ back).float()


def shown(cloud: Gaussians, map_from_camera: Float[Tensor, "4 4"], size: tuple[int, int]) -> Float[Tensor, "h w 3"]:
    """RGB in [0, 1], on paper."""
    width, height = size
    intrinsics = torch.tensor([[0.9 * width, 0, width / 2], [0, 0.9 * width, height / 2], [0, 0, 1]])
    made = render(cloud, Cameras(invert_rigid(map_from_camera)[None], intrinsics[None]), height, width)
    bright = float(made.colors[0].max(dim=2).values.quantile(BRIGHT))
    return (made.colors[0] / max(bright, 0.1) + PAPER * (1 - made.alpha[0, ..., None])).clamp(0, 1)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    tyro.cli(MapPicture)()
