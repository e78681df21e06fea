"""The whole story: camera frames ─► window ─► engine ─► alignment ─► voxelization ─► map ─► queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ff3r_model.core.config_file import ConfigError, load_config
from ff3r_model.core.tensor_digest import tensors_digest
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Frame, Predict, Prediction, Window
from ff3r_model.engine.choose import EngineConfig, ExpectedWindow, in_words, make_engine
from ff3r_model.engine.metric_depth import MetricDepth
from ff3r_model.frames.used_camera import UsedCamera
from ff3r_model.frames.windows import WindowBuilder, WindowConfig
from ff3r_model.network import FF3RConfig
from ff3r_model.network.checkpoint import load_checkpoint
from ff3r_model.network.text_embedder import TextEmbedder
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.contents import CameraRecord
from ff3r_model.slam.mapper import Mapper, MapUpdate, timed
from ff3r_model.slam.refinement.lens import Focal
from ff3r_model.slam.refinement.optical_flow import RefineConfig
from ff3r_model.slam.refinement.refine import Refine, Refinement, settle
from ff3r_model.slam.refinement.sensor_geometry import GeometrySource, use_sensor_geometry
from ff3r_model.slam.refinement.track_refinement import Depth, TrackConfig
from ff3r_model.voxel_map.queries import QueryConfig, QuerySet
from ff3r_model.voxel_map.voxel_map import VoxelMap


@dataclass(frozen=True)
class PipelineConfig:
    """Everything a run can be told, composed from the stages' own configurations."""

    window: WindowConfig = field(default_factory=WindowConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    refine: Refine = "auto"
    """tracks: cameras and points from features that are found again in many views, the network's or those of optical
    flow (`tracks.gaps`) where there are none. flow: correct the network's cameras by optical flow alone. auto: tracks,
    with flow in their gaps where the checkpoint says that its network needs it; off where there is no checkpoint."""
    tracks: TrackConfig = field(default_factory=TrackConfig)
    flow: RefineConfig = field(default_factory=RefineConfig)
    depth: Depth = "bent"
    """network: depth as predicted. bent: that, smoothly bent to the points of the tracks. dense: by plane sweep where
    pictures have texture and views agree, else bent, as in windows that are not trusted; needs cameras by tracks, and
    twice the time."""
    mapping: MappingConfig = field(default_factory=MappingConfig)
    geometry: GeometrySource = "predicted"
    """sensor: measured depth and odometry, where frames carry them, take the place of the network's geometry."""
    queries: QueryConfig = field(default_factory=QueryConfig)

    @classmethod
    def from_yaml(
        cls,
        path: Path | None,
        over: Mapping[str, Any] | None = None,
        under: Mapping[str, Any] | None = None,
    ) -> PipelineConfig:
        """The configuration that a YAML file states, with defaults for the rest; `ff3r config` prints a whole one.

        Values of `over` win over the file and those of `under` give way to it, both by dotted path, such as
        {"window.views": 8}; None leaves a key alone. Raises ConfigError, which names file, key, value and what is
        allowed.
        """
        return load_config(cls, path, over, under)


@dataclass(frozen=True)
class PipelineStatus:
    """What a pipeline holds at a moment."""

    dropped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Frames that never reached the map, by reason."""
    pending: int = 0
    """Keyframes that wait for a window."""
    voxels: int = 0
    map_bytes: int = 0
    """Of the map, of other submaps, and of what is remembered of frames."""
    metric: bool = False
    scale_source: str = "none"
    """Where the metres come from."""
    why_unscaled: str = ""
    """What the sources of scale that are offered lack yet; empty where there are none, or the map is metric."""
    submaps: int = 1
    """Parts of the map that have no common frame; all the rest here is of the one that is shown."""
    shown: int = 0
    """Number of the submap that is shown, `map`."""
    submap: int = 0
    """Number of the submap that windows are added to: another than `shown` while track of that is lost."""
    untrusted: int = 0
    """Windows in the map that are not trusted: cloud and masks show them, occupancy grids and scale do without."""
    engine: str = ""
    """What runs the network, in words."""
    queries: int = 0
    doubts: tuple[str, ...] = ()
    """What there is to say of queries whose answers may mean nothing."""
    focal: float = 0.0
    """Focal length that self-calibration believes in, of the images' long side; 0 where nothing was estimated."""
    focal_sigma: float = 0.0
    """Standard deviation of its logarithm."""
    camera: str = ""
    """Which intrinsics are used, in words; empty before there is a keyframe."""


class Pipeline:
    """Frames in, a queryable semantic map out. Not thread safe: one worker owns it."""

    def __init__(
        self,
        engine: Predict,
        text: TextEmbedder,
        space: TextSpace,
        config: PipelineConfig | None = None,
        metric: MetricDepth | None = None,
    ) -> None:
        """`metric` sees metres in single images; None: no learned scale."""
        self.engine, self.config, self.metric = engine, config or PipelineConfig(), metric
        self.text, self.space = text, space
        self.windows = WindowBuilder(self.config.window)
        try:
            self.mapper = Mapper(self.predict, space, self.config.mapping)
        except ValueError as error:
            cap = self.config.mapping.map.max_map_bytes
            raise ConfigError(f"mapping.map.max_map_bytes = {cap} leaves no room for voxels: {error}") from error
        self.refinement = refinement(self.config)
        self.queries = QuerySet(text.encode, space, self.config.queries, text.unknown_words, text.temperature)

    @property
    def map(self) -> VoxelMap:
        """The map as it is now: the submap that is shown (`Mapper.map`)."""
        return self.mapper.map

    @property
    def camera(self) -> UsedCamera | None:
        """What the run takes its camera for, as given or as estimated until now; None before there is a keyframe."""
        camera, belief = self.windows.camera, self._belief
        if camera is None or camera.intrinsics is not None or belief is None:
            return camera
        return camera.with_estimate(belief.pixels, belief.log_sigma)

    @property
    def _belief(self) -> Focal | None:
        """The focal length that self-calibration found, of the long side; None where it found nothing."""
        belief = self.refinement.tracks.belief
        return belief.focal(1.0) if belief.estimates and self.config.refine == "tracks" else None

    @classmethod
    def from_checkpoint(
        cls, weights: str | Path | None = None, config: PipelineConfig | None = None, device: torch.device | str = "cpu"
    ) -> Pipeline:
        """A pipeline around the network and the words of a checkpoint: its file, or a name of `ff3r weights list`.

        None is nano, which comes with the package; "./apache" is a file, where "apache" is a name.

        Images get the size that the network is meant for, unless the configuration has another. Raises
        CheckpointError for a file that is missing, damaged or foreign, WeightsError for a name that is not installed.
        """
        checkpoint = load_checkpoint(weights, device)
        config = _settled(config or PipelineConfig(), checkpoint.config)
        assert config.window.long_side is not None
        use = ExpectedWindow(config.window.views, config.window.long_side)
        engine = make_engine(
            config.engine,
            checkpoint.network,
            torch.device(device),
            use,
            lambda: load_checkpoint(weights, device).network,
        )
        metric = MetricDepth.from_config(config.engine.metric, device)
        return cls(engine, checkpoint.text_encoder, checkpoint.text_space, config, metric)

    def add(self, frame: Frame) -> None:
        """Offer a camera frame. Raises FrameRejected for one that cannot be used."""
        self.windows.add(frame)

    @property
    def ready(self) -> bool:
        """Whether `step` has a window to work on."""
        return self.windows.ready

    def step(self, flush: bool = False) -> MapUpdate | None:
        """Take the newest window through all stages; None while too few frames wait (`flush`: accept fewer).

        What a stage raises is raised; the next window then shares views with the last that is in the map.
        """
        window = self.windows.take(flush)
        if window is None:
            return None
        seconds: dict[str, float] = {}
        try:
            with timed(seconds, "network"):
                prediction = self.predict(window)
            seen = _seen(window, prediction)
            self.windows.dropped["out of memory"] += len(window.keyframes) - len(seen.keyframes)
            if self.metric is not None:
                prediction = self.metric(seen, prediction)
            update = self.mapper.place(seen, prediction)
        except Exception:
            self.windows.roll_back()
            raise
        if not update.accepted:
            self.windows.roll_back()
        return replace(update, seconds=seconds | update.seconds)

    def predict(self, window: Window) -> Prediction:
        """Cameras, depth and Gaussians of a window: by the network, refined by tracks or flow, then sensors.

        Where memory is short they are of some views only; the prediction's `keyframes` name them.
        """
        prediction = self.engine(window)
        window = _seen(window, prediction)
        prediction = self.refinement(prediction, window)
        if self.config.geometry == "sensor":
            prediction = use_sensor_geometry(prediction, window, self.config.mapping.scale)
        return prediction

    def restart_clock(self) -> None:
        """Accept frames of any time from now on: a bag that loops, a simulation that starts over."""
        self.windows.restart_clock()

    def status(self) -> PipelineStatus:
        """What it holds now, for those who watch; cheap."""
        dropped = {reason: count for reason, count in self.windows.dropped.items() if count}
        focal, camera = self._belief, self.camera
        shown, active = self.mapper.numbers
        return PipelineStatus(
            dropped=MappingProxyType(dropped),
            pending=self.windows.pending,
            voxels=len(self.map),
            map_bytes=self.mapper.nbytes,
            metric=self.map.metric,
            scale_source=self.map.scale.source,
            why_unscaled=self.mapper.why_unscaled(),
            submaps=len(self.mapper.submaps),
            shown=shown,
            submap=active,
            untrusted=len(self.map.untrusted),
            engine=in_words(self.engine),
            queries=len(self.queries.active),
            doubts=tuple(query.doubt for query in self.queries.active if query.doubt),
            focal=focal.pixels if focal else 0.0,
            focal_sigma=focal.log_sigma if focal else 0.0,
            camera=camera.described("as given") if camera else "",
        )

    def reset(self) -> None:
        """Start an empty map and forget all frames; the queries stay."""
        self.windows.reset()
        self.mapper.reset()
        self.refinement.reset()

    @cached_property
    def words(self) -> str:
        """Fingerprint of the feature decoder and the text tower: maps of one are no maps of another."""
        tensors = {f"text.{name}": tensor for name, tensor in self.text.state_dict().items()}
        return tensors_digest(tensors | {"decoder": self.space.decoder})

    def save(self, path: Path) -> None:
        """Write the map. Raises MapFileError, and leaves an older file alone, where that fails."""
        focal = self._belief
        self.mapper.save(path, self.words, CameraRecord(focal.pixels, focal.log_sigma) if focal else None)

    def load(self, path: Path) -> None:
        """Show a saved map in place of the present one, which stays if the file is not a map of this network.

        Raises MapFileError. Frames that follow go on in the saved map where they see a place of it; until they do they
        are a submap apart, which is joined to it once a place is recognised. The focal length is estimated from what
        the saved map's run believed.
        """
        camera = self.mapper.load(path, self.words)
        if camera is not None:
            self.refinement.tracks.belief.recall(camera.focal, camera.sigma)
        self.windows.reset()


def refinement(config: PipelineConfig) -> Refinement:
    """The refinement that a configuration asks for. Raises ConfigError for parts that do not go together."""
    limit = config.mapping.max_pose_error
    return Refinement(config.refine, config.tracks, config.flow, config.depth, limit)


def _seen(window: Window, prediction: Prediction) -> Window:
    """The part of a window that the prediction is of."""
    if prediction.keyframes is None:
        return window
    return window.select([window.keyframes.index(keyframe) for keyframe in prediction.keyframes])


def _settled(config: PipelineConfig, network: FF3RConfig) -> PipelineConfig:
    """The configuration with the network's patches, and with its image size and refinement where none is given."""
    side = config.window.long_side or network.image_side
    window = replace(config.window, long_side=side, patch=network.encoder.patch)
    refine, tracks = settle(config.refine, config.tracks, network.refine_poses)
    return replace(config, window=window, refine=refine, tracks=tracks)
