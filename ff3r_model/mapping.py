"""Predictions in, one map out: where each window lies, how large it is, and what of it enters the map."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.alignment import AlignConfig, Alignment, SharedFrames, align_window, map_from_first_camera
from ff3r_model.gaussians import transform_gaussians
from ff3r_model.ground import Floor, floor_below, stand_on
from ff3r_model.metric_scale import ScaleEstimate
from ff3r_model.text_space import TextSpace
from ff3r_model.types import Gaussians, Prediction, Similarity, Window
from ff3r_model.voxel_map import MapConfig, MapFileError, ScaleInfo, VoxelMap
from ff3r_model.voxelize import VoxelizeConfig, voxelize

log = logging.getLogger(__name__)

Predict = Callable[[Window], Prediction]
"""What an engine is to the map."""


@dataclass(frozen=True)
class MappingConfig:
    """How windows become one map. The defaults are ours."""

    align: AlignConfig = field(default_factory=AlignConfig)
    map: MapConfig = field(default_factory=MapConfig)
    camera_height: float | None = None
    """Metres of the camera above the floor; makes the map metric. None: the map stays unscaled."""
    scale_windows: int = 3
    """Windows whose floors must be found before the map's scale is set, to their median."""
    ground_weight: float = 0.5
    """How far each window of a metric map is moved towards standing on the floor at `camera_height`, 0 to 1: holds
    size, tilt and height, which drift from window to window otherwise. 0: not at all."""
    drop_uncertain: float = 0.2
    """Share of a window's pixels, the least confident, that never reach the map."""
    max_lost: int = 3
    """After so many windows in a row that could not be aligned, the next is placed as well as it can be."""


@dataclass(frozen=True)
class MapUpdate:
    """What one window did."""

    window: Window
    map_from_camera: Float[Tensor, "views 4 4"]
    """Poses of the window's cameras in the map; meaningless where not accepted."""
    accepted: bool
    """Whether the window entered the map."""
    reason: str
    """Why not, or what is doubtful about it; empty otherwise."""
    seconds: dict[str, float]
    """Per stage: network, align, voxelize, integrate."""


class Mapper:
    """The map and where everything lies in it. Not thread safe."""

    def __init__(self, engine: Predict, space: TextSpace | int, config: MappingConfig | None = None) -> None:
        """`engine` predicts the windows that the mapper asks for itself; `space` is the features' or their width."""
        self.engine, self.space, self.config = engine, space, config or MappingConfig()
        self._windows = self._lost = 0
        self._shared: SharedFrames | None = None
        self._floor: Floor | None = None
        self.reset()

    @property
    def nbytes(self) -> int:
        """Bytes of everything held."""
        return self.map.nbytes

    def place(self, window: Window, prediction: Prediction) -> MapUpdate:
        """Put a window and what the network says of it into the map, or say why not."""
        seconds: dict[str, float] = {}
        with timed(seconds, "align"):
            alignment = self._grounded(prediction, self._align(prediction, window))
            frames = SharedFrames.of(prediction, window, alignment.map_from_window)
        if not alignment.accepted:
            return MapUpdate(window, frames.map_from_camera, False, alignment.reason, seconds)
        with timed(seconds, "voxelize"):
            gaussians = transform_gaussians(alignment.map_from_window, self._new_gaussians(window, prediction))
            voxels = voxelize(gaussians, self._voxelize_config)
        with timed(seconds, "integrate"):
            self.map.integrate(voxels, self._windows)
            self.map.add_keyframes(window.keyframes, window.stamps, frames.map_from_camera)
            self._shared, self._windows = frames, self._windows + 1
            self._make_metric(prediction, alignment.map_from_window, frames)
        assert self._shared is not None
        return MapUpdate(window, self._shared.map_from_camera, True, alignment.reason, seconds)

    def trajectory(self) -> Iterator[tuple[int, Float[Tensor, "4 4"]]]:
        """(stamp in ns, map_from_camera) of each keyframe of the map, in the order they came."""
        return self.map.trajectory()

    def reset(self) -> None:
        """Start an empty map."""
        channels, space = (self.space, None) if isinstance(self.space, int) else (self.space.channels, self.space)
        self.map = VoxelMap(self.config.map, channels, space)
        self._voxelize_config = VoxelizeConfig(self.config.map.voxel_size, self.config.map.distance_weight)
        self._windows = self._lost = 0
        self._floors: list[ScaleEstimate] = []
        self._shared, self._floor = None, None

    def save(self, path: Path) -> None:
        """Write the map. Raises MapFileError, and leaves an older file alone, where that fails."""
        self.map.save(path)

    def load(self, path: Path) -> None:
        """Show a saved map in place of the present one, which stays if the file is not a map of this network.

        Raises MapFileError. Frames that follow start from the saved map's origin: they are not localised in it.
        """
        loaded = VoxelMap.load(path)
        if loaded.channels != self.map.channels:
            raise MapFileError(f"{path}: its features have {loaded.channels} channels, not {self.map.channels}")
        self.reset()
        self.map = loaded

    def _align(self, prediction: Prediction, window: Window) -> Alignment:
        """Where the window lies in the map; the first one defines the map's frame."""
        if self._shared is None:
            return Alignment(map_from_first_camera(), 0.0, 1.0, True)
        alignment = align_window(prediction, window, self._shared, self.config.align)
        self._lost = 0 if alignment.accepted else self._lost + 1
        if self._lost > self.config.max_lost and alignment.rms < float("inf"):
            self._lost = 0
            return replace(alignment, accepted=True, reason=f"placed roughly: {alignment.reason}")
        return alignment

    def _grounded(self, prediction: Prediction, alignment: Alignment) -> Alignment:
        """Held to the floor, once the map knows where that is."""
        height, weight = self.config.camera_height, self.config.ground_weight
        if self._floor is None or height is None or not weight or not alignment.accepted:
            return alignment
        seen = floor_below(prediction, alignment.map_from_window, height)
        if seen is None:
            return alignment
        placed = stand_on(self._floor, seen, height, prediction, alignment.map_from_window, weight)
        return replace(alignment, map_from_window=placed)

    def _new_gaussians(self, window: Window, prediction: Prediction) -> Gaussians:
        """The certain Gaussians of the views that the map has not seen yet."""
        known = self._shared.keyframes if self._shared is not None else ()
        fresh = torch.tensor([keyframe not in known for keyframe in window.keyframes])
        confidence = prediction.depth_confidence[fresh.to(prediction.depth.device)]
        floor = torch.quantile(confidence.flatten()[:: 1 + confidence.numel() // 100_000], self.config.drop_uncertain)
        keep = torch.zeros_like(prediction.depth, dtype=torch.bool)
        keep[fresh] = confidence >= floor
        return prediction.gaussians.select(keep.flatten())

    def _make_metric(self, prediction: Prediction, map_from_window: Similarity, frames: SharedFrames) -> None:
        """Scale the map once enough windows have seen the floor that the camera stands above."""
        height = self.config.camera_height
        if height is None or self.map.metric:
            return
        seen = floor_below(prediction, map_from_window, height)
        if seen is not None:
            self._floors.append(seen)
        if len(self._floors) < self.config.scale_windows:
            return
        factor = median(seen.scale for seen in self._floors)
        self.map.rescale(factor)
        self.map.scale = ScaleInfo(metric=True, source=f"camera height {height:g} m")
        self._shared = frames.rescaled(factor)
        normal = torch.nn.functional.normalize(torch.stack([seen.normal for seen in self._floors]).mean(0), dim=0)
        centres = torch.stack([pose[:3, 3] for _, pose in self.map.trajectory()])
        self._floor = Floor(normal, float((centres.to(normal) @ normal).median()) - height)
        log.info("the map is metric: 1 unit was %.3f m, by the camera height", factor)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
