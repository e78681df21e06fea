"""The pipeline that the node's parameters describe."""

from __future__ import annotations

from pathlib import Path

from ff3r_model.engine import device_named
from ff3r_model.mapping import MappingConfig
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.queries import QueryConfig
from ff3r_model.voxel_map import MapConfig
from ff3r_model.window import WindowConfig
from ff3r_ros.parameters import NodeParameters


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
        ),
        mapping=MappingConfig(
            map=MapConfig(voxel_size=parameters.voxel_size, max_map_bytes=parameters.max_map_bytes),
            camera_height=parameters.camera_height or None,
        ),
        queries=QueryConfig(max_queries=parameters.max_queries, threshold=parameters.threshold),
    )
    weights = Path(parameters.weights).expanduser() if parameters.weights else None
    return Pipeline.from_checkpoint(weights, config, device_named(parameters.device))
