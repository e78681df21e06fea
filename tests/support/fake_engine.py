"""A pipeline whose network is replaced by exact geometry: a wall and a floor, seen by a camera that slides right.

Everything else (windows, alignment, voxels, map, queries) is the real thing.
"""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import torch
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, pixel_grid, transform_points, unproject
from ff3r_model.core.types import Cameras, Gaussians, Prediction, Window
from ff3r_model.network.text_encoder import TextEncoder

DIM = 64
FLOOR, WALL = 1.0, 4.0
"""How far the floor lies below the camera, and the wall in front of it, in the engine's unit."""
SPEED = 0.2
"""Units per second to the right."""


class FakeText(TextEncoder):
    """Each text its own random direction, always the same."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def unknown_words(self, text: str) -> list[str]:
        return []

    def encode(self, texts: list[str]) -> Tensor:
        return torch.stack([direction(text) for text in texts])


def direction(text: str) -> Tensor:
    """A unit vector that depends on nothing but the text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    vector = torch.randn(DIM, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


class FakeEngine:
    """Exact predictions; `fail` makes the next windows raise, `gate` makes them wait."""

    def __init__(self) -> None:
        self.fail: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()
        self.views: list[int] = []

    def __call__(self, window: Window) -> Prediction:
        self.running.set()
        assert self.gate.wait(60)
        self.running.clear()
        if self.fail:
            raise self.fail.pop(0)
        views, _, height, width = window.images.shape
        self.views.append(views)
        world_from_camera = torch.eye(4).repeat(views, 1, 1)
        world_from_camera[:, 0, 3] = torch.tensor([camera_x(stamp) for stamp in window.stamps])
        intrinsics = torch.tensor([[0.5 * width, 0, width / 2], [0, 0.5 * width, height / 2], [0, 0, 1.0]])
        depth = scene_depth(height, width, intrinsics).repeat(views, 1, 1)
        camera_from_window = invert_rigid(world_from_camera) @ world_from_camera[0]
        points = unproject(depth, intrinsics.repeat(views, 1, 1)).flatten(1, 2)
        means = transform_points(invert_rigid(camera_from_window), points)
        gaussians = scene_gaussians(means.flatten(0, 1), float(world_from_camera[0, 0, 3]))
        cameras = Cameras(camera_from_window, intrinsics.repeat(views, 1, 1))
        return Prediction(cameras, depth, torch.ones_like(depth), gaussians)


def camera_x(stamp: int) -> float:
    """Where the camera is at a time: at 0 one second after the clock's zero."""
    return SPEED * (stamp / 1e9 - 1)


def scene_depth(height: int, width: int, intrinsics: Tensor) -> Tensor:
    """z of the nearer of wall and floor, per pixel."""
    down = (pixel_grid(height, width, intrinsics)[..., 1] - intrinsics[1, 2]) / intrinsics[1, 1]
    return torch.where(down > FLOOR / WALL, FLOOR / down.clamp_min(1e-6), WALL)


def scene_gaussians(means: Tensor, origin_x: float) -> Gaussians:
    """floor; wall; and on the wall, left of where the world begins, a red chair."""
    count = len(means)
    names = ("floor", "wall", "red chair")
    on_floor, left = means[:, 1] > 0.98 * FLOOR, means[:, 0] + origin_x < 0
    kind = torch.where(on_floor, 0, torch.where(left, 2, 1))
    return Gaussians(
        means, torch.full((count, 3), 0.02), torch.tensor([1.0, 0, 0, 0]).repeat(count, 1), torch.zeros(count, 1, 3),
        torch.ones(count), torch.ones(count), torch.stack([direction(name) for name in names])[kind],
    )  # fmt: skip


def noise(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """An RGB picture that differs from those of other indices."""
    coarse = np.random.default_rng(index).integers(0, 255, (6, 8, 3), np.uint8)
    return np.kron(coarse, np.ones((height // 6, width // 8, 1), np.uint8))
