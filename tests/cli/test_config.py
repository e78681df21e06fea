"""The pipeline's configuration: one file reaches all of it, commands print it, and defaults are said in one place."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from ff3r_model.cli import COMMANDS, main
from ff3r_model.cli.train import Train
from ff3r_model.core.config_file import ConfigError
from ff3r_model.core.config_text import field_docs
from ff3r_model.engine.choose import EngineConfig
from ff3r_model.engine.tensorrt.plan_cache import default_cache
from ff3r_model.evaluation.subject import CheckpointUnderTest
from ff3r_model.frames.windows import WindowConfig
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.training.settings import NEWCOMERS_MINUTES, DataSources


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and type of every value of the pipeline that a file may state; of `sparse`, those that it has."""
    hints = typing.get_type_hints(type(config))
    for found in dataclasses.fields(config):
        value, key = getattr(config, found.name), f"{path}{found.name}"
        kinds = [kind for kind in (hints[found.name], *typing.get_args(hints[found.name])) if is_dataclass(kind)]
        if kinds:
            assert isinstance(kinds[0], type)
            yield from leaves(kinds[0]() if value is None else value, f"{key}.")
        elif found.metadata.get("in_files", True):
            yield key, value


CHANGED: dict[str, Any] = {
    "mapping.map.bands": 4,
    "window.long_side": 56, "window.overlap": 3,
    "engine.kind": "auto", "engine.precision": "float32", "engine.cache": "/tmp/plans",
    "engine.image_size": [1280, 720], "engine.max_views": 32, "engine.torch.sparse.early": 2,
    "engine.metric.weights": "/tmp/metric.safetensors",
    "refine": "off", "tracks.gaps": "network", "depth": "network",
    "mapping.align.method": "points",
    "mapping.camera_height": 0.3, "geometry": "sensor",
    "queries.negatives": ["thing"], "queries.temperature": 0.02,
}  # fmt: skip
"""Other values where the default cannot simply be doubled or halved."""


def test_a_file_reaches_every_field_of_the_pipeline(tmp_path: Path) -> None:
    for key, default in leaves(PipelineConfig()):
        value = CHANGED.get(key, not default if isinstance(default, bool) else None)
        if value is None:
            value = default + 1 if isinstance(default, int) else default / 2
        path = tmp_path / "one.yaml"
        tree: Any = value
        for name in reversed(key.split(".")):
            tree = {name: tree}
        path.write_text(yaml.safe_dump(tree))
        made = PipelineConfig.from_yaml(path)
        for name in key.split("."):
            made = getattr(made, name)
        plain = list(made) if isinstance(made, tuple) else str(made) if isinstance(made, Path) else made
        assert plain == value != default, key


def test_the_command_prints_what_loads_as_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    (tmp_path / "all.yaml").write_text(capsys.readouterr().out)
    assert PipelineConfig.from_yaml(tmp_path / "all.yaml") == PipelineConfig() == PipelineConfig.from_yaml(None)
    stated = yaml.safe_load((tmp_path / "all.yaml").read_text())
    assert list(stated) == [found.name for found in dataclasses.fields(PipelineConfig)]
    for key, _ in leaves(PipelineConfig()):
        tree = stated
        for name in key.split("."):
            assert name in (tree or {}) or "sparse" in key, key
            tree = (tree or {}).get(name)


def test_the_example_is_what_the_command_prints(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    written = (repository / "config/pipeline.yaml").read_text()
    assert written == capsys.readouterr().out, "run `ff3r config > config/pipeline.yaml`"


def test_the_command_completes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.yaml").write_text("window: {views: 16}\nengine: {torch: {sparse: {stride: 3}}}")
    assert main(["config", "--config", str(tmp_path / "some.yaml")]) == 0
    (tmp_path / "whole.yaml").write_text(capsys.readouterr().out)
    made = PipelineConfig.from_yaml(tmp_path / "whole.yaml")
    assert made == PipelineConfig.from_yaml(tmp_path / "some.yaml") != PipelineConfig()


COMMANDS_WITH_A_PIPELINE = {
    "reconstruct": ["{tmp}", "-o", "{tmp}/out"],
    "query": ["{tmp}/map", "chair"],
    "view": ["{tmp}/map"],
    "export": ["{tmp}/weights", "-o", "{tmp}/onnx"],
    "build-engine": ["{tmp}/onnx"],
    "config": [],
    "eval synthetic": ["--json", "{tmp}/figures.json", "--seeds", "0:1"],
}


@pytest.mark.parametrize("name", COMMANDS_WITH_A_PIPELINE)
def test_commands_refuse_a_file_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "bad.yaml").write_text("window: {veiws: 8}")
    arguments = [argument.format(tmp=tmp_path) for argument in COMMANDS_WITH_A_PIPELINE[name]]
    assert main([*name.split(), *arguments, "--config", str(tmp_path / "bad.yaml")]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"ff3r: {tmp_path}/bad.yaml: window has no veiws; did you mean views?\n")


def test_every_command_that_has_the_option_is_tried() -> None:
    having = {name for name, kind in COMMANDS.items() if "config" in getattr(kind, "__dataclass_fields__", {})}
    assert having - {"train"} == set(COMMANDS_WITH_A_PIPELINE) - {"eval synthetic"}, "train has settings of its own"


def test_options_go_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PipelineConfig] = []

    class Stop(Exception):
        pass

    def note(weights: Path | None, config: PipelineConfig, device: Any) -> Pipeline:
        made.append(config)
        raise Stop

    monkeypatch.setattr(Pipeline, "from_checkpoint", note)
    monkeypatch.setattr("ff3r_model.frames.open_source.open_source", lambda *_: None)
    (tmp_path / "some.yaml").write_text("window: {views: 16, overlap: 9, min_motion: 0.5}\nrefine: off")
    options = ["--config", str(tmp_path / "some.yaml"), "--views", "12", "--camera-height", "0.5"]
    for given in ([], options):
        with pytest.raises(Stop):
            main(["reconstruct", str(tmp_path), "-o", str(tmp_path / "out"), *given])
    plain, told = made
    assert plain == PipelineConfig()
    assert (told.window.views, told.window.overlap, told.window.min_motion) == (12, 9, 0.5)
    assert told.refine == "off" and told.mapping.camera_height == 0.5


def test_a_map_too_small_for_anything_is_the_users_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.yaml").write_text("mapping: {map: {max_map_bytes: 1000}}")
    assert main(["query", str(tmp_path / "map"), "chair", "--config", str(tmp_path / "small.yaml")]) == 2
    assert "ff3r: mapping.map.max_map_bytes = 1000 leaves no room for voxels" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        Pipeline.from_checkpoint(None, PipelineConfig.from_yaml(tmp_path / "small.yaml"))


@pytest.mark.parametrize(("refine", "refined"), [("auto", True), ("flow", True), ("off", False)])
def test_what_is_measured_is_what_the_file_asks_for(refine: str, refined: bool, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(f"refine: {refine}\nengine: {{torch: {{cache: {{keyframes: 3}}}}}}")
    subject = CheckpointUnderTest(device="cpu", config=PipelineConfig.from_yaml(tmp_path / "some.yaml"))
    assert (subject.refining is not None) == refined, "nano asks for it"
    assert subject.engine.config.cache.keyframes == 3


DEFAULTS = {
    ("reconstruct", "views"): WindowConfig.views,
    ("reconstruct", "overlap"): "half of the views",
    ("reconstruct", "min_motion"): WindowConfig.min_motion,
    ("export", "image_size"): "{} {}".format(*EngineConfig.image_size),
    ("export", "precision"): EngineConfig.precision,
    ("build-engine", "views"): WindowConfig.views,
    ("build-engine", "max_views"): EngineConfig.max_views,
    ("build-engine", "cache"): str(default_cache()).replace(str(Path.home()), "~"),
}


@pytest.mark.parametrize(("command", "option"), DEFAULTS)
def test_the_help_says_the_configuration_s_default(command: str, option: str) -> None:
    kind = COMMANDS[command]
    assert isinstance(kind, type) and kind.__dataclass_fields__[option].default is None  # type: ignore[attr-defined]
    said = re.search(r"--config, else (.+?)\.$", " ".join(field_docs(kind)[option].split()))
    assert said is not None and said[1] == str(DEFAULTS[command, option])


def test_the_defaults_of_training_are_its_settings() -> None:
    options = {found.name: found.default for found in dataclasses.fields(Train)}
    for found in dataclasses.fields(DataSources):
        assert options[found.name] == found.default, found.name
    assert f"{NEWCOMERS_MINUTES:g} if neither" in field_docs(Train)["minutes"]
    left = {"output", "minutes", "steps", "device", "resume"}
    left |= {found.name for found in dataclasses.fields(DataSources)}
    assert all(options[name] in (None, ()) for name in set(options) - left), "the settings' own stand where they are"


def test_help_needs_no_torch() -> None:
    code = "import sys\nfrom ff3r_model.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
    code += "print('torch' in sys.modules, 'cv2' in sys.modules, 'scipy' in sys.modules)"
    for name in ("", *COMMANDS):
        done = subprocess.run([sys.executable, "-c", code, *name.split(), "--help"], capture_output=True, text=True)
        assert done.stdout.endswith("False False False\n"), done.stdout + done.stderr
        assert "usage: ff3r" in done.stdout and (name or all(f"• {name}" in done.stdout for name in COMMANDS))
