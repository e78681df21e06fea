"""A plan is compared with torch before it is used: right ones pass, wrong ones are refused with their figures, once."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.types import Cameras, Prediction
from ff3r_model.engine import choose
from ff3r_model.engine.choose import EngineConfig, ExpectedWindow, FallbackEngine, in_words, make_engine
from ff3r_model.engine.onnx.export import CONFIDENCE, DEPTH, GAUSSIANS, POSES
from ff3r_model.engine.tensorrt import plan_check
from ff3r_model.engine.tensorrt.engine import TensorRTEngine
from ff3r_model.engine.tensorrt.plan_check import VERDICT, compare, example_window
from ff3r_model.engine.torch_engine import TorchEngine
from ff3r_model.network import FF3R
from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint
from tests.support import fake_tensorrt

CPU = torch.device("cpu")
USE = ExpectedWindow(views=4, long_side=84)


@pytest.fixture(scope="module")
def nano() -> FF3R:
    return load_checkpoint(NANO_WEIGHTS).network


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, nano_export: Mapping[str, Path]) -> Any:
    """The stand-in, on a machine that seems to have an NVIDIA GPU, with an export made before."""
    fake = fake_tensorrt.module()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(choose, "is_nvidia", lambda device: True)
    monkeypatch.setattr(choose, "gpu_name", lambda device: "Fake (sm_00)")
    monkeypatch.setattr(choose, "export", lambda network, how, folder: folder.symlink_to(nano_export["float32"]))
    return fake


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    return EngineConfig("tensorrt", image_size=(600, 400), precision="float32", cache=tmp_path, max_views=16)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Views of every comparison."""
    counts: list[int] = []

    def counting(views: int, height: int, width: int) -> Any:
        counts.append(views)
        return example_window(views, height, width)

    monkeypatch.setattr(plan_check, "example_window", counting)
    return counts


def scaled(by: float, views: tuple[int, ...] = (0, 1, 2, 3)) -> Callable[[str, np.ndarray], np.ndarray]:
    """Depth of some views larger, as a wrong plan has it."""

    def distort(name: str, value: np.ndarray) -> np.ndarray:
        factors = np.where(np.isin(np.arange(len(value)), views), by, 1.0).astype(value.dtype)
        return value * factors.reshape(-1, *[1] * (value.ndim - 1)) if name == DEPTH else value

    return distort


def rounded(name: str, value: np.ndarray) -> np.ndarray:
    """Noise of bf16's size, half a unit in the last of eight places, on all outputs of the window."""
    noise = np.random.default_rng(0).standard_normal(value.shape).astype(value.dtype)
    return value * (1 + 2**-8 * noise) if name in (POSES, DEPTH, CONFIDENCE, GAUSSIANS) else value


def made(config: EngineConfig, nano: FF3R) -> Any:
    return make_engine(config, nano, CPU, USE, lambda: nano)


def test_an_exact_plan_is_used_and_compared_once(
    trt: Any, config: EngineConfig, nano: FF3R, compared: list[int], tmp_path: Path
) -> None:
    for _ in range(2):
        engine = made(config, nano)
        assert isinstance(engine, FallbackEngine) and isinstance(engine.engine, TensorRTEngine)
        assert engine.engine.cache.misses == len(engine.engine.cache) == 0, "of the comparison nothing is left"
        assert in_words(engine) == "TensorRT on cpu"
    assert compared == [4]
    (verdict,) = tmp_path.glob(f"*/{VERDICT}")
    assert json.loads(verdict.read_text())["depth"] < 1e-4


@pytest.mark.parametrize("views", [(0, 1, 2, 3), (2,)])
def test_a_wrong_scale_is_refused(
    trt: Any,
    config: EngineConfig,
    nano: FF3R,
    caplog: pytest.LogCaptureFixture,
    compared: list[int],
    views: tuple[int, ...],
) -> None:
    """Of all views, or of one."""
    trt.faults.distort = scaled(1.3, views)
    for _ in range(2):
        engine = made(config, nano)
        assert isinstance(engine, TorchEngine)
        assert "torch runs the network: the plan in" in caplog.text and "is refused" in caplog.text
        assert "depth 30.00%, scale of a view 30.00%" in caplog.text and "10.16.1 or later" in caplog.text
        assert "not TensorRT: the plan in" in in_words(engine)
        caplog.clear()
    assert compared == [4], "a refusal is remembered, too"
    assert trt.faults.builds == 2, "and the plan is not built again, which would help nothing"


def test_noise_of_half_precision_is_accepted(trt: Any, config: EngineConfig, nano: FF3R, tmp_path: Path) -> None:
    trt.faults.distort = rounded
    assert isinstance(made(dataclasses.replace(config, precision="float16"), nano), FallbackEngine)
    (verdict,) = tmp_path.glob(f"*float16/{VERDICT}")
    assert 1e-3 < json.loads(verdict.read_text())["depth"] < 0.02


def test_what_is_no_number_is_refused(
    trt: Any, config: EngineConfig, nano: FF3R, caplog: pytest.LogCaptureFixture
) -> None:
    trt.faults.distort = lambda name, value: value * np.float32("nan") if name == DEPTH else value
    assert isinstance(made(config, nano), TorchEngine) and "is refused" in caplog.text


def test_other_software_is_another_question(
    trt: Any, config: EngineConfig, nano: FF3R, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(config, nano)
    monkeypatch.setattr(choose, "driver_version", lambda: "another driver")
    made(config, nano)
    made(config, nano)
    assert compared == [4, 4]


def test_a_verdict_that_others_can_write_or_that_is_damaged_counts_for_nothing(
    trt: Any, config: EngineConfig, nano: FF3R, compared: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(config, nano)
    (verdict,) = tmp_path.glob(f"*/{VERDICT}")
    verdict.chmod(0o666)
    made(config, nano)
    verdict.write_text("{}")
    made(config, nano)
    assert compared == [4, 4, 4] and "is damaged" in caplog.text


def test_where_memory_is_short_a_smaller_window_is_compared(
    trt: Any, config: EngineConfig, nano: FF3R, compared: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    trt.faults.most_views = 3
    engine = made(config, nano)
    assert isinstance(engine, FallbackEngine) and isinstance(engine.engine, TensorRTEngine)
    assert compared == [4, 2] and engine.engine.limit is None
    trt.faults.most_views = 1
    for verdict in (config.cache or Path()).glob(f"*/{VERDICT}"):
        verdict.unlink()
    assert isinstance(made(config, nano), TorchEngine)
    assert "memory does not suffice to compare the plan with torch on 2 views" in caplog.text


def test_a_plan_that_fails_in_the_comparison(
    trt: Any, config: EngineConfig, nano: FF3R, caplog: pytest.LogCaptureFixture
) -> None:
    trt.faults.fail_runs = True
    assert isinstance(made(config, nano), TorchEngine) and "failed on 4 views" in caplog.text


def turned(prediction: Prediction, degrees: float, shift: float) -> Prediction:
    """The second camera turned about its own centre, and then moved."""
    poses = prediction.cameras.camera_from_world.clone()
    turn = torch.eye(4, dtype=poses.dtype)
    turn[:3, :3] = torch.from_numpy(Rotation.from_euler("y", degrees, degrees=True).as_matrix()).to(poses)
    turn[0, 3] = shift
    poses[1] = turn @ poses[1]
    cameras = Cameras(**{**vars(prediction.cameras), "camera_from_world": poses})
    return dataclasses.replace(prediction, cameras=cameras)


def test_figures_are_what_they_say(nano: FF3R) -> None:
    true = TorchEngine(nano)(example_window(3, 56, 84))
    nothing = compare(true, true)
    assert nothing.worst == 0 and nothing.accepted
    median = float(true.depth.median())
    moved = compare(turned(true, 0.0, 0.1 * median), true)
    assert moved.translation == pytest.approx(0.1, rel=1e-3) and moved.rotation < 1e-6 and moved.depth == 0
    turn = compare(turned(true, 5.0, 0.0), true)
    assert turn.rotation == pytest.approx(np.deg2rad(5), rel=1e-4) and not turn.accepted and turn.translation < 1e-5
    gaussians = dataclasses.replace(true.gaussians, features=1.02 * true.gaussians.features)
    assert compare(dataclasses.replace(true, gaussians=gaussians), true).features == pytest.approx(0.02, rel=1e-3)


def test_the_window_is_always_the_same_and_its_views_overlap() -> None:
    window = example_window(8, 56, 84)
    assert torch.equal(window.images, example_window(8, 56, 84).images)
    assert window.images.shape == (8, 3, 56, 84) and float(window.images.min()) >= 0 and float(window.images.max()) <= 1
    assert torch.equal(window.images[0][:, :, 21:], window.images[7][:, :, :-21])
    assert float(window.images.std()) > 0.1
