"""COLMAP's cameras of a window, where `pycolmap` is installed (the extra `oracle`)."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.slam.posed_pictures import Posed
from ff3r_model.core.geometry import rigid


def colmap_cameras(posed: Posed, numbers: tuple[int, ...], folder: Path) -> Float[Tensor, "views 4 4"] | None:
    """camera_from_world of all views by COLMAP, intrinsics known; None where it leaves views out.

    `folder` takes its pictures and its database. Raises ImportError without pycolmap.
    """
    pycolmap = importlib.import_module("pycolmap")
    pycolmap.logging.minloglevel = 2
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
    best = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
    if best is None or best.num_reg_images() < len(numbers):
        return None
    poses = {image.name: image.cam_from_world().matrix() for image in best.images.values()}
    stacked = torch.from_numpy(np.stack([poses[f"{number:06d}.jpg"] for number in numbers]))
    return rigid(stacked[:, :, :3], stacked[:, :, 3])
