"""From a recording to files: camera poses, a cloud of Gaussians, the map, a picture."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from tqdm import tqdm

from ff3r_model.core.errors import UserError
from ff3r_model.engine import device_named
from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.source import FrameSource
from ff3r_model.frames.windows import FrameRejected, WindowConfig
from ff3r_model.gaussians.ply import write_ply
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.mapper import MapUpdate
from ff3r_model.visualization.pictures import save_picture, top_down
from ff3r_model.voxel_map.voxel_map import VoxelMap

log = logging.getLogger(__name__)

TRAJECTORY, CLOUD, MAP, PICTURE = "traj_tum.txt", "cloud.ply", "map.ff3r.safetensors", "topdown.png"


class ReconstructError(UserError):
    """An option that cannot be used, or a recording from which no map can be made."""


@dataclass(frozen=True)
class Plan:
    """What to reconstruct and how; the fields are the options of `ff3r reconstruct`."""

    source: Path
    output: Path
    views: int = 8
    overlap: int = 4
    stride: int = 1
    min_motion: float = 0.04
    camera_height: float | None = None
    long_side: int | None = None
    topic: str | None = None
    weights: Path | None = None
    device: str = "auto"


def reconstruct(plan: Plan) -> str:
    """Map the recording and write the files; returns the summary.

    Raises SourceError, CheckpointError, MapFileError, OSError, and ReconstructError where no window could be mapped.
    """
    source = open_source(plan.source, plan.topic)
    pipeline = _pipeline(plan)
    plan.output.mkdir(parents=True, exist_ok=True)
    updates = _map_frames(pipeline, source, plan.stride)
    accepted = [update for update in updates if update.accepted]
    if not accepted:
        raise ReconstructError(f"{plan.source}: no map could be made; {_explain(pipeline, updates)}")
    write_outputs(plan.output, pipeline)
    return _summary(plan.output, pipeline, updates)


def write_outputs(folder: Path, pipeline: Pipeline) -> None:
    """The four files. Raises MapFileError or OSError where one cannot be written."""
    pipeline.save(folder / MAP)
    write_tum(folder / TRAJECTORY, pipeline.map.trajectory())
    write_ply(folder / CLOUD, pipeline.map.gaussians())
    save_picture(folder / PICTURE, picture_of(pipeline.map))


def write_tum(path: Path, trajectory: Iterable[tuple[int, Float[Tensor, "4 4"]]]) -> None:
    """Poses map_from_camera in TUM's format: seconds, position, quaternion xyzw; OpenCV camera axes."""
    from scipy.spatial.transform import Rotation

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


def _pipeline(plan: Plan) -> Pipeline:
    if plan.stride < 1:
        raise ReconstructError(f"stride must be at least 1, not {plan.stride}")
    if plan.camera_height is not None and not plan.camera_height > 0:
        raise ReconstructError(f"camera height must be positive metres, not {plan.camera_height}")
    try:
        window = WindowConfig(plan.views, plan.overlap, plan.long_side, min_motion=plan.min_motion)
        device = device_named(plan.device)
    except ValueError as error:
        raise ReconstructError(str(error)) from error
    config = PipelineConfig(window=window, mapping=MappingConfig(camera_height=plan.camera_height))
    return Pipeline.from_checkpoint(plan.weights, config, device)


def _map_frames(pipeline: Pipeline, source: FrameSource, stride: int) -> list[MapUpdate]:
    """Every frame in turn, a window whenever one is full, and what is left at the end."""
    updates: list[MapUpdate] = []
    total = None if source.count is None else math.ceil(source.count / stride)
    frames = islice(source, 0, None, stride)
    with torch.inference_mode(), tqdm(frames, total=total, desc=source.name, unit="frame", disable=None) as progress:
        for frame in progress:
            try:
                pipeline.add(frame)
            except FrameRejected as rejection:
                log.debug("frame at %d ns left out: %s", frame.stamp, rejection)
                continue
            if pipeline.ready:
                _step(pipeline, updates, progress)
        _step(pipeline, updates, progress, flush=True)
    return updates


def _step(pipeline: Pipeline, updates: list[MapUpdate], progress: tqdm, flush: bool = False) -> None:
    update = pipeline.step(flush=flush)
    if update is not None:
        updates.append(update)
        progress.set_postfix(windows=len(updates), voxels=len(pipeline.map), refresh=False)


def _explain(pipeline: Pipeline, updates: list[MapUpdate]) -> str:
    reasons = [f"{count} × {reason}" for reason, count in pipeline.windows.dropped.most_common()]
    reasons += [f"window: {update.reason}" for update in updates if update.reason]
    waiting = pipeline.windows.pending
    return "; ".join(reasons) or f"{waiting} usable frame(s) are too few, at least 2 are needed"


def _summary(folder: Path, pipeline: Pipeline, updates: list[MapUpdate]) -> str:
    used = sum(update.accepted for update in updates)
    left_out = {reason: count for reason, count in pipeline.windows.dropped.items() if count}
    scale = "metric" if pipeline.map.metric else "unscaled: lengths are not metres (give --camera-height)"
    lines = [f"{used} of {len(updates)} windows mapped, {len(pipeline.map):,} voxels, {scale}"]
    parts = len(pipeline.mapper.submaps)
    if parts > 1:
        lines.append(f"{parts} parts that could not be joined: {MAP} holds all of them, the other files the last one")
    if left_out:
        lines.append("frames left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out.items()))
    lines += [f"  {folder / name}" for name in (TRAJECTORY, CLOUD, MAP, PICTURE)]
    return "\n".join(lines)
