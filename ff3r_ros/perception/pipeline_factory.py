"""Pipeline factory: the pipeline that the node's parameters and its configuration file describe."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from ff3r_model.engine.device import device_named
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_ros.parameters import ParameterError
from ff3r_ros.perception.parameters import NodeParameters

KEYS = {
    "views": "window.views",
    "overlap": "window.overlap",
    "long_side": "window.long_side",
    "min_motion": "window.min_motion",
    "max_keyframe_rate": "window.max_keyframe_rate",
    "voxel_size": "mapping.map.voxel_size",
    "max_map_bytes": "mapping.map.max_map_bytes",
    "camera_height": "mapping.camera_height",
    "engine": "engine.kind",
    "build_engine": "engine.build",
    "engine_image_size": "engine.image_size",
    "engine_max_views": "engine.max_views",
    "geometry": "geometry",
    "depth": "depth",
    "max_queries": "queries.max_queries",
    "threshold": "queries.threshold",
}
"""The parameters that are keys of the pipeline's configuration, and which."""
ZERO_IS_NONE = ("overlap", "long_side", "camera_height")
"""Parameters whose 0 stands for None, which ROS has not."""


def pipeline_from_parameters(parameters: NodeParameters) -> Pipeline:
    """The pipeline that the parameters describe.

    Raises CheckpointError and WeightsError for weights that cannot be used, ConfigError for values that do not go
    together.
    """
    weights = parameters.weights or None
    return Pipeline.from_checkpoint(weights, config_from_parameters(parameters), device_named(parameters.device))


def config_from_parameters(parameters: NodeParameters) -> PipelineConfig:
    """The configuration of the file, if there is one, and of the parameters.

    A parameter that stands at its default gives way to the file, any other wins over it: so a parameter file that
    lists defaults, as config/ff3r.yaml does, silences nothing. Raises ParameterError and ConfigError.
    """
    defaults, over, under = NodeParameters(), dict[str, Any](), dict[str, Any]()
    for name, key in KEYS.items():
        layer = under if getattr(parameters, name) == getattr(defaults, name) else over
        layer[key] = _value(parameters, name)
    path = Path(parameters.config_file).expanduser() if parameters.config_file else None
    config = PipelineConfig.from_yaml(path, over, under)
    largest = max(config.engine.max_views, config.window.views)
    return replace(config, engine=replace(config.engine, max_views=largest))


def parameters_in_effect(parameters: NodeParameters, config: PipelineConfig) -> NodeParameters:
    """The parameters with the values that the pipeline's configuration has for them, from whichever place.

    Topics and diagnostics go by these: the floor by `camera_height`, lists of queries by `max_queries`.
    """
    return replace(parameters, **{name: _as_parameter(name, config) for name in KEYS})


def _as_parameter(name: str, config: PipelineConfig) -> Any:
    """A key's value as the parameter has it: the inverse of `_value`."""
    value: Any = reduce(getattr, KEYS[name].split("."), config)
    if name == "engine_image_size":
        return "{}x{}".format(*value)
    return getattr(NodeParameters, name) if value is None else value


def _value(parameters: NodeParameters, name: str) -> Any:
    """A parameter's value as the configuration has it."""
    value = getattr(parameters, name)
    if name == "engine_image_size":
        return _image_size(value)
    return None if name in ZERO_IS_NONE and not value else value


def _image_size(text: str) -> tuple[int, int]:
    size = re.fullmatch(r"(\d+)\s*x\s*(\d+)", text.strip())
    if size is None:
        raise ParameterError(f"parameter engine_image_size = {text!r}: give width x height, as in 640x480")
    return int(size[1]), int(size[2])
