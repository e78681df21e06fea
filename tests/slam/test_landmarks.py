"""Landmarks of a keyframe: which are kept, where they lie, and that a file and a byte per entry lose nothing."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import torch

from ff3r_model.core.types import Cameras, Prediction, SparsePoints
from ff3r_model.slam.landmarks import Landmarks, joined, split
from ff3r_model.slam.refinement.features import quantised, unquantised


def prediction(descriptors: torch.Tensor | None) -> Prediction:
    """Three points; the second view, one to the right, sees all, the first view the last two."""
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = -1.0
    positions = torch.tensor([[0.0, 0, 2], [0, 1, 3], [0, 0, -4]])
    point, view = torch.tensor([0, 1, 2, 1, 2]), torch.tensor([1, 1, 1, 0, 0])
    points = SparsePoints(positions, point, view, torch.arange(5), torch.zeros(5, 2), descriptors)
    return Mock(spec=Prediction, cameras=Cameras(poses, torch.eye(3).repeat(2, 1, 1)), points_seen=points)


def test_those_before_the_camera_that_most_views_see_come_first() -> None:
    names = torch.arange(5, dtype=torch.uint8)[:, None].expand(5, 128)
    found = Landmarks.seen(prediction(names), 1, 10)
    assert found.positions.tolist() == [[-1, 1, 3], [-1, 0, 2]], "in the camera's frame; one lies behind it"
    assert found.descriptors[:, 0].tolist() == [1, 0]
    assert Landmarks.seen(prediction(names), 1, 1).positions.tolist() == [[-1, 1, 3]]
    assert len(Landmarks.seen(prediction(None), 1, 10)) == 0


def test_a_byte_per_entry_is_enough() -> None:
    roots = np.sqrt(np.random.default_rng(0).dirichlet(np.full(128, 0.3), 300)).astype(np.float32)
    again = unquantised(quantised(roots))
    assert np.abs(again @ again.T - roots @ roots.T).max() < 0.01


def test_they_come_back_from_a_file() -> None:
    some = Landmarks(torch.rand(3, 3), torch.randint(0, 256, (3, 128), dtype=torch.uint8))
    first, second, third = split(joined([some, Landmarks.none(), some.scaled(2.0)]), 3)
    assert first.positions.equal(some.positions) and first.descriptors.equal(some.descriptors)
    assert len(second) == 0 and third.positions.equal(2 * some.positions)
    assert joined([Landmarks.none()]) == {}
    assert [len(each) for each in split({}, 2)] == [0, 0], "older files have none"
