"""What a reconstruction leaves: camera poses, a cloud of Gaussians, the map, a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation
from torch import Tensor

from ff3r_model.core.output_folder import OutputFolder
from ff3r_model.gaussians.ply import write_ply
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.visualization.pictures import save_picture, top_down
from ff3r_model.voxel_map.voxel_map import VoxelMap

TRAJECTORY = "traj_tum.txt"
CLOUD = "cloud.ply"
MAP = "map.ff3r.safetensors"
PICTURE = "topdown.png"


def pipeline_with_map(path: Path, weights: Path | None, config: Path | None) -> Pipeline:
    """A pipeline that shows a saved map. Raises MapFileError, CheckpointError and ConfigError."""
    pipeline = Pipeline.from_checkpoint(weights, PipelineConfig.from_yaml(config))
    pipeline.load(path)
    return pipeline


def write_outputs(folder: OutputFolder, pipeline: Pipeline) -> None:
    """The four files. Raises MapFileError or OSError where one cannot be written."""
    pipeline.save(folder.file(MAP))
    write_tum(folder.file(TRAJECTORY), pipeline.map.trajectory())
    write_ply(folder.file(CLOUD), pipeline.map.gaussians())
    save_picture(folder.file(PICTURE), picture_of(pipeline.map))


def write_tum(path: Path, trajectory: Iterable[tuple[int, Float[Tensor, "4 4"]]]) -> None:
    """Poses map_from_camera in TUM's format: seconds, position, quaternion xyzw; OpenCV camera axes."""
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for stamp, pose in trajectory:
        matrix = pose.double().numpy(force=True)
        quaternion = Rotation.from_matrix(matrix[:3, :3]).as_quat()
        values = " ".join(f"{value:.9f}" for value in (*matrix[:3, 3], *quaternion))
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} {values}")
    path.write_text("\n".join(lines) + "\n")


def map_arrays(voxel_map: VoxelMap) -> tuple[ndarray, ndarray, ndarray]:
    """(points ["n 3"] float64, colours ["n 3"] uint8, camera positions ["m 3"] float64) of a map."""
    gaussians = voxel_map.gaussians()
    colors = (gaussians.colors * 255).round().to(torch.uint8).numpy(force=True)
    positions = [pose[:3, 3].double().numpy(force=True) for _, pose in voxel_map.trajectory()]
    return gaussians.means.double().numpy(force=True), colors, np.array(positions).reshape(-1, 3)


def picture_of(voxel_map: VoxelMap) -> ndarray:
    """The map from above, RGB bytes."""
    points, colors, path = map_arrays(voxel_map)
    return top_down(points, colors, path, voxel_size=voxel_map.config.voxel_size, metric=voxel_map.metric)
