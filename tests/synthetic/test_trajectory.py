"""Camera paths: rigid, smooth, repeatable, and always in free space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.synthetic import Room, make_room, make_trajectory, pinhole, render
from ff3r_model.synthetic.primitives import PLANE

KINDS = ("robot", "handheld", "random")


def inside_a_solid(room: Room, points: Tensor) -> Tensor:
    """Whether points lie within any solid's oriented box, from the corners alone."""
    found = torch.zeros(len(points), dtype=torch.bool)
    for corners in room.primitives.corners[room.primitives.kind != PLANE]:
        edges = corners[[4, 2, 1]] - corners[0]
        share = (points - corners[0]) @ edges.T / edges.square().sum(-1)
        found |= ((share > 0) & (share < 1)).all(-1)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_cameras_stay_in_free_space(kind: str) -> None:
    for seed in range(12):
        room = make_room(seed)
        poses = make_trajectory(room, seed, 40, kind, 0.15 if kind != "random" else None)
        centres = poses[:, :3, 3]
        assert not inside_a_solid(room, centres).any()
        assert (room.clearance(centres) > 0.25).all(), (seed, room.clearance(centres).min())
        identity = poses[:, :3, :3] @ poses[:, :3, :3].mT
        assert torch.allclose(identity, torch.eye(3).expand_as(identity), atol=1e-5)
        assert (torch.linalg.det(poses[:, :3, :3]) > 0.99).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_says_it_all(kind: str) -> None:
    room = make_room(2)
    first = make_trajectory(room, 4, 6, kind)
    torch.manual_seed(99)
    assert torch.equal(first, make_trajectory(make_room(2), 4, 6, kind))
    assert not torch.equal(first, make_trajectory(room, 5, 6, kind))
    assert torch.equal(first[:3], make_trajectory(room, 4, 3, kind)), "a longer path must begin like a shorter one"


@pytest.mark.parametrize(("kind", "low", "high"), [("robot", 0.6, 1.3), ("handheld", 1.2, 1.8)])
def test_tours_move_in_small_steps_at_their_height(kind: str, low: float, high: float) -> None:
    for seed in range(6):
        poses = make_trajectory(make_room(seed), seed, 400, kind, 0.05)
        steps = (poses[1:, :3, 3] - poses[:-1, :3, 3]).norm(dim=-1)
        assert steps.max() < 0.0501
        turns = poses[:-1, :3, :3].mT @ poses[1:, :3, :3]
        cosine = ((turns.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
        assert torch.rad2deg(cosine.arccos()).max() < 3.5
        assert (poses[:, 2, 3] > low - 1e-3).all() and (poses[:, 2, 3] < high + 1e-3).all()
        if kind == "robot":
            assert poses[:, 2, 3].std() < 1e-5
            right = poses[:, 2, 0]
            assert right.abs().max() < 1e-5, "a robot's camera does not roll"


def test_robot_tours_go_round_most_rooms() -> None:
    """The demo's camera must see a room from many places, not turn on the spot."""
    reach = []
    for seed in range(20):
        room = make_room(seed)
        centres = make_trajectory(room, 0, 1000, "robot")[:, :2, 3]
        reach.append(((centres.amax(0) - centres.amin(0)) / (room.high - room.low)[:2]).mean())
    assert torch.stack(reach).median() > 0.4
    assert torch.stack(reach).min() > 0.1


def test_random_viewpoints_overlap_and_step_in_proportion_to_depth() -> None:
    overlaps, steps = [], []
    for seed in range(12):
        room = make_room(seed)
        poses, intrinsics = make_trajectory(room, seed, 6, "random", 0.4), pinhole(32, 32, 60.0).expand(6, 3, 3)
        views = render(room, poses, intrinsics, 32, 32)
        points = transform_points(poses, unproject(views.depth, intrinsics).flatten(1, 2))
        pixels, depth = project(transform_points(invert_rigid(poses[1:]), points[:-1]), intrinsics[1:])
        overlaps += ((pixels > 0).all(-1) & (pixels < 32).all(-1) & (depth > 0)).float().mean(-1).tolist()
        distance = (poses[1:, :3, 3] - poses[:-1, :3, 3]).norm(dim=-1)
        steps += (distance / views.depth[:-1].flatten(1).median(-1).values).tolist()
        assert views.depth.min() > 0.2
    assert np.quantile(overlaps, 0.05) > 0.3
    assert 0.1 < np.median(steps) < 0.4 and max(steps) < 0.5


def test_refuses_nonsense() -> None:
    room = make_room(0)
    with pytest.raises(ValueError, match=r"'drone'.*robot, handheld, random"):
        make_trajectory(room, 0, 3, "drone")
    with pytest.raises(ValueError, match="not 0"):
        make_trajectory(room, 0, 0)
