"""COLMAP on the same windows: relative poses of ours and its agree. Needs `pycolmap` (the extra `oracle`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.slam.posed_pictures import Posed, open_posed
from ff3r_model.core.geometry import rigid
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


def colmap(pycolmap: Any, posed: Posed, numbers: tuple[int, ...], folder: Path) -> torch.Tensor:
    """camera_from_world of all views by COLMAP, intrinsics known."""
    for number in numbers:
        shutil.copy(posed.pictures[number], folder / f"{number:06d}.jpg")
    fx, fy = (float(posed.intrinsics[axis, axis]) for axis in (0, 1))
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "PINHOLE"
    reader.camera_params = f"{fx},{fy},{float(posed.intrinsics[0, 2])},{float(posed.intrinsics[1, 2])}"
    database = folder / "database.db"
    pycolmap.extract_features(database, folder, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader)
    pycolmap.match_exhaustive(database)
    options = pycolmap.IncrementalPipelineOptions()
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    models = pycolmap.incremental_mapping(database, folder, folder, options=options)
    best = max(models.values(), key=lambda model: model.num_reg_images())
    assert best.num_reg_images() == len(numbers)
    poses = {image.name: image.cam_from_world().matrix() for image in best.images.values()}
    stacked = torch.from_numpy(np.stack([poses[f"{number:06d}.jpg"] for number in numbers]))
    return rigid(stacked[:, :, :3], stacked[:, :, 3])


@pytest.mark.long
@pytest.mark.parametrize("place", [0, 1, 2])
def test_relative_poses_are_those_of_colmap(place: int, real_data: Path, tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    posed = open_posed(real_data)[place]
    numbers = posed.windows()[0]
    theirs = colmap(pycolmap, posed, numbers, tmp_path)
    window, _ = posed.window(numbers, 112, 14)
    ours = TrackRefinement(TrackConfig(gaps="network"))(ignorant(window), window)
    assert float(pair_errors(ours.cameras.camera_from_world.double(), theirs).median()) < AGREEMENT
