"""The engine around the plans: same prediction as torch's, what it keeps, what it does when memory or plans fail.

The plans run in a stand-in of TensorRT on the CPU, whose arithmetic is onnxruntime's.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ff3r_model.core.types import Prediction, Window
from ff3r_model.engine import choose
from ff3r_model.engine.choose import EngineConfig, ExpectedWindow, FallbackEngine, make_engine, network_size, plan_key
from ff3r_model.engine.frame_cache import CacheConfig
from ff3r_model.engine.onnx.export import ExportConfig
from ff3r_model.engine.onnx.manifest import ExportError
from ff3r_model.engine.tensorrt.engine import TensorRTEngine, newest
from ff3r_model.engine.tensorrt.library import load_library
from ff3r_model.engine.tensorrt.plan_cache import obtain
from ff3r_model.engine.torch_engine import TorchConfig, TorchEngine
from ff3r_model.frames.prepare import plan_crop
from ff3r_model.frames.windows import WindowConfig
from ff3r_model.network import FF3R
from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint
from ff3r_model.pipeline import Pipeline, PipelineConfig
from tests.support import fake_tensorrt

CPU = torch.device("cpu")
USE = ExpectedWindow(views=4, long_side=84)
PICTURES = torch.rand(64, 3, 56, 84, generator=torch.Generator().manual_seed(5))


def window(*keyframes: int, intrinsics: bool = False) -> Window:
    known = torch.tensor([[70.0, 0, 42], [0, 70, 28], [0, 0, 1]]).expand(len(keyframes), 3, 3) if intrinsics else None
    return Window(PICTURES[list(keyframes)], keyframes, tuple(keyframes), known)


def network() -> FF3R:
    return load_checkpoint(NANO_WEIGHTS).network


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in, on a machine that seems to have an NVIDIA GPU."""
    fake = fake_tensorrt.module()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(choose, "is_nvidia", lambda device: True)
    monkeypatch.setattr(choose, "gpu_name", lambda device: "Fake (sm_00)")
    return fake


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, nano_export: Mapping[str, Path], tmp_path: Path) -> EngineConfig:
    """Plans in float32, of an export made before."""

    def ready(network: FF3R, config: ExportConfig, folder: Path) -> None:
        assert (config.height, config.width, config.precision) == (56, 84, "float32")
        folder.symlink_to(nano_export["float32"])

    monkeypatch.setattr(choose, "export", ready)
    return EngineConfig("tensorrt", image_size=(600, 400), precision="float32", cache=tmp_path, max_views=16)


def engine_of(config: EngineConfig) -> TensorRTEngine:
    made = make_engine(config, network(), CPU, USE, network)
    assert isinstance(made, FallbackEngine) and isinstance(made.engine, TensorRTEngine)
    return made.engine


def test_the_cache_of_frames_has_the_configured_bounds(trt: Any, config: EngineConfig) -> None:
    few = dataclasses.replace(config, torch=TorchConfig(cache=CacheConfig(keyframes=3)))
    assert engine_of(few).cache.config.keyframes == 3


def same(got: Prediction, expected: Prediction) -> None:
    pairs = [(got.cameras.camera_from_world, expected.cameras.camera_from_world)]
    pairs += [(got.depth, expected.depth), (got.depth_confidence, expected.depth_confidence)]
    pairs += [(vars(got.gaussians)[name], x) for name, x in vars(expected.gaussians).items()]
    assert got.descriptors is not None and expected.descriptors is not None
    pairs.append((got.descriptors, expected.descriptors))
    for a, b in pairs:
        assert a.shape == b.shape and float((a - b).norm() / b.norm()) < 1e-3


@pytest.mark.parametrize("intrinsics", [False, True])
def test_says_what_the_torch_engine_says(trt: Any, config: EngineConfig, intrinsics: bool) -> None:
    torch_engine, engine = TorchEngine(network()), engine_of(config)
    for keyframes in ((0, 1, 2, 3), (2, 3, 4, 5), (1, 9), tuple(range(7))):
        seen = window(*keyframes, intrinsics=intrinsics)
        same(engine(seen), torch_engine(seen))
    assert engine.cache.hits == 2 + 1 + 6, "views that stay are not encoded again"
    assert engine.dropped == 0


def test_a_prediction_outlives_the_next_window(trt: Any, config: EngineConfig) -> None:
    engine = engine_of(config)
    first = engine(window(0, 1, 2))
    kept = {name: tensor.clone() for name, tensor in vars(first.gaussians).items()} | {"depth": first.depth.clone()}
    engine(window(5, 6, 7))
    engine(window(7, 8, 9))
    assert torch.equal(first.depth, kept.pop("depth"))
    assert all(torch.equal(vars(first.gaussians)[name], tensor) for name, tensor in kept.items())


def test_memory_that_does_not_suffice_cuts_windows(
    trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(config)
    whole = engine(window(0, 1, 2, 3))
    assert whole.keyframes is None
    trt.faults.most_views = 6
    cut = engine(window(2, 3, 4, 5, 6, 7, 8, 9, 10))
    assert cut.keyframes == (2, 3, 7, 8, 9, 10) and len(cut.depth) == 6 and engine.dropped == 3
    same(cut, TorchEngine(network())(window(*cut.keyframes)))
    assert "out of memory with 9 views: windows are cut to 8" in caplog.text
    small = engine(window(9, 10, 11))
    assert small.keyframes is None
    assert engine(window(*range(11, 20))).keyframes == (11, 15, 16, 17, 18, 19)


def test_the_first_shortage_only_gives_up_what_is_kept(trt: Any, config: EngineConfig) -> None:
    """Cache and graphs go before views do."""
    engine = engine_of(config)
    engine(window(0, 1, 2, 3))
    run, failures = engine._window._run, [torch.OutOfMemoryError("once")]

    def once(views: int, inputs: Any) -> Any:
        if failures:
            raise failures.pop()
        return run(views, inputs)

    engine._window._run = once  # type: ignore[method-assign]
    assert engine(window(2, 3, 4, 5)).keyframes is None
    assert engine.limit is None and engine.cache.hits == 2


def test_two_views_that_do_not_fit_are_an_error(trt: Any, config: EngineConfig) -> None:
    engine = engine_of(config)
    trt.faults.most_views = 1
    with pytest.raises(torch.OutOfMemoryError):
        engine(window(0, 1, 2, 3))


@pytest.mark.parametrize(
    ("views", "known", "expected"),
    [
        (4, (), (4, 5, 6, 7)),
        (4, (0, 1, 2), (1, 2, 6, 7)),
        (4, (0, 1, 2, 3, 4, 5, 6), (4, 5, 6, 7)),
        (8, (0,), (0, 1, 2, 3, 4, 5, 6, 7)),
        (2, (0, 1), (1, 7)),
    ],
)
def test_the_newest_that_fit_and_some_that_tie(views: int, known: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert newest(window(*range(8)), views, known).keyframes == expected


def test_a_plan_is_found_the_next_time(trt: Any, config: EngineConfig) -> None:
    engine_of(config)
    assert trt.faults.builds == 2
    engine_of(dataclasses.replace(config, build=False))
    assert trt.faults.builds == 2


def falls_back(config: EngineConfig, caplog: pytest.LogCaptureFixture, *said: str) -> None:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        made = make_engine(config, network(), CPU, USE, network)
    assert isinstance(made, TorchEngine)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(all(part in text for part in (*said, "torch runs the network")) for text in warnings), warnings
    assert len(made(window(0, 1)).depth) == 2


def test_no_gpu(config: EngineConfig, caplog: pytest.LogCaptureFixture) -> None:
    falls_back(config, caplog, "the device is cpu", "needs an NVIDIA GPU")
    caplog.clear()
    made = make_engine(dataclasses.replace(config, kind="auto"), network(), CPU, USE, network)
    assert isinstance(made, TorchEngine)
    assert not caplog.records, "auto is content with torch where there is no GPU"


def test_no_tensorrt(
    trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    falls_back(config, caplog, "TensorRT is not installed")
    falls_back(dataclasses.replace(config, kind="auto"), caplog, "TensorRT is not installed", "docs/engines.md")


def test_no_plan_and_none_may_be_built(trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture) -> None:
    falls_back(dataclasses.replace(config, build=False), caplog, "no plan for nano-56x84-float32", "ff3r build-engine")


def test_a_plan_of_another_gpu(
    trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_of(config)
    monkeypatch.setattr(choose, "gpu_name", lambda device: "Other (sm_99)")
    falls_back(dataclasses.replace(config, build=False), caplog, "the GPU (was Fake (sm_00), is Other (sm_99)) changed")


def test_a_version_that_is_too_old(
    trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module(version="8.6.1"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    falls_back(config, caplog, "TensorRT 8.6.1 is too old")


def test_a_builder_that_fails(trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture) -> None:
    trt.faults.fail_build = True
    falls_back(config, caplog, "no tactic")


def test_an_export_that_cannot_be(
    trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ExportError("exporting needs more packages")

    monkeypatch.setattr(choose, "export", refuse)
    falls_back(config, caplog, "exporting needs more packages")


def test_a_corrupt_plan(trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture) -> None:
    engine_of(config)
    (plan,) = config.cache.glob("*/window.plan")  # type: ignore[union-attr]
    plan.write_bytes(plan.read_bytes()[:1000])
    falls_back(dataclasses.replace(config, build=False), caplog, "window.plan is damaged")
    engine_of(config)
    assert trt.faults.builds == 4, "built anew where that is allowed"


def test_a_plan_that_tensorrt_rejects_is_built_anew_once(
    trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    engine_of(config)
    trt.faults.reject_plans = 1
    engine_of(config)
    assert trt.faults.builds == 4 and "does not accept" in caplog.text
    trt.faults.reject_plans = 100
    falls_back(config, caplog, "does not accept")


def test_a_plan_that_fails_later_gives_way_to_torch(
    trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_engine(config, network(), CPU, USE, network)
    made(window(0, 1, 2))
    trt.faults.fail_runs = True
    same(made(window(2, 3, 4)), TorchEngine(network())(window(2, 3, 4)))
    assert "TensorRT is given up, torch runs the network from now on" in caplog.text
    trt.faults.fail_runs = False
    assert isinstance(made, FallbackEngine) and isinstance(made.engine, TorchEngine)


def test_images_of_another_shape_go_to_torch(trt: Any, config: EngineConfig, caplog: pytest.LogCaptureFixture) -> None:
    made = make_engine(config, network(), CPU, USE, network)
    other = Window(torch.rand(2, 3, 84, 56), (1, 2), (1, 2))
    assert made(other).depth.shape == (2, 84, 56)
    assert "the plan takes images of 56×84, not 84×56" in caplog.text


def test_the_plans_size_is_the_windows(trt: Any) -> None:
    for width, height in ((640, 480), (1280, 720), (480, 640), (848, 480)):
        crop = plan_crop(height, width, 112, 14)
        assert network_size((width, height), 112, 14) == (crop.height, crop.width)
    key = plan_key(EngineConfig(max_views=4), network(), load_library(), "gpu", ExpectedWindow(8, 112))
    assert (key.height, key.width, key.max_views) == (84, 112, 8)


def test_the_pipeline_goes_on_with_the_views_that_fit(
    trt: Any, config: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline.from_checkpoint(
        None, PipelineConfig(WindowConfig(views=4, overlap=2, long_side=84), dataclasses.replace(config))
    )
    trt.faults.most_views = 3
    assert isinstance(pipeline.engine, FallbackEngine)
    monkeypatch.setattr(pipeline.windows, "take", lambda flush: window(0, 1, 2, 3))
    update = pipeline.step()
    assert update is not None and update.window.keyframes == (1, 2, 3)
    assert pipeline.windows.dropped["out of memory"] == 1


def test_a_plan_is_not_built_while_one_is_there(trt: Any, config: EngineConfig, tmp_path: Path) -> None:
    """What `ff3r build-engine` made is what the node finds."""
    engine_of(config)
    library = load_library()
    key = plan_key(config, network(), library, "Fake (sm_00)", USE)

    def never(folder: Path) -> Path:
        raise AssertionError("there is a plan")

    assert obtain(tmp_path, key, library, never).manifest.weights == key.weights
