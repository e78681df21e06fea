"""A figure that walks: where it is by a formula, its pixels against a room without it."""

from __future__ import annotations

import pytest
import torch

from ff3r_model.core.geometry import transform_points, unproject
from ff3r_model.synthetic import make_room, make_trajectory
from ff3r_model.synthetic.primitives import part_bounds
from ff3r_model.synthetic.sequences import room_sequence
from ff3r_model.synthetic.walker import Walker


@pytest.mark.parametrize(("time", "x"), [(0, 0.0), (2, 0.5), (8, 2.0), (10, 1.5), (16, 0.0), (17, 0.25)])
def test_it_walks_to_and_fro_on_the_floor(time: float, x: float) -> None:
    low, high = part_bounds(Walker((0.0, 1.0), (2.0, 1.0), speed=0.25).parts(time))
    assert (low[0] + high[0]) / 2 == pytest.approx(x, abs=0.1)
    assert (low[1] + high[1]) / 2 == pytest.approx(1.0, abs=0.05)
    assert 1.65 < high[2] < 1.8 and abs(low[2]) < 0.12


def test_its_pixels_are_known_and_all_others_are_the_rooms() -> None:
    room = make_room(30)
    poses = make_trajectory(room, 30, 4, "robot", 0.15)
    walker = Walker.crossing(poses[2], 1.8)
    empty, walked = (room_sequence(room, poses, 112, walker=each) for each in (None, walker))
    assert empty.moving is None and walked.moving is not None
    changed = (empty.depth - walked.depth).abs() > 0
    torch.testing.assert_close(changed, walked.moving)
    assert torch.equal(empty.images.movedim(1, -1)[~walked.moving], walked.images.movedim(1, -1)[~walked.moving])
    assert (walked.moving.flatten(1).float().mean(1) > 0.02).all()
    # What is the figure lies within the figure's bounds at that time.
    for time, (pose, depth, figure) in enumerate(zip(poses, walked.depth, walked.moving, strict=True)):
        points = transform_points(pose, unproject(depth[None], walked.intrinsics[None])[0][figure])
        low, high = (torch.from_numpy(corner).float() for corner in part_bounds(walker.parts(time)))
        assert ((points >= low - 1e-3) & (points <= high + 1e-3)).all()
    assert torch.equal(walked.select([2]).moving[0], walked.moving[2])  # type: ignore[index]
