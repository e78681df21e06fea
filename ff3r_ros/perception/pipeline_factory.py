"""The pipeline that the node's parameters describe."""

from __future__ import annotations

import re
from pathlib import Path

from ff3r_model.engine import EngineConfig, device_named
from ff3r_model.frames.windows import WindowConfig
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.slam.config import MappingConfig
from ff3r_model.voxel_map.config import MapConfig
from ff3r_model.voxel_map.queries import QueryConfig
from ff3r_ros.parameters import ParameterError
from ff3r_ros.perception.parameters import NodeParameters


def pipeline_from_parameters(parameters: NodeParameters) -> Pipeline:
    """The pipeline that the parameters describe.

    Raises CheckpointError for weights that cannot be used, ValueError for values that do not go together.
    """
    config = PipelineConfig(
        window=WindowConfig(
            views=parameters.views,
            overlap=parameters.overlap,
            long_side=parameters.long_side or None,
            min_motion=parameters.min_motion,
            max_keyframe_rate=parameters.max_keyframe_rate,
        ),
        mapping=MappingConfig(
            map=MapConfig(voxel_size=parameters.voxel_size, max_map_bytes=parameters.max_map_bytes),
            camera_height=parameters.camera_height or None,
        ),
        engine=engine_config(parameters),
        geometry=parameters.geometry,  # type: ignore[arg-type]  # one of its choices
        queries=QueryConfig(max_queries=parameters.max_queries, threshold=parameters.threshold),
    )
    weights = Path(parameters.weights).expanduser() if parameters.weights else None
    return Pipeline.from_checkpoint(weights, config, device_named(parameters.device))


def engine_config(parameters: NodeParameters) -> EngineConfig:
    """Which engine the parameters ask for. Raises ParameterError for an image size that is none."""
    size = re.fullmatch(r"(\d+)\s*x\s*(\d+)", parameters.engine_image_size.strip())
    if size is None:
        raise ParameterError(
            f"parameter engine_image_size = {parameters.engine_image_size!r}: give width x height, as in 640x480"
        )
    return EngineConfig(
        kind=parameters.engine,  # type: ignore[arg-type]  # one of its choices
        build=parameters.build_engine,
        image_size=(int(size[1]), int(size[2])),
        max_views=max(parameters.engine_max_views, parameters.views),
    )
