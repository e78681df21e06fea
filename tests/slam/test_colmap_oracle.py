"""COLMAP on the same windows: relative poses of ours and its agree. Needs `pycolmap` (the extra `oracle`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.slam.colmap import colmap_cameras
from benchmarks.slam.posed_pictures import open_posed
from ff3r_model.core.types import Cameras, Gaussians, Prediction, Window
from ff3r_model.evaluation.metrics import pair_errors
from ff3r_model.slam.refinement.track_refinement import TrackConfig, TrackRefinement

AGREEMENT = 2.0
"""Degrees, median over pairs of views."""


def ignorant(window: Window) -> Prediction:
    """Cameras that stand still before a wall: nothing that refinement could lean on."""
    views, _, height, width = window.images.shape
    assert window.intrinsics is not None
    count = views * height * width
    gaussians = Gaussians(
        torch.zeros(count, 3), torch.ones(count, 3), torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        torch.zeros(count, 1, 3), torch.ones(count), torch.zeros(count), torch.zeros(count, 1),
    )  # fmt: skip
    cameras = Cameras(torch.eye(4).expand(views, 4, 4), window.intrinsics)
    wall = torch.ones(views, height, width)
    return Prediction(cameras, wall, wall, gaussians)


@pytest.mark.long
@pytest.mark.parametrize("place", [0, 1, 2])
def test_relative_poses_are_those_of_colmap(place: int, real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    posed = open_posed(real_data)[place]
    numbers = posed.windows()[0]
    theirs = colmap_cameras(posed, numbers, tmp_path)
    assert theirs is not None
    window, _ = posed.window(numbers, 112, 14)
    ours = TrackRefinement(TrackConfig(gaps="network"))(ignorant(window), window)
    assert float(pair_errors(ours.cameras.camera_from_world.double(), theirs).median()) < AGREEMENT
