"""The pipeline of the exact fake network (`fake_engine`), as a node's parameters describe it."""

from __future__ import annotations

from dataclasses import replace

import torch

from ff3r_model.core.text_space import TextSpace
from ff3r_model.pipeline import Pipeline
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.pipeline_factory import config_from_parameters
from tests.support.fake_engine import DIM, FakeEngine, FakeText


def fake_pipeline(engine: FakeEngine, parameters: NodeParameters) -> Pipeline:
    """As `pipeline_from_parameters`, around the fake network and the fake words; every frame is a keyframe."""
    config = config_from_parameters(parameters)
    config = replace(config, window=replace(config.window, min_motion=0.0, max_keyframe_rate=float("inf")))
    return Pipeline(engine, FakeText(), TextSpace(torch.eye(DIM)), config)
