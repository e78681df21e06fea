"""Labelled points on the surfaces of a room that can be seen from its free space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int16, UInt8
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, transform_points, unproject
from ff3r_model.synthetic.camera import look_along, pinhole
from ff3r_model.synthetic.raytracer import render
from ff3r_model.synthetic.rooms import Room

STATIONS = 6
"""Places that the room is looked at from."""
SIDE = 128
"""Pixels along the side of a view."""
PITCHES = (-55.0, 0.0, 55.0)
"""Degrees; four views of 90° at each."""
CLEARANCE = 0.3
"""Metres between a station and any solid."""


@dataclass(frozen=True)
class RoomCloud:
    """Points with what they belong to."""

    points: Float[Tensor, "n 3"]
    """World, metres."""
    rgb: UInt8[Tensor, "n 3"]
    classes: Int16[Tensor, " n"]
    colors: Int16[Tensor, " n"]
    instances: Int16[Tensor, " n"]


def room_cloud(room: Room, n: int, seed: int = 0) -> RoomCloud:
    """`n` points on visible surfaces, roughly as many per square metre everywhere."""
    rng = np.random.default_rng([room.seed, seed, 3])
    poses = _panoramas(_stations(room, rng))
    views = render(room, poses, pinhole(SIDE, SIDE, 90.0).expand(len(poses), 3, 3), SIDE, SIDE)
    camera_points = unproject(views.depth, views.cameras.intrinsics).flatten(1, 2)
    points = transform_points(invert_rigid(views.cameras.camera_from_world), camera_points).flatten(0, 1)
    weight = views.depth.double().square().flatten().cpu().numpy()
    chosen = rng.choice(len(weight), n, replace=n > len(weight), p=weight / weight.sum())
    index = torch.tensor(chosen, device=points.device)
    labels = (labels.flatten()[index] for labels in (views.classes, views.colors, views.instances))
    return RoomCloud(points[index], views.images.flatten(0, 2)[index], *labels)


def _stations(room: Room, rng: np.random.Generator) -> Float[Tensor, "k 3"]:
    """Free places far from each other: of many random ones, always the farthest from those taken."""
    low, high = room.low.cpu().numpy() + CLEARANCE, room.high.cpu().numpy() - CLEARANCE
    low[2], high[2] = 0.5, 1.9
    points = torch.tensor(rng.uniform(low, high, (400, 3)), dtype=torch.float32, device=room.low.device)
    clearance = room.clearance(points)
    points = points[clearance >= min(CLEARANCE, float(clearance.max()))]
    taken = points[:1]
    while len(taken) < STATIONS:
        taken = torch.cat([taken, points[torch.cdist(points, taken).amin(1).argmax()][None]])
    return taken


def _panoramas(stations: Tensor) -> Float[Tensor, "v 4 4"]:
    """Poses that look all round from every station."""
    directions = [
        (math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch))
        for pitch in map(math.radians, PITCHES)
        for yaw in np.radians([0, 90, 180, 270]).tolist()
    ]
    forward = torch.tensor(directions, dtype=stations.dtype, device=stations.device).repeat(len(stations), 1)
    centres = stations.repeat_interleave(len(directions), 0)
    return look_along(centres, forward, torch.zeros(len(forward), device=stations.device))
