"""The pipeline of the exact fake network (`fake_engine`), as a node's parameters describe it."""

from __future__ import annotations

import torch

from ff3r_model.core.text_space import TextSpace
from ff3r_model.frames.windows import WindowConfig
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.slam.config import MappingConfig
from ff3r_model.voxel_map import MapConfig, QueryConfig
from ff3r_ros.perception.parameters import NodeParameters
from tests.support.fake_engine import DIM, FakeEngine, FakeText


def fake_pipeline(engine: FakeEngine, parameters: NodeParameters) -> Pipeline:
    """As `pipeline_from_parameters`, around the fake network and the fake words."""
    config = PipelineConfig(
        window=WindowConfig(
            views=parameters.views,
            overlap=parameters.overlap,
            long_side=parameters.long_side,
            min_motion=0.0,
            max_keyframe_rate=float("inf"),
        ),
        mapping=MappingConfig(
            map=MapConfig(voxel_size=parameters.voxel_size, max_map_bytes=parameters.max_map_bytes),
            camera_height=parameters.camera_height or None,
        ),
        queries=QueryConfig(max_queries=parameters.max_queries, threshold=parameters.threshold),
    )
    return Pipeline(engine, FakeText(), TextSpace(torch.eye(DIM)), config)
