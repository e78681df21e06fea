"""Overlapping viewpoints for training: steps in proportion to the scene's depth, looking at content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, project, transform_points
from ff3r_model.synthetic.camera import look_along, pinhole
from ff3r_model.synthetic.rays import Rays, make_rays

PROBE = 9
"""Pixels along the side of the tiny views that judge a candidate."""
PROBE_FIELD_OF_VIEW = 60.0
CANDIDATES = 6
ROUNDS = 8
"""Batches of candidates tried before settling for less."""
CLEARANCE = 0.3
"""Metres between a camera and any solid."""
NEAREST, TYPICAL = 0.35, 0.8
"""Least depth in metres of any probe ray, and of the median one."""
OVERLAP = 0.45
"""Least share of a view's probe points that lie inside the next view."""
HEIGHT = (0.5, 1.9)


FirstHits = Callable[[Rays], Float[Tensor, " pixels"]]
"""Depth z along every ray of some cameras."""


@runtime_checkable
class Walkable(Protocol):
    """A room that cameras can walk through."""

    @property
    def seed(self) -> int:
        """What it follows from."""

    @property
    def low(self) -> Float[Tensor, " 3"]:
        """Lowest corner, metres."""

    @property
    def high(self) -> Float[Tensor, " 3"]:
        """Highest corner, metres."""

    @property
    def targets(self) -> np.ndarray:
        """Middles of the things that a camera may look at, (n, 3)."""

    def clearance(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Distance to the nearest wall or solid, metres."""

    def solid_distance(self, points: Float[Tensor, "n 3"], lowest: float = 0.0) -> Float[Tensor, " n"]:
        """Distance to the nearest solid whose top is above `lowest`, metres."""


@dataclass(frozen=True)
class _Walk:
    room: Walkable
    first_hits: FirstHits
    rng: np.random.Generator


@dataclass(frozen=True)
class Probe:
    """Tiny views of candidate cameras."""

    poses: Float[Tensor, "v 4 4"]
    depth: Float[Tensor, "v n"]
    points: Float[Tensor, "v n 3"]

    def good(self) -> Bool[Tensor, " v"]:
        """Which cameras have room in front of them."""
        return (self.depth.amin(-1) >= NEAREST) & (self.depth.median(-1).values >= TYPICAL)

    def pick(self, index: int) -> Probe:
        return Probe(*(getattr(self, name)[index : index + 1] for name in ("poses", "depth", "points")))


def overlapping_viewpoints(
    room: Walkable, first_hits: FirstHits, rng: np.random.Generator, views: int, step: float
) -> Float[Tensor, "views 4 4"]:
    """A walk of viewpoints, each overlapping the one before, `step` / 4 to `step` of the median depth apart."""
    walk = _Walk(room, first_hits, rng)
    chosen = [_first(walk)]
    while len(chosen) < views:
        chosen.append(_next(walk, chosen[-1], step))
    return torch.cat([probe.poses for probe in chosen])


def _look(walk: _Walk, centres: np.ndarray, targets: np.ndarray) -> Probe:
    """Probes of cameras that look from centres to targets, slightly rolled."""
    forward = targets - centres
    flat = np.linalg.norm(forward[:, :2], axis=1)
    forward[:, 2] = np.clip(forward[:, 2], -flat, 0.6 * flat)
    roll = walk.rng.normal(0, 0.06, len(centres))
    poses = look_along(*(torch.tensor(values, dtype=torch.float32) for values in (centres, forward, roll)))
    intrinsics = pinhole(PROBE, PROBE, PROBE_FIELD_OF_VIEW).expand(len(poses), 3, 3)
    rays = make_rays(poses, intrinsics, PROBE, PROBE)
    depth = walk.first_hits(rays).view(len(poses), -1)
    directions = rays.directions.view(3, len(poses), -1).permute(1, 2, 0)
    return Probe(poses, depth, rays.origin[:, None] + directions * depth[..., None])


def _clear(walk: _Walk, centres: np.ndarray) -> np.ndarray:
    points = torch.tensor(centres, dtype=torch.float32)
    return centres[(walk.room.clearance(points) >= CLEARANCE).numpy()]


def _first(walk: _Walk) -> Probe:
    """A camera somewhere free that looks at one of the room's things."""
    room, rng = walk.room, walk.rng
    low, high = room.low.numpy() + CLEARANCE, room.high.numpy() - CLEARANCE
    low[2], high[2] = HEIGHT
    things = room.targets
    best = None
    for _ in range(ROUNDS):
        centres = _clear(walk, rng.uniform(low, high, (CANDIDATES, 3)))
        if len(centres) == 0:
            continue
        probe = _look(walk, centres, things[rng.integers(len(things), size=len(centres))])
        good = probe.good()
        best = probe.pick(int(probe.depth.median(-1).values.mul(1 + 9 * good).argmax())) if best is None else best
        if bool(good.any()):
            return probe.pick(int(good.nonzero()[0]))
    if best is None:
        raise ValueError(f"room {room.seed} has no place {CLEARANCE} m away from everything; use another seed")
    return best


def _next(walk: _Walk, last: Probe, step: float) -> Probe:
    """A camera a step away that looks at something the last one saw."""
    rng = walk.rng
    centre, points = last.poses[0, :3, 3].numpy(), last.points[0].numpy()
    reach = float(last.depth.median()) * step
    middle = np.arange(PROBE**2).reshape(PROBE, PROBE)[2:-2, 2:-2].ravel()
    for attempt in range(ROUNDS):
        shrink = 1 - attempt / ROUNDS
        direction = rng.normal(size=(CANDIDATES, 3)) * (1, 1, 0.4)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        centres = centre + direction * rng.uniform(0.25, 1.0, (CANDIDATES, 1)) * reach * shrink
        centres = centres[(centres[:, 2] > HEIGHT[0]) & (centres[:, 2] < HEIGHT[1])]
        centres = _clear(walk, centres)
        if len(centres) == 0:
            continue
        probe = _look(walk, centres, points[rng.choice(middle, len(centres))])
        good = probe.good() & (_overlap(last, probe) >= OVERLAP)
        if bool(good.any()):
            return probe.pick(int(good.nonzero()[0]))
    return _look(walk, centre[None], points[middle[len(middle) // 2]][None] + rng.normal(0, 0.1, (1, 3)))


def _overlap(last: Probe, probe: Probe) -> Float[Tensor, " v"]:
    """Share of the last view's points inside each candidate's image."""
    camera_from_world = invert_rigid(probe.poses)
    points = transform_points(camera_from_world, last.points.expand(len(probe.poses), -1, -1))
    pixels, depth = project(points, pinhole(PROBE, PROBE, PROBE_FIELD_OF_VIEW).expand(len(points), 3, 3))
    inside = (pixels >= 0).all(-1) & (pixels <= PROBE).all(-1) & (depth > 0)
    return inside.float().mean(-1)
