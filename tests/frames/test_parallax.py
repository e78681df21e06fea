"""Motion of pictures against cameras that really turn, move or stand, in the synthetic world."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import rigid
from ff3r_model.frames.parallax import ImageMotion, MotionTracker
from ff3r_model.synthetic import make_room, make_trajectory, pinhole, render

HEIGHT, WIDTH = 84, 112
INTRINSICS = pinhole(HEIGHT, WIDTH)


def images(poses: torch.Tensor) -> torch.Tensor:
    views = render(make_room(3), poses, INTRINSICS.expand(len(poses), 3, 3), HEIGHT, WIDTH)
    return views.images.permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def start() -> torch.Tensor:
    return make_trajectory(make_room(3), 0, 1, "robot")[0]


def turned(start: torch.Tensor, degrees: float) -> torch.Tensor:
    """The camera turned about its own downward axis."""
    turn = torch.tensor(Rotation.from_euler("y", degrees, degrees=True).as_matrix(), dtype=torch.float32)
    return start @ rigid(turn, torch.zeros(3))


def moved(start: torch.Tensor, right: float, ahead: float) -> torch.Tensor:
    return start @ rigid(torch.eye(3), torch.tensor([right, 0.0, ahead]))


def motion_between(before: torch.Tensor, after: torch.Tensor, intrinsics: torch.Tensor | None = None) -> ImageMotion:
    tracker = MotionTracker()
    tracker.restart(before)
    return tracker.update(after, intrinsics)


@pytest.mark.parametrize("intrinsics", [INTRINSICS, None])
def test_a_turn_has_no_parallax(start: torch.Tensor, intrinsics: torch.Tensor | None) -> None:
    first, second = images(torch.stack([start, turned(start, 3.0)]))
    motion = motion_between(first, second, intrinsics)
    expected = math.tan(math.radians(3)) * float(INTRINSICS[0, 0]) / WIDTH
    assert motion.turn == pytest.approx(expected, rel=0.15)
    assert motion.parallax < 0.15 * motion.turn


def test_a_step_has_parallax(start: torch.Tensor) -> None:
    first, second, third = images(torch.stack([start, turned(start, 3.0), moved(start, 0.3, 0.2)]))
    assert motion_between(first, third).parallax > 3 * motion_between(first, second).parallax


def test_a_standing_camera_never_moves_whatever_the_noise_and_the_light(start: torch.Tensor) -> None:
    picture, rng = images(start[None])[0], np.random.default_rng(0)
    tracker = MotionTracker()
    tracker.restart(picture)
    most = ImageMotion()
    for index in range(60):
        noise = torch.tensor(rng.normal(0, 0.03, picture.shape), dtype=torch.float32)
        seen = (picture * (1 + 0.2 * math.sin(index)) + noise).clamp(0, 1)
        motion = tracker.update(seen)
        most = max(most, motion, key=lambda each: each.turn + each.parallax)
    assert most.turn + most.parallax < 0.01


def test_long_motions_add_up(start: torch.Tensor) -> None:
    steps = images(torch.stack([turned(start, 2.0 * index) for index in range(9)]))
    tracker = MotionTracker()
    tracker.restart(None)
    for picture in steps:
        motion = tracker.update(picture, INTRINSICS)
    assert motion.turn == pytest.approx(8 * math.tan(math.radians(2)) * float(INTRINSICS[0, 0]) / WIDTH, rel=0.2)


def test_flow_finds_its_way_after_a_step_and_not_to_another_wall(start: torch.Tensor) -> None:
    first, near, other = images(torch.stack([start, moved(start, 0.1, 0.1), turned(start, 150.0)]))
    assert motion_between(first, near).found
    assert not motion_between(first, other).found
