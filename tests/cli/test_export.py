"""`ff3r export` and `ff3r build-engine`: options, summaries and one-line errors. What they call is tested elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ff3r_model.cli import main
from ff3r_model.engine import device
from ff3r_model.engine.onnx import export as onnx_export
from ff3r_model.engine.onnx.export import ExportConfig
from ff3r_model.engine.onnx.manifest import Graph, Manifest
from ff3r_model.network import FF3R
from ff3r_model.network.checkpoint import NANO_WEIGHTS
from tests.engine.test_plan_cache import export_to
from tests.support import fake_tensorrt


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in of TensorRT, on a machine that seems to have an NVIDIA GPU."""
    fake = fake_tensorrt.module()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(device, "is_nvidia", lambda device: True)
    monkeypatch.setattr(device, "gpu_name", lambda device: "Fake (sm_00)")
    return fake


def test_export_takes_the_cameras_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[ExportConfig] = []

    def note(network: FF3R, config: ExportConfig, folder: Path) -> Manifest:
        asked.append(config)
        folder.mkdir()
        (folder / "frames.onnx").write_bytes(bytes(1_500_000))
        graph = Graph((), ())
        return Manifest(
            network.config.name, "0" * 64, config.height, config.width, "float32", "fused", 23, graph, graph
        )

    monkeypatch.setattr(onnx_export, "export", note)
    options = ["--image-size", "1280", "720", "--precision", "float32", "--attention", "decomposed"]
    assert main(["export", str(NANO_WEIGHTS), "--out", str(tmp_path / "onnx"), *options]) == 0
    assert asked == [ExportConfig(56, 98, "float32", "decomposed")]
    assert f"{tmp_path}/onnx: nano, images of 98x56" in capsys.readouterr().out
    (tmp_path / "some.yaml").write_text(
        "window: {long_side: 56}\nengine: {image_size: [1280, 720], precision: float32}"
    )
    filed = ["--config", str(tmp_path / "some.yaml")]
    assert main(["export", str(NANO_WEIGHTS), "-o", str(tmp_path / "two"), *filed]) == 0
    assert main(["export", str(NANO_WEIGHTS), "-o", str(tmp_path / "three"), *filed, "--precision", "float16"]) == 0
    assert main(["export", str(NANO_WEIGHTS), "-o", str(tmp_path / "four")]) == 0
    assert asked[1:] == [
        ExportConfig(28, 56, "float32", "fused"),
        ExportConfig(28, 56, "float16", "fused"),
        ExportConfig(84, 112, "float16", "fused"),
    ]


def test_build_engine_shows_progress_and_where_the_plan_is(
    trt: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "onnx").mkdir()
    export_to(tmp_path / "onnx")
    command = ["build-engine", str(tmp_path / "onnx"), "--cache", str(tmp_path / "cache"), "--views", "16"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"{tmp_path}/cache/nano-56x84-float32: TensorRT 10.14.1.48 on Fake (sm_00)" in said.out
    assert "window: Building 100%" in said.err
    assert main(command) == 0 and trt.faults.builds == 2, "found the second time"
    (tmp_path / "some.yaml").write_text(f"window: {{views: 16}}\nengine: {{cache: {tmp_path}/cache}}")
    filed = ["build-engine", str(tmp_path / "onnx"), "--config", str(tmp_path / "some.yaml")]
    assert main(filed) == 0 and trt.faults.builds == 2, "the file says the same"
    assert main([*filed, "--views", "4"]) == 0 and trt.faults.builds == 4, "options go before it"


def test_a_device_that_is_none_is_one_line(trt: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_to(tmp_path)
    assert main(["build-engine", str(tmp_path), "--device", "toaster"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ff3r: device 'toaster'") and said.count("\n") == 1


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build-engine", str(tmp_path)]) == 2
    assert "does not describe an export" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), "-o", str(tmp_path / "onnx")]) == 2
    assert "is not there" in capsys.readouterr().err
    long = ["--image-size", "1000", "100"]
    assert main(["export", str(NANO_WEIGHTS), "-o", str(tmp_path / "onnx"), *long]) == 2
    assert "longer than 1:4" in capsys.readouterr().err


def test_without_a_gpu_nothing_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module())
    export_to(tmp_path)
    assert main(["build-engine", str(tmp_path), "--device", "cpu"]) == 2
    assert "ff3r: the device is cpu: a plan is made on the machine that runs it" in capsys.readouterr().err
