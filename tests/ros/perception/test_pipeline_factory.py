"""The node's parameters and its configuration file, and the pipeline that they give."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch

from ff3r_model.core.config_file import ConfigError
from ff3r_model.engine.choose import EngineConfig
from ff3r_model.engine.torch_engine import TorchEngine
from ff3r_model.network.checkpoint import load_checkpoint
from ff3r_model.network.named_weights.places import WeightsError
from ff3r_model.pipeline import PipelineConfig
from ff3r_ros.parameters import ParameterError
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.pipeline_factory import (
    KEYS,
    config_from_parameters,
    parameters_in_effect,
    pipeline_from_parameters,
)


def test_what_the_parameters_ask_for() -> None:
    assert config_from_parameters(NodeParameters()).engine == EngineConfig("auto", image_size=(640, 480))
    given = NodeParameters(
        engine="tensorrt", build_engine=False, engine_image_size="1280 x 720", views=16, engine_max_views=8
    )
    wanted = EngineConfig("tensorrt", build=False, image_size=(1280, 720), max_views=16)
    assert config_from_parameters(given).engine == wanted


@pytest.mark.parametrize("size", ["", "640", "640x", "x480", "640*480", "-1x4", "640x480x3"])
def test_a_size_that_is_none_is_named(size: str) -> None:
    with pytest.raises(ParameterError, match=r"engine_image_size = .* as in 640x480"):
        config_from_parameters(NodeParameters(engine_image_size=size))


@pytest.mark.parametrize("engine", ["auto", "torch", "tensorrt"])
def test_every_choice_runs_on_a_cpu(engine: str) -> None:
    pipeline = pipeline_from_parameters(NodeParameters(engine=engine, device="cpu"))
    assert isinstance(pipeline.engine, TorchEngine)
    why = ", not TensorRT: the device is cpu, and TensorRT needs an NVIDIA GPU" if engine == "tensorrt" else ""
    assert pipeline.status().engine == f"torch on cpu{why}"


def test_weights_by_name_or_by_path(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FF3R_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="`ff3r weights get apache` fetches them"):
        pipeline_from_parameters(NodeParameters(weights="apache", device="cpu"))
    made = shutil.copy(weights, tmp_path / "apache.safetensors")
    for given in ("apache", str(made)):
        pipeline = pipeline_from_parameters(NodeParameters(weights=given, device="cpu"))
        assert torch.equal(pipeline.space.decoder, load_checkpoint(weights).text_space.decoder)


OTHERS: dict[str, Any] = {
    "views": 16, "overlap": 2, "long_side": 56, "min_motion": 0.1, "max_keyframe_rate": 5.0, "voxel_size": 0.1,
    "max_map_bytes": 2**24, "camera_height": 0.5, "engine": "tensorrt", "build_engine": False,
    "engine_image_size": "1280x720", "engine_max_views": 32, "geometry": "sensor", "max_queries": 3, "threshold": 0.7,
    "depth": "dense",
}  # fmt: skip
"""A value that is no default, of each parameter that is a key of the configuration."""


def at(config: PipelineConfig, key: str) -> Any:
    """The value of a dotted key."""
    return reduce(getattr, key.split("."), config)


def test_defaults_are_the_configuration_s() -> None:
    """But for the engine: a node may take minutes to build a plan, `ff3r reconstruct` may not."""
    made = config_from_parameters(NodeParameters())
    assert made == replace(PipelineConfig(), engine=EngineConfig("auto"))


@pytest.mark.parametrize("name", KEYS)
def test_a_parameter_sets_its_key_and_no_other(name: str) -> None:
    plain = config_from_parameters(NodeParameters())
    made = config_from_parameters(NodeParameters(**{name: OTHERS[name]}))
    wanted = (1280, 720) if name == "engine_image_size" else OTHERS[name]
    assert at(made, KEYS[name]) == wanted != at(plain, KEYS[name])
    assert all(at(made, key) == at(plain, key) for other, key in KEYS.items() if other != name)


def test_keys_are_of_parameters() -> None:
    assert set(KEYS) == set(OTHERS) <= {field.name for field in fields(NodeParameters)}


FILE = """
window: {views: 12, new_view: 0.5}
engine: {kind: torch}
mapping: {map: {voxel_size: 0.2}, camera_height: 0.4, loops: {enabled: false}}
queries: {threshold: 0.3}
"""


def test_parameters_that_do_not_stand_at_their_default_go_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(FILE)
    made = config_from_parameters(NodeParameters(config_file=str(path)))
    assert (made.window.views, made.window.new_view, made.engine.kind) == (12, 0.5, "torch")
    assert (made.mapping.map.voxel_size, made.mapping.camera_height, made.queries.threshold) == (0.2, 0.4, 0.3)
    assert not made.mapping.loops.enabled and (made.window.overlap, made.window.shared) == (None, 6)
    given = NodeParameters(config_file=str(path), views=16, voxel_size=0.1, camera_height=1.0, engine="tensorrt")
    told = config_from_parameters(given)
    assert (told.window.views, told.window.new_view, told.engine.kind) == (16, 0.5, "tensorrt")
    assert (told.mapping.map.voxel_size, told.mapping.camera_height, told.queries.threshold) == (0.1, 1.0, 0.3)


def test_parameters_in_effect_are_those_of_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(FILE)
    given = NodeParameters(config_file=str(tmp_path / "pipeline.yaml"), views=16, map_frame="odd")
    made = parameters_in_effect(given, config_from_parameters(given))
    assert made == replace(given, engine="torch", voxel_size=0.2, camera_height=0.4, threshold=0.3)
    for given in (NodeParameters(), NodeParameters(**OTHERS)):
        assert parameters_in_effect(given, config_from_parameters(given)) == given


def test_the_example_file_is_the_default_with_torch(repository: Path) -> None:
    made = config_from_parameters(NodeParameters(config_file=str(repository / "config/pipeline.yaml")))
    assert made == PipelineConfig()


def test_a_bad_file_and_values_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("mapping: {loop: {}}")
    with pytest.raises(ConfigError, match=r"bad\.yaml: mapping has no loop; did you mean loops\?"):
        pipeline_from_parameters(NodeParameters(config_file=str(tmp_path / "bad.yaml")))
    with pytest.raises(ConfigError, match="overlap must be 1 to views - 1 = 2, not 4"):
        pipeline_from_parameters(NodeParameters(views=3, overlap=4))
