"""The whole story: camera frames ─► window ─► engine ─► alignment ─► voxelization ─► map ─► queries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ff3r_model.checkpoint import load_checkpoint
from ff3r_model.engine import Engine, EngineConfig, Use, make_engine
from ff3r_model.mapping import Mapper, MappingConfig, MapUpdate, timed
from ff3r_model.measured import Geometry, correct
from ff3r_model.network import FF3RConfig
from ff3r_model.queries import QueryConfig, QuerySet
from ff3r_model.text import TextEncoder
from ff3r_model.text_space import TextSpace
from ff3r_model.types import Frame, Prediction, Window
from ff3r_model.voxel_map import VoxelMap
from ff3r_model.window import WindowBuilder, WindowConfig

__all__ = ["NANO_WEIGHTS", "MapUpdate", "Pipeline", "PipelineConfig"]

NANO_WEIGHTS = Path(__file__).parent / "weights" / "nano.safetensors"
"""The small FF3R that comes with the package."""


@dataclass(frozen=True)
class PipelineConfig:
    """Everything a run can be told, composed from the stages' own configurations."""

    window: WindowConfig = field(default_factory=WindowConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    mapping: MappingConfig = field(default_factory=MappingConfig)
    geometry: Geometry = "predicted"
    """sensor: measured depth and odometry, where frames carry them, take the place of the network's geometry."""
    queries: QueryConfig = field(default_factory=QueryConfig)


class Pipeline:
    """Frames in, a queryable semantic map out. Not thread safe: one worker owns it."""

    def __init__(
        self, engine: Engine, text: TextEncoder, space: TextSpace, config: PipelineConfig | None = None
    ) -> None:
        self.engine, self.config = engine, config or PipelineConfig()
        self.space = space
        self.windows = WindowBuilder(self.config.window)
        self.mapper = Mapper(engine, space, self.config.mapping)
        self.queries = QuerySet(text.encode, space, self.config.queries)

    @property
    def map(self) -> VoxelMap:
        """The map as it is now."""
        return self.mapper.map

    @classmethod
    def from_checkpoint(
        cls, path: Path | None = None, config: PipelineConfig | None = None, device: torch.device | str = "cpu"
    ) -> Pipeline:
        """A pipeline around the network and the words of a checkpoint (None: the shipped nano).

        Images get the size that the network is meant for, unless the configuration says another. Raises
        CheckpointError for a file that is missing, damaged or foreign.
        """
        checkpoint = load_checkpoint(path or NANO_WEIGHTS, device)
        config = _sized(config or PipelineConfig(), checkpoint.config)
        assert config.window.long_side is not None
        space = TextSpace(checkpoint.network.feature_decoder.weight.detach().clone())
        use = Use(config.window.views, config.window.long_side)
        engine = make_engine(
            config.engine,
            checkpoint.network,
            torch.device(device),
            use,
            lambda: load_checkpoint(path or NANO_WEIGHTS, device).network,
        )
        return cls(engine, checkpoint.text_encoder, space, config)

    def add(self, frame: Frame) -> None:
        """Offer a camera frame. Raises FrameRejected for one that cannot be used."""
        self.windows.add(frame)

    @property
    def ready(self) -> bool:
        """Whether `step` has a window to work on."""
        return self.windows.ready

    def step(self, flush: bool = False) -> MapUpdate | None:
        """Take the newest window through all stages; None while too few frames wait (`flush`: accept fewer)."""
        window = self.windows.take(flush)
        if window is None:
            return None
        seconds: dict[str, float] = {}
        with timed(seconds, "network"):
            prediction = self.engine(window)
        window = self._covered(window, prediction)
        prediction = correct(prediction, window, self.config.geometry)
        update = self.mapper.place(window, prediction)
        if not update.accepted:
            self.windows.roll_back()
        return replace(update, seconds=seconds | update.seconds)

    def _covered(self, window: Window, prediction: Prediction) -> Window:
        """The part of the window that the engine's memory took; the rest counts as dropped."""
        if prediction.keyframes is None:
            return window
        self.windows.dropped["out of memory"] += len(window.keyframes) - len(prediction.keyframes)
        return window.select([window.keyframes.index(keyframe) for keyframe in prediction.keyframes])

    def reset(self) -> None:
        """Start an empty map and forget all frames; the queries stay."""
        self.windows.reset()
        self.mapper.reset()

    def save(self, path: Path) -> None:
        """Write the map. Raises MapFileError, and leaves an older file alone, where that fails."""
        self.mapper.save(path)

    def load(self, path: Path) -> None:
        """Show a saved map in place of the present one, which stays if the file is not a map of this network.

        Raises MapFileError. Frames that follow begin a new submap, which is joined to the saved map once a place of it
        is recognised.
        """
        self.mapper.load(path)
        self.windows.reset()


def _sized(config: PipelineConfig, network: FF3RConfig) -> PipelineConfig:
    """The configuration with the network's patches, and with its image size where none is given."""
    side = config.window.long_side or network.image_side
    return replace(config, window=replace(config.window, long_side=side, patch=network.encoder.patch))
