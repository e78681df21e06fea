"""The whole story in one object: its stages in order, and windows taken back when one of them fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ff3r_model
from ff3r_model import FrameRejected, Pipeline, PipelineConfig, open_source
from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Frame, Prediction, Window
from ff3r_model.engine.torch_engine import TorchEngine
from ff3r_model.frames.windows import WindowConfig
from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.reference.scale import ScaleConfig
from ff3r_model.slam.refinement.optical_flow import refine_prediction
from ff3r_model.slam.refinement.track_refinement import TrackRefinement
from ff3r_model.voxel_map import MapConfig, MapFileError
from tests.support.fake_engine import DIM, FakeEngine, FakeText, camera_x, noise

SECOND = 1_000_000_000
WINDOWS = WindowConfig(views=4, overlap=2, long_side=56, min_motion=0.0, max_keyframe_rate=float("inf"))
CONFIG = PipelineConfig(window=WINDOWS, mapping=MappingConfig(map=MapConfig(voxel_size=0.1)))


def pipeline(engine: Callable[[Window], Prediction], config: PipelineConfig = CONFIG) -> Pipeline:
    return Pipeline(engine, FakeText(), TextSpace(torch.eye(DIM)), config)


def film(pipeline: Pipeline, first: int, last: int) -> None:
    for second in range(first, last):
        pipeline.add(Frame(torch.from_numpy(noise(second)), (second + 1) * SECOND))


def test_the_package_has_a_face() -> None:
    assert ff3r_model.Pipeline is Pipeline and ff3r_model.open_source is open_source
    assert issubclass(FrameRejected, ValueError)
    with pytest.raises(AttributeError, match="Pipelines"):
        ff3r_model.Pipelines  # noqa: B018


def test_a_window_that_raises_is_rolled_back() -> None:
    engine = FakeEngine()
    ours = pipeline(engine)
    film(ours, 0, 4)
    assert ours.step().accepted
    engine.fail.append(RuntimeError("the network trips"))
    film(ours, 4, 6)
    with pytest.raises(RuntimeError, match="trips"):
        ours.step()
    film(ours, 6, 8)
    update = ours.step()
    assert update.accepted, update.reason
    assert update.window.keyframes[:2] == (2, 3), "the views shared with the last window in the map"
    assert len(ours.mapper.submaps) == 1


def test_status_is_what_the_pipeline_holds() -> None:
    ours = pipeline(FakeEngine(), replace(CONFIG, mapping=replace(CONFIG.mapping, camera_height=0.5)))
    empty = ours.status()
    assert (empty.pending, empty.voxels, empty.queries, dict(empty.dropped)) == (0, 0, 0, {})
    assert not empty.metric and empty.scale_source == "none"
    film(ours, 0, 4)
    with pytest.raises(FrameRejected, match="backwards"):
        film(ours, 0, 1)
    assert ours.status().pending == 4 and dict(ours.status().dropped) == {"time went backwards": 1}
    ours.step()
    for second in range(4, 14, 2):
        film(ours, second, second + 2)
        ours.step()
    ours.queries.add("door")
    full = ours.status()
    assert full.voxels == len(ours.map) > 0 and full.map_bytes == ours.mapper.nbytes > 0 == full.pending
    assert full.metric and full.scale_source == ours.map.scale.source != "none" and full.queries == 1
    assert empty.voxels == 0 and not empty.metric, "a snapshot"


def test_a_failing_map_rolls_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = pipeline(FakeEngine())
    film(ours, 0, 4)
    ours.step()
    with monkeypatch.context() as patch:
        patch.setattr(ours.mapper, "place", lambda *_: 1 / 0)
        film(ours, 4, 6)
        with pytest.raises(ZeroDivisionError):
            ours.step()
    film(ours, 6, 8)
    assert ours.step().window.keyframes[:2] == (2, 3)


def test_a_map_is_refused_by_other_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = pipeline(FakeEngine())
    film(ours, 0, 4)
    ours.step()
    ours.save(tmp_path / "map")
    again = pipeline(FakeEngine())
    again.load(tmp_path / "map")
    assert len(again.map) == len(ours.map) and not caplog.messages
    other = Pipeline(FakeEngine(), FakeText(), TextSpace(2 * torch.eye(DIM)), CONFIG)
    film(other, 0, 4)
    other.step()
    before = len(other.map)
    with pytest.raises(MapFileError, match="made with another checkpoint"):
        other.load(tmp_path / "map")
    assert len(other.map) == before, "the running map stays"
    ours.mapper.save(tmp_path / "old")
    other.load(tmp_path / "old")
    assert any("does not tell which checkpoint" in message for message in caplog.messages)


def test_a_loaded_map_knows_the_focal_length(tmp_path: Path) -> None:
    config = replace(CONFIG, refine="tracks")
    ours, again = pipeline(FakeEngine(), config), pipeline(FakeEngine(), config)
    for focal in (0.70, 0.72, 0.71):
        ours.refinement.tracks.belief.recall(focal, 0.05)
    ours.save(tmp_path / "map")
    assert again.status().focal == 0
    again.load(tmp_path / "map")
    assert again.status().focal == pytest.approx(ours.status().focal, rel=0.005)
    assert again.status().focal_sigma == pytest.approx(ours.status().focal_sigma, rel=0.05)
    film(again, 0, 1)
    assert again.camera.estimated and again.status().camera == again.camera.described("-")
    # Another camera than the map's.
    for _ in range(3):
        again.refinement.tracks.belief.recall(1.3, 0.05)
    assert again.status().focal == pytest.approx(1.3, rel=0.05)


def test_refinement_follows_the_network() -> None:
    checkpoint = load_checkpoint(NANO_WEIGHTS)
    images = torch.stack([torch.from_numpy(noise(second, 42, 56)) for second in range(3)]).permute(0, 3, 1, 2) / 255
    window = Window(images, (0, 1, 2), (0, 1, 2))
    alone = TorchEngine(checkpoint.network)(window)
    wanted = {"off": alone, "flow": refine_prediction(alone, window), "tracks": TrackRefinement()(alone, window)}
    for refine, settled in (("off", "off"), ("auto", "tracks"), ("tracks", "tracks"), ("flow", "flow")):
        ours = Pipeline.from_checkpoint(config=PipelineConfig(refine=refine))
        got, want = ours.predict(window), wanted[settled]
        torch.testing.assert_close(got.cameras.camera_from_world, want.cameras.camera_from_world)
        torch.testing.assert_close(got.gaussians.means, want.gaussians.means)
        assert ours.config.refine == settled and ours.config.tracks.gaps == "flow", "nano asks for it"


def test_sensors_take_over_by_the_configured_scale() -> None:
    def halved(window: Window) -> Prediction:
        return FakeEngine()(window)

    def measured(second: int) -> Frame:
        pose = torch.eye(4)
        pose[0, 3] = 3 * camera_x((second + 1) * SECOND)
        return Frame(torch.from_numpy(noise(second)), (second + 1) * SECOND, odom_from_camera=pose)

    def camera_x_of(config: ScaleConfig) -> float:
        ours = pipeline(halved, replace(CONFIG, geometry="sensor", mapping=replace(CONFIG.mapping, scale=config)))
        for second in range(4):
            ours.add(measured(second))
        prediction = ours.predict(ours.windows.take())
        return float(invert_rigid(prediction.cameras.camera_from_world)[-1, 0, 3])

    moved = camera_x(4 * SECOND) - camera_x(SECOND)
    assert camera_x_of(ScaleConfig()) == pytest.approx(3 * moved, rel=1e-4)
    far = replace(ScaleConfig(), min_baseline=100.0)
    assert camera_x_of(far) == pytest.approx(moved, rel=1e-4), "the baseline is too short for what is configured"
