"""`ff3r reconstruct`: from a recording to a map and the files of it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from ff3r_model.core.errors import UserError

if TYPE_CHECKING:
    from tqdm import tqdm

    from ff3r_model.frames.source import FrameSource
    from ff3r_model.pipeline import Pipeline
    from ff3r_model.slam.mapper import MapUpdate

log = logging.getLogger(__name__)


class ReconstructError(UserError):
    """An option that cannot be used, or a recording from which no map can be made."""


@dataclass(frozen=True)
class Reconstruct:
    """Build a semantic map from a video, a folder of images, or a ROS bag.

    Writes traj_tum.txt (camera poses), cloud.ply (3D Gaussians), map.ff3r.safetensors (for query and view) and
    topdown.png into the output folder.
    """

    source: Positional[Path]
    """Video file, folder of images, rosbag2 folder, .mcap, .db3 or .bag."""
    output: Annotated[Path, arg(aliases=["-o"])]
    """Folder to write to; made if need be."""
    views: int | None = None
    """Views per window of the network, 2 to 64; if not given, as in --config, else 8."""
    overlap: int | None = None
    """Keyframes that each window shares with the one before; if not given, as in --config, else 4."""
    stride: int = 1
    """Use every n-th frame."""
    min_motion: float | None = None
    """Parallax between keyframes, as a share of the picture's long side; 0 keeps every frame; if not given, as in
    --config, else 0.04."""
    camera_height: float | None = None
    """Metres of the camera above the floor; makes the map metric."""
    long_side: int | None = None
    """Pixels of the network's images along their long side; what the checkpoint is meant for if not given."""
    topic: str | None = None
    """Image topic of a bag; the one with the most colour images if not given."""
    depth: str | None = None
    """Topic of a bag's depth images, registered to the image topic; they make the map metric."""
    odom_frame: str | None = None
    """Odometry's frame in a bag's TF, such as odom: its poses make the map metric."""
    depth_unit: float | None = None
    """Metres per step of an RGB-D folder's depth images (0.001: millimetres); what its layout has if not given."""
    weights: Path | None = None
    """Checkpoint; the nano weights of the package if not given."""
    device: str = "auto"
    """Where the network runs: auto, cpu, or another of torch's names."""
    config: Path | None = None
    """YAML file with everything else that the pipeline can be told; `ff3r config` prints one."""

    def __call__(self) -> str:
        """Map the recording and write the files; returns the summary."""
        from ff3r_model.cli.map_files import write_outputs
        from ff3r_model.core.output_folder import OutputFolder
        from ff3r_model.frames.open_source import open_source

        source = open_source(self.source, self.topic, self.depth, self.odom_frame, self.depth_unit)
        output = OutputFolder(self.output, "reconstruct")
        pipeline = self._pipeline()
        updates: list[MapUpdate] = []
        try:
            _map_frames(pipeline, source, self.stride, updates)
        except (KeyboardInterrupt, UserError, OSError):
            if any(update.accepted for update in updates):
                write_outputs(output, pipeline)  # what was mapped until then is not lost
                print(f"stopped early; {_summary(self.output, pipeline, updates)}")
            raise
        if not any(update.accepted for update in updates):
            raise ReconstructError(f"{self.source}: no map could be made; {_explain(pipeline, updates)}")
        write_outputs(output, pipeline)
        return _summary(self.output, pipeline, updates)

    def _pipeline(self) -> Pipeline:
        from ff3r_model.engine import device_named
        from ff3r_model.pipeline import Pipeline, PipelineConfig

        if self.stride < 1:
            raise ReconstructError(f"stride must be at least 1, not {self.stride}")
        if self.camera_height is not None and not self.camera_height > 0:
            raise ReconstructError(f"camera height must be positive metres, not {self.camera_height}")
        options = {
            "window.views": self.views,
            "window.overlap": self.overlap,
            "window.long_side": self.long_side,
            "window.min_motion": self.min_motion,
            "mapping.camera_height": self.camera_height,
        }
        config = PipelineConfig.from_yaml(self.config, options)
        return Pipeline.from_checkpoint(self.weights, config, device_named(self.device))


def _map_frames(pipeline: Pipeline, source: FrameSource, stride: int, updates: list[MapUpdate]) -> None:
    """Every frame in turn, a window whenever one is full, and what is left at the end; `updates` grows meanwhile."""
    import torch
    from tqdm import tqdm

    from ff3r_model.frames.windows import FrameRejected

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
    from ff3r_model.cli.map_files import CLOUD, MAP, PICTURE, TRAJECTORY

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
