"""What a reconstruction leaves: camera poses, a cloud of Gaussians, the map, a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation
from torch import Tensor

from ff3r_model.core.errors import UserError
from ff3r_model.core.files import replaced
from ff3r_model.core.output_folder import OutputFolder
from ff3r_model.gaussians.ply import write_ply
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.visualization.pictures import picture_bytes, top_down
from ff3r_model.voxel_map.file import MapFileError
from ff3r_model.voxel_map.voxel_map import VoxelMap

TRAJECTORY = "traj_tum.txt"
CLOUD = "cloud.ply"
MAP = "map.ff3r.safetensors"
PICTURE = "topdown.png"


def pipeline_with_map(path: Path, weights: str | None, config: Path | None) -> Pipeline:
    """A pipeline that shows a saved map. Raises MapFileError, CheckpointError, WeightsError and ConfigError."""
    pipeline = Pipeline.from_checkpoint(weights, PipelineConfig.from_yaml(config))
    pipeline.load(map_file(path))
    return pipeline


def map_file(path: Path) -> Path:
    """The map file that is meant: the one in a folder, where that is given. Raises MapFileError."""
    if not path.is_dir():
        return path
    if not (path / MAP).is_file():
        raise MapFileError(f"{path} is a folder without {MAP}: give a map file, or a folder of `ff3r reconstruct`")
    return path / MAP


def parts_of(pipeline: Pipeline) -> dict[int, VoxelMap]:
    """The parts of the map by submap number, the largest first: part 1 of what is told and written.

    Parts have no common frame. One that holds nothing is left out, unless there is no other.
    """
    parts = sorted(pipeline.mapper.submaps.items(), key=lambda part: (-len(part[1]), part[0]))
    return dict([part for part in parts if len(part[1])] or parts[:1])


def name_in_part(name: str, part: int) -> str:
    """The name of a file of the n-th part: cloud.ply, cloud-part-2.ply, cloud-part-3.ply."""
    return name if part == 1 else f"{Path(name).stem}-part-{part}{Path(name).suffix}"


def output_names(parts: int) -> list[str]:
    """Every file of a reconstruction, what is dearest first."""
    return [MAP, *(name_in_part(name, part + 1) for name in (TRAJECTORY, CLOUD, PICTURE) for part in range(parts))]


def write_outputs(folder: OutputFolder, pipeline: Pipeline) -> dict[str, str]:
    """The map, and each part's trajectory, cloud and picture; what could not be written, by name, with the reason.

    Each file is written whole or not at all. Those of an earlier run that this one has no part for are removed.
    """
    parts = list(parts_of(pipeline).values())
    writers: dict[str, Callable[[Path], None]] = {MAP: pipeline.save}
    for number, part in enumerate(parts, 1):
        writers[name_in_part(TRAJECTORY, number)] = partial(write_tum, trajectory=part.trajectory())
        writers[name_in_part(CLOUD, number)] = partial(_write_cloud, voxel_map=part)
        writers[name_in_part(PICTURE, number)] = partial(_write_picture, voxel_map=part)
    failures = {}
    for name in output_names(len(parts)):
        try:
            with nullcontext(folder.file(name)) if name == MAP else replaced(folder.file(name)) as path:
                writers[name](path)
        except (UserError, OSError) as error:
            failures[name] = (isinstance(error, OSError) and error.strerror) or str(error)
    with suppress(OSError):
        folder.keep_only(output_names(len(parts)))
    return failures


def _write_cloud(path: Path, voxel_map: VoxelMap) -> None:
    write_ply(path, voxel_map.gaussians())


def _write_picture(path: Path, voxel_map: VoxelMap) -> None:
    path.write_bytes(picture_bytes(picture_of(voxel_map), ".png"))


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
