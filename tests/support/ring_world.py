"""A corridor around a block, with boxes along its walls: exact depth along a path that comes back to where it began."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from ff3r_model.core.geometry import BODY_FROM_OPTICAL, apply_similarity, rigid, umeyama, unproject
from ff3r_model.synthetic.sequences import FRAME_NANOSECONDS, Sequence

SIDE = 28
INTRINSICS = torch.tensor([[20.0, 0, SIDE / 2], [0, 20, SIDE / 2], [0, 0, 1]])
OUTER, INNER, HEIGHT, EYE = (8.0, 6.0), (5.0, 3.0), 2.4, 1.2
CORNERS = ((-6.5, -4.5), (6.5, -4.5), (6.5, 4.5), (-6.5, 4.5))
STEP = 0.4


def boxes(count: int = 40, seed: int = 1) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Low and high corners of furniture along the outer wall, and of the block inside."""
    rng = np.random.default_rng(seed)
    low, high = [[-INNER[0], -INNER[1], -1.0]], [[INNER[0], INNER[1], HEIGHT + 1]]
    for _ in range(count):
        along, depth, width = rng.uniform(-7, 7), rng.uniform(0.2, 0.7), rng.uniform(0.3, 1.0)
        bottom, top = sorted(rng.uniform(0, HEIGHT, 2))
        centre, half = (
            [(along, OUTER[1]), (along, -OUTER[1]), (OUTER[0], along * 0.7), (-OUTER[0], along * 0.7)][rng.integers(4)],
            (width, depth),
        )
        low.append([centre[0] - half[0], centre[1] - half[1], bottom])
        high.append([centre[0] + half[0], centre[1] + half[1], top])
    return torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32)


def ring_depth(world_from_camera: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n h w"]:
    """z of the nearest surface per pixel."""
    count = len(world_from_camera)
    rays = unproject(torch.ones(count, SIDE, SIDE), INTRINSICS.expand(count, 3, 3))
    directions = torch.einsum("vij,vhwj->vhwi", world_from_camera[:, :3, :3], rays)
    centres = world_from_camera[:, None, None, :3, 3]
    low, high = torch.tensor([-OUTER[0], -OUTER[1], 0.0]), torch.tensor([OUTER[0], OUTER[1], HEIGHT])
    depth = (torch.where(directions > 0, high - centres, low - centres) / directions).amin(-1)
    for box_low, box_high in zip(*boxes(), strict=True):
        first, second = (box_low - centres) / directions, (box_high - centres) / directions
        near, far = torch.minimum(first, second).amax(-1), torch.maximum(first, second).amin(-1)
        depth = torch.where((near < far) & (near > 0.05), torch.minimum(depth, near), depth)
    return depth


def path(laps: float, start: float = 0.0) -> Float[Tensor, "n 4 4"]:
    """world_from_camera along the middle of the corridor, looking ahead; corners are cut by smoothing."""
    corners = np.array([*CORNERS, CORNERS[0]])
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    around = lengths.sum()
    at = (start * around + np.arange(0, laps * around, 0.05)) % around
    knots = np.concatenate([[0], lengths.cumsum()])
    places = np.stack([np.interp(at, knots, corners[:, axis]) for axis in range(2)], axis=1)
    kernel = np.ones(41) / 41
    padded = np.concatenate([places[:1].repeat(20, 0), places, places[-1:].repeat(20, 0)])
    smooth = np.stack([np.convolve(padded[:, axis], kernel, "valid") for axis in range(2)], axis=1)
    heading = np.gradient(smooth, axis=0)
    yaw = np.arctan2(heading[:, 1], heading[:, 0])
    every = slice(20, -20, round(STEP / 0.05))
    turns = torch.tensor(Rotation.from_euler("z", yaw[every, None]).as_matrix(), dtype=torch.float32)
    centres = torch.tensor(np.column_stack([smooth[every], np.full(len(yaw[every]), EYE)]), dtype=torch.float32)
    return rigid(turns @ BODY_FROM_OPTICAL, centres)


def ring(world_from_camera: Float[Tensor, "n 4 4"]) -> Sequence:
    """The frames of these cameras; pictures are stripes that say little."""
    count = len(world_from_camera)
    images = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    stamps = tuple(range(0, count * FRAME_NANOSECONDS, FRAME_NANOSECONDS))
    depth = ring_depth(world_from_camera)
    return Sequence("ring", images, depth, world_from_camera, INTRINSICS, stamps, torch.tensor([0.0, 0, 1]))


def ate(truth: Sequence, found: list[tuple[int, Tensor]]) -> float:
    """Root mean square distance of camera centres after the best similarity between the two paths, in metres."""
    true = {stamp: pose[:3, 3].double() for stamp, pose in zip(truth.stamps, truth.world_from_camera, strict=True)}
    here = torch.stack([pose[:3, 3].double() for _, pose in found])
    there = torch.stack([true[stamp] for stamp, _ in found])
    return math.sqrt(float((apply_similarity(umeyama(here, there), here) - there).square().sum(1).mean()))
