"""The benchmark of held-out procedural rooms: one window per room, and views between its views held out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor
from tqdm import tqdm

from ff3r_model.core.geometry import invert_rigid, rigid
from ff3r_model.core.types import Cameras
from ff3r_model.evaluation.sample import Sample, TrueViews
from ff3r_model.synthetic import Room, make_room, render
from ff3r_model.training.datasets.room_shards import render_shard
from ff3r_model.training.datasets.room_views import RoomWindow, make_window

TARGETS = 2
"""Views held out per window."""
CLEARANCE = 0.15
"""Metres that a held-out camera keeps from everything."""


def held_out_window(seed: int, views: int, size: tuple[int, int] = (112, 112)) -> RoomWindow:
    """One window of the benchmark, a function of its seed alone."""
    return make_window(render_shard(seed, 1, views, size))


def held_out_sample(seed: int, views: int, size: tuple[int, int] = (112, 112)) -> Sample:
    """The same window with up to `TARGETS` held-out views, each half-way between two views that follow each other."""
    arrays = render_shard(seed, 1, views, size)
    window = make_window(arrays)
    poses = torch.from_numpy(arrays["world_from_camera"][0])
    room = make_room(seed)
    between = _between(poses, room)
    context = TrueViews(
        window.images[0], Cameras(window.camera_from_world[0], window.intrinsics[0]),
        window.depth[0], window.classes[0], window.colors[0],
    )  # fmt: skip
    metres = float(window.metres[0])
    targets = _targets(room, between, poses[0], window.intrinsics[0, :1], metres, size) if len(between) else None
    return Sample(f"room {seed}", context, targets, metres)


def _between(poses: Float[Tensor, "views 4 4"], room: Room) -> Float[Tensor, "targets 4 4"]:
    """Poses half-way between neighbours where there is room for a camera, spread over the window."""
    turns = Rotation.from_matrix(poses[:, :3, :3].numpy())
    half = turns[:-1] * Rotation.from_rotvec((turns[:-1].inv() * turns[1:]).as_rotvec() / 2)
    centres = (poses[:-1, :3, 3] + poses[1:, :3, 3]) / 2
    between = rigid(torch.from_numpy(half.as_matrix()), centres)
    free = between[room.clearance(centres.float()) >= CLEARANCE]
    chosen = np.linspace(0, len(free) - 1, min(TARGETS, len(free)) + 2)[1:-1].round()
    return free[torch.from_numpy(np.unique(chosen).astype(int))]


def _targets(
    room: Room, poses: Tensor, first: Tensor, intrinsics: Tensor, metres: float, size: tuple[int, int]
) -> TrueViews:
    """What the cameras `poses` (world_from_camera, metres) see, in the window's frame and unit."""
    seen = render(room, poses.float(), intrinsics.expand(len(poses), 3, 3), *size)
    camera_from_first = invert_rigid(poses) @ first
    camera_from_first[:, :3, 3] /= metres
    depth = torch.where(torch.isfinite(seen.depth), seen.depth / metres, torch.zeros_like(seen.depth))
    cameras = Cameras(camera_from_first.float(), seen.cameras.intrinsics)
    images = seen.images.permute(0, 3, 1, 2).float() / 255
    return TrueViews(images, cameras, depth, seen.classes.long(), seen.colors.long())


def windows(views: int, seeds: range) -> Iterator[Sample]:
    """The benchmark's windows, made as they are needed, with a progress bar."""
    bar = tqdm(seeds, desc=f"held-out rooms, {views} views", unit="window", disable=None)
    yield from (held_out_sample(seed, views) for seed in bar)
