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
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Cameras, Predict
from ff3r_model.evaluation.accumulators import Figures
from ff3r_model.evaluation.benchmark import Judge, run
from ff3r_model.evaluation.sample import Sample, Shots
from ff3r_model.evaluation.vocabulary import of_rooms
from ff3r_model.network.text_encoder import TextEncoder
from ff3r_model.synthetic import Room, make_room, render
from ff3r_model.training.datasets.room_shards import render_shard
from ff3r_model.training.datasets.room_views import Views, make_views

HELD_OUT = range(0, 100)
"""Seeds that training never draws (it starts at `FIRST_TRAINING_SEED`)."""
TARGETS = 2
"""Views held out per window."""
CLEARANCE = 0.15
"""Metres that a held-out camera keeps from everything."""


def held_out_window(seed: int, views: int, size: tuple[int, int] = (112, 112)) -> Views:
    """One window of the benchmark, a function of its seed alone."""
    return make_views(render_shard(seed, 1, views, size))


def held_out_sample(seed: int, views: int, size: tuple[int, int] = (112, 112)) -> Sample:
    """The same window with up to `TARGETS` held-out views, each half-way between two views that follow each other."""
    arrays = render_shard(seed, 1, views, size)
    window = make_views(arrays)
    poses = torch.from_numpy(arrays["world_from_camera"][0])
    room = make_room(seed)
    between = _between(poses, room)
    context = Shots(
        window.images[0], Cameras(window.camera_from_world[0], window.intrinsics[0]),
        window.depth[0], window.classes[0], window.colors[0],
    )  # fmt: skip
    metres = float(window.scale[0])
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
) -> Shots:
    """What the cameras `poses` (world_from_camera, metres) see, in the window's frame and unit."""
    seen = render(room, poses.float(), intrinsics.expand(len(poses), 3, 3), *size)
    camera_from_first = invert_rigid(poses) @ first
    camera_from_first[:, :3, 3] /= metres
    depth = torch.where(torch.isfinite(seen.depth), seen.depth / metres, torch.zeros_like(seen.depth))
    cameras = Cameras(camera_from_first.float(), seen.cameras.intrinsics)
    images = seen.images.permute(0, 3, 1, 2).float() / 255
    return Shots(images, cameras, depth, seen.classes.long(), seen.colors.long())


def windows(views: int, seeds: range) -> Iterator[Sample]:
    """The benchmark's windows, made as they are needed, with a progress bar."""
    bar = tqdm(seeds, desc=f"held-out rooms, {views} views", unit="window")
    yield from (held_out_sample(seed, views) for seed in bar)


def evaluate(
    engine: Predict,
    text: TextEncoder,
    space: TextSpace,
    views: int,
    seeds: range = HELD_OUT,
    refining: Predict | None = None,
) -> Figures:
    """All figures of a network over held-out rooms (see `run` for the two engines)."""
    judge = Judge(text.encode, space, of_rooms())
    for _ in run(windows(views, seeds), engine, judge, torch.device("cpu"), refining):
        pass
    return judge.figures()
