"""The node's engine parameters, and the engine that they give."""

from __future__ import annotations

import pytest

from ff3r_model.engine import EngineConfig, TorchEngine
from ff3r_ros.parameters import ParameterError
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.pipeline_factory import engine_config, pipeline_from_parameters


def test_what_the_parameters_ask_for() -> None:
    assert engine_config(NodeParameters()) == EngineConfig("auto", image_size=(640, 480))
    given = NodeParameters(
        engine="tensorrt", build_engine=False, engine_image_size="1280 x 720", views=16, engine_max_views=8
    )
    assert engine_config(given) == EngineConfig("tensorrt", build=False, image_size=(1280, 720), max_views=16)


@pytest.mark.parametrize("size", ["", "640", "640x", "x480", "640*480", "-1x4", "640x480x3"])
def test_a_size_that_is_none_is_named(size: str) -> None:
    with pytest.raises(ParameterError, match=r"engine_image_size = .* as in 640x480"):
        engine_config(NodeParameters(engine_image_size=size))


@pytest.mark.parametrize("engine", ["auto", "torch", "tensorrt"])
def test_every_choice_runs_on_a_cpu(engine: str) -> None:
    pipeline = pipeline_from_parameters(NodeParameters(engine=engine, device="cpu"))
    assert isinstance(pipeline.engine, TorchEngine)
