"""`ff3r reconstruct`: from a recording to a map and the files of it."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from ff3r_model.cli.stop_signals import held_back
from ff3r_model.cli.terminal import tell
from ff3r_model.core.errors import UserError

if TYPE_CHECKING:
    from tqdm import tqdm

    from ff3r_model.core.output_folder import OutputFolder
    from ff3r_model.frames.source import FrameSource
    from ff3r_model.pipeline import Pipeline, PipelineConfig
    from ff3r_model.slam.mapper import MapUpdate

log = logging.getLogger(__name__)

MAX_STRIDE = 10**9


class ReconstructError(UserError):
    """An option that cannot be used, or a recording from which no map can be made."""


@dataclass(frozen=True)
class Reconstruct:
    """Build a semantic map from a video, a folder of images, or a ROS bag.

    Writes traj_tum.txt (camera poses), cloud.ply (3D Gaussians), map.ff3r.safetensors (for query and view) and
    topdown.png into the output folder. A recording that falls into parts without a common frame has them all in the
    map, and the other files once per part: cloud.ply of the largest, cloud-part-2.ply of the next.
    """

    source: Annotated[Positional[tuple[Path, ...]], arg(metavar="SOURCE")]
    """Video file, folder of images, rosbag2 folder, .mcap, .db3 or .bag."""
    output: Annotated[Path, arg(aliases=["-o"])]
    """Folder to write to; made if need be."""
    views: int | None = None
    """Views per window of the network, 2 to 64; if not given, as in --config, else 8."""
    overlap: int | None = None
    """Keyframes that each window shares with the one before; if not given, as in --config, else half of the views."""
    stride: int = 1
    """Use every n-th frame."""
    min_motion: float | None = None
    """Parallax between keyframes, as a share of the picture's long side; 0 keeps every frame that is no copy of the one
    before and not blank, at any rate; if not given, as in --config, else 0.06."""
    camera_height: float | None = None
    """Metres of the camera above the floor; makes the map metric."""
    long_side: int | None = None
    """Pixels of the network's images along their long side; what the checkpoint is meant for if not given."""
    topic: str | None = None
    """Image topic of a bag; the one with the most colour images if not given."""
    depth: str | None = None
    """Topic of a bag's depth images, registered to the image topic; they make the map metric."""
    depth_from: Literal["network", "bent", "dense"] | None = None
    """Where depth comes from without depth images: network, bent to the points of tracks, or dense: plane sweeps of the
    pictures, twice the time; if not given, as in --config (its key is `depth`), else bent."""
    odom_frame: str | None = None
    """Odometry's frame in a bag's TF, such as odom: its poses make the map metric."""
    depth_unit: float | None = None
    """Metres per step of an RGB-D folder's depth images (0.001: millimetres); what its layout has if not given."""
    intrinsics: str | None = None
    """The camera's fx,fy,cx,cy in pixels of the recording, or a file: of these, of a 3×3 matrix, or as ROS's
    camera_calibration writes it (YAML), whose distortion is undone. In place of what the recording says."""
    fov: float | None = None
    """The camera's horizontal field of view, degrees, where only that is known."""
    weights: str | None = None
    """Checkpoint: a name of `ff3r weights list`, or a file (./NAME where it has such a name); nano if not given."""
    device: str = "auto"
    """Where the network runs: auto, cpu, or another of torch's names."""
    config: Path | None = None
    """YAML file with everything else that the pipeline can be told; `ff3r config` prints one."""

    def __call__(self) -> None:
        """Map the recording, write the files and print the summary."""
        from ff3r_model.cli.summary import failure
        from ff3r_model.core.output_folder import OutputFolder
        from ff3r_model.engine.device import device_named
        from ff3r_model.frames.intrinsics import stated_camera
        from ff3r_model.frames.open_source import open_source
        from ff3r_model.pipeline import Pipeline

        config = self._config()
        camera = stated_camera(self.intrinsics, self.fov)
        source = open_source(self._source(), self.topic, self.depth, self.odom_frame, self.depth_unit, camera)
        output = OutputFolder(self.output, "reconstruct")
        pipeline = Pipeline.from_checkpoint(self.weights, config, device_named(self.device))
        updates: list[MapUpdate] = []
        try:
            _map_frames(pipeline, source, self.stride, updates)
        except BaseException:  # whatever ends it
            if any(update.accepted for update in updates):
                self._write(output, pipeline, updates, "stopped early; ")  # what was mapped until then is not lost
            raise
        if not any(update.accepted for update in updates):
            raise ReconstructError(f"{self._source()}: no map could be made; {failure(pipeline, updates)}")
        self._write(output, pipeline, updates)

    def _write(self, output: OutputFolder, pipeline: Pipeline, updates: list[MapUpdate], heading: str = "") -> None:
        """Write the files and print the summary. Raises OutputError for those that could not be written."""
        from ff3r_model.cli.map_files import output_names, parts_of, write_outputs
        from ff3r_model.cli.summary import summary
        from ff3r_model.core.output_folder import OutputError

        failures = write_outputs(output, pipeline)
        written = [name for name in output_names(len(parts_of(pipeline))) if name not in failures]
        stated = self.intrinsics is not None or self.fov is not None
        lines = [heading + summary(pipeline, updates, stated), *(f"  {self.output / name}" for name in written)]
        with suppress(OSError):  # a full disk may hold the terminal's file too: the error to come says what is missing
            tell("\n".join(lines))
        if failures:
            told = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
            raise OutputError(f"{self.output} lacks {len(failures)} of {len(failures) + len(written)} files: {told}")

    def _source(self) -> Path:
        if len(self.source) != 1:
            raise ReconstructError(f"give one source, not {len(self.source)}: for images, the folder that they are in")
        return self.source[0]

    def _config(self) -> PipelineConfig:
        from ff3r_model.pipeline import PipelineConfig

        if not 1 <= self.stride <= MAX_STRIDE:
            raise ReconstructError(f"stride must be 1 to {MAX_STRIDE:,}, not {self.stride}")
        if self.camera_height is not None and not 0 < self.camera_height < math.inf:
            raise ReconstructError(f"camera height must be positive metres, not {self.camera_height}")
        options = {
            "window.views": self.views,
            "window.overlap": self.overlap,
            "window.long_side": self.long_side,
            "window.min_motion": self.min_motion,
            "window.max_keyframe_rate": math.inf if self.min_motion == 0 else None,
            "mapping.camera_height": self.camera_height,
            "depth": self.depth_from,
        }
        return PipelineConfig.from_yaml(self.config, options)


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
    with held_back():  # a map that is stopped half way through a window could not be saved
        update = pipeline.step(flush=flush)
        if update is not None:
            updates.append(update)
    if update is not None:
        voxels = sum(map(len, pipeline.mapper.submaps.values()))
        progress.set_postfix(windows=len(updates), voxels=voxels, refresh=False)
