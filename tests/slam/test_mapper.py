"""The mapper in a corridor that comes back to where it began, on oracle windows: nothing here hangs on a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from ff3r_model.core.geometry import transform_points, unproject
from ff3r_model.core.types import Prediction, Window
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.keyframe_archive import ArchiveConfig
from ff3r_model.slam.mapper import Mapper, MapUpdate
from ff3r_model.slam.place_recognition import LoopConfig
from ff3r_model.slam.pose_graph import GraphConfig
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise
from ff3r_model.synthetic.sequences import Sequence
from ff3r_model.voxel_map.config import MapConfig
from ff3r_model.voxel_map.file import MapFileError
from tests.support.ring_world import ate, path, ring

CHANNELS, VOXEL = 16, 0.15
CONFIG = MappingConfig(map=MapConfig(voxel_size=VOXEL, max_map_bytes=32 * 2**20, initial_rows=1024))
LAP = 106
"""Frames of one round."""


@cache
def world() -> Sequence:
    """A round and a fifth."""
    return ring(path(1.2))


@cache
def oracle(noise: OracleNoise) -> OracleEngine:
    return OracleEngine(world(), noise, channels=CHANNELS)


def run(
    engine: Callable[[Window], Prediction],
    frames: Iterable[int],
    config: MappingConfig = CONFIG,
    mapper: Mapper | None = None,
    measured: bool = False,
) -> tuple[Mapper, list[MapUpdate]]:
    """Windows of eight of these frames, half of them shared."""
    mapper, index = mapper or Mapper(engine, CHANNELS, config), list(frames)
    windows = [world().window(index[start : start + 8], measured) for start in range(0, len(index) - 4, 4)]
    return mapper, [mapper.place(window, engine(window)) for window in windows if len(window.keyframes) > 4]


@cache
def closed() -> tuple[Mapper, list[MapUpdate]]:
    return run(oracle(OracleNoise.realistic()), range(len(world())))


def without_loops(config: MappingConfig = CONFIG) -> MappingConfig:
    return replace(config, loops=LoopConfig(enabled=False))


def test_exact_windows_make_an_exact_map() -> None:
    mapper, updates = run(oracle(OracleNoise()), range(48))
    assert all(update.accepted and not update.reason and update.submap == 0 for update in updates)
    assert ate(world(), list(mapper.trajectory())) < 1e-3


def test_a_loop_halves_the_error_and_says_that_the_map_moved() -> None:
    mapper, updates = closed()
    assert any(update.corrected and "loop closed" in update.reason for update in updates)
    assert list(mapper.submaps) == [0]
    apart, _ = run(oracle(OracleNoise.realistic()), range(len(world())), without_loops())
    open_error, closed_error = (ate(world(), list(each.trajectory())) for each in (apart, mapper))
    assert open_error > 0.2, "there is drift to correct"
    assert closed_error < 0.5 * open_error
    assert updates[-1].map_from_camera[-1].allclose(list(mapper.trajectory())[-1][1], atol=1e-4)


def test_voxels_poses_and_archive_move_together() -> None:
    mapper, _ = closed()
    poses = dict(zip(mapper.map.keyframes.ids, (pose for _, pose in mapper.trajectory()), strict=True))
    cells = {tuple(cell) for cell in mapper.map.cells().tolist()}
    hits: list[float] = []
    for frame in list(mapper._atlas.archive.frames.values())[::10]:
        assert frame.map_from_camera.allclose(poses[frame.keyframe], atol=1e-4)
        points = unproject(frame.depth.float()[None] * frame.unit, frame.intrinsics[None]).flatten(1, 2)
        seen = (transform_points(frame.map_from_camera[None], points)[0] / VOXEL).round().int()
        around = [[tuple((cell + step).tolist()) in cells for step in torch.eye(3).int()] for cell in seen[::7]]
        hits += [float(any(found)) for found in around]
    assert sum(hits) / len(hits) > 0.6


def test_places_that_only_look_alike_are_refused() -> None:
    noise = replace(OracleNoise.realistic(), false_matches=0.5)
    most = range(90)
    eager = replace(CONFIG, loops=LoopConfig(recent=8, every=1))
    mapper, updates = run(OracleEngine(world(), noise, channels=CHANNELS), most, eager)
    assert mapper._loops.places.joint_windows > 3, "descriptors did propose places"
    assert not any(update.corrected for update in updates)
    apart, _ = run(mapper.engine, most, without_loops())
    for (_, pose), (_, other) in zip(mapper.trajectory(), apart.trajectory(), strict=True):
        assert torch.equal(pose, other)


def test_a_kidnapped_camera_makes_two_submaps_that_become_one() -> None:
    engine = oracle(OracleNoise.realistic())
    mapper, before = run(engine, range(48))
    first = mapper.map
    mapper, after = run(engine, range(76, len(world())), mapper=mapper)
    assert "submap 1 begins, apart from 0: the window shares no keyframe" in after[0].reason
    assert after[0].accepted and after[0].submap == 1 and before[-1].submap == 0
    joined = [update for update in after if "submap 1 joined to 0" in update.reason]
    assert len(joined) == 1 and joined[0].corrected and joined[0].submap == 0
    assert list(mapper.submaps) == [0] and mapper.map is first
    assert ate(world(), list(mapper.trajectory())) < 0.35
    assert len(list(mapper.trajectory())) == 48 + len(world()) - 76


class Torn:
    """An engine that gives noise for depth in the first half of the windows that begin at certain frames."""

    def __init__(self, engine: OracleEngine, *torn: int, factor: float = 1.0) -> None:
        self.engine, self.torn, self.factor = engine, torn, factor

    def __call__(self, window: Window) -> Prediction:
        prediction = self.engine(window)
        if window.keyframes[0] not in self.torn:
            return prediction
        depth = prediction.depth * self.factor
        depth[:4] *= torch.randn(depth[:4].shape, generator=torch.Generator().manual_seed(0)).mul(1.5).exp()
        return replace(prediction, depth=depth)


def test_a_window_that_does_not_fit_begins_a_submap_of_its_new_frames() -> None:
    engine = Torn(oracle(OracleNoise()), 16)
    mapper, updates = run(engine, range(32), replace(CONFIG, patience=0))
    assert [update.submap for update in updates] == [0, 0, 0, 0, 1, 1, 1]
    assert all(update.accepted for update in updates)
    assert "submap 1 begins, apart from 0: " in updates[4].reason and "%" in updates[4].reason
    assert [stamp for stamp, _ in mapper.active.trajectory()] == list(world().stamps[20:32])
    assert ate(world(), list(mapper.active.trajectory())) < 1e-3


def test_what_is_shown_stays_until_the_new_submap_is_joined() -> None:
    engine, frames = oracle(OracleNoise.realistic()), list(range(76, len(world())))
    mapper, _ = run(engine, range(48))
    first, before = mapper.map, mapper.map.gaussians().means
    for start in range(0, len(frames) - 4, 4):
        window = world().window(frames[start : start + 8])
        update = mapper.place(window, engine(window))
        if not update.apart:
            break
        assert update.accepted and (update.shown, update.submap) == (0, 1) == mapper.numbers
        assert mapper.map is first and first.gaussians().means.equal(before) and mapper.active is not first
    assert start > 0 and "submap 1 joined to 0" in update.reason and update.corrected
    assert mapper.map is first is mapper.active and len(first) > len(before)


def test_a_new_submap_is_shown_once_it_has_more_keyframes() -> None:
    mapper, before = run(oracle(OracleNoise()), range(12), without_loops())
    mapper, after = run(mapper.engine, range(40, 64), mapper=mapper)
    assert [len(each.keyframes) for each in mapper.submaps.values()] == [12, 24]
    assert [update.shown for update in before + after] == [0, 0, 0, 0, 1, 1, 1], "12 keyframes are no more than 12"
    assert [update.corrected for update in after] == [False, False, True, False, False]
    assert mapper.map is mapper.active and mapper.numbers == (1, 1)


def test_a_map_in_metres_gives_way_to_none_without() -> None:
    mapper, _ = run(oracle(OracleNoise.realistic()), range(20), without_loops(), measured=True)
    assert mapper.map.metric and mapper.why_unscaled() == ""
    mapper, after = run(mapper.engine, range(40, 72), mapper=mapper)
    assert [update.shown for update in after] == [0] * 7 and mapper.map.metric
    mapper, after = run(mapper.engine, range(76, 104), mapper=mapper, measured=True)
    assert after[-1].shown == after[-1].submap == 2 and mapper.map.metric


def test_the_map_that_is_shown_is_not_forgotten_for_others() -> None:
    """Small parts leave the room that they do not need to it, and go before it."""
    config = replace(without_loops(), max_submaps=2, map=replace(CONFIG.map, max_map_bytes=900_000))
    mapper, _ = run(oracle(OracleNoise()), range(48), config)
    shown, full = mapper.map, len(mapper.map)
    for start in (60, 70, 80, 90):
        run(mapper.engine, range(start, start + 8), mapper=mapper)
        assert mapper.map is shown and mapper.nbytes <= 900_000
    assert len(shown) > 0.7 * full and len(mapper.submaps) == 2


def test_the_best_part_of_a_file_is_shown(tmp_path: Path) -> None:
    mapper, _ = run(oracle(OracleNoise()), range(24), without_loops())
    mapper, _ = run(mapper.engine, range(60, 72), mapper=mapper)
    mapper.save(tmp_path / "lost")
    loaded = Mapper(mapper.engine, CHANNELS, without_loops())
    loaded.load(tmp_path / "lost")
    assert loaded.numbers == (0, 0) and len(loaded.map) == len(mapper.map)
    _, after = run(mapper.engine, range(60, 72), mapper=loaded)
    assert [(update.shown, update.submap) for update in after] == [(0, 2), (0, 2)]


@pytest.mark.parametrize(("factor", "reason"), [(1.0, "%"), (math.nan, "only 0 pixels")])
def test_one_window_may_be_left_out_before_that(factor: float, reason: str) -> None:
    engine = Torn(oracle(OracleNoise()), 16, factor=factor)
    mapper, updates = run(engine, range(20))
    assert all(update.accepted for update in updates)
    bad = world().window(list(range(16, 24)))
    left_out = mapper.place(bad, engine(bad))
    assert not left_out.accepted and left_out.submap == 0 and reason in left_out.reason
    again = world().window([16, 17, 18, 19, 24, 25, 26, 27])
    assert mapper.place(again, oracle(OracleNoise())(again)).accepted
    assert list(mapper.submaps) == [0]


def test_a_window_without_any_depth_begins_nothing() -> None:
    mapper, updates = run(Torn(oracle(OracleNoise()), 0, 4, factor=math.nan), range(16))
    assert [update.accepted for update in updates] == [False, False, True]
    assert "only 0 pixels" in updates[0].reason
    assert list(mapper.submaps) == [0]


def test_all_there_is_stays_below_the_cap() -> None:
    cap = 700_000
    config = replace(CONFIG, map=replace(CONFIG.map, max_map_bytes=cap), archive_share=0.3)
    engine = oracle(OracleNoise())
    mapper, submaps = Mapper(engine, CHANNELS, config), set()
    index = [*range(40), *range(60, 84), *range(84, len(world()))]
    for part in (index[:40], index[40:]):
        for start in range(0, len(part) - 4, 4):
            window = world().window(part[start : start + 8])
            mapper.place(window, engine(window))
            submaps.add(len(mapper.submaps))
            assert mapper.nbytes <= cap
    assert submaps == {1, 2}
    assert mapper.nbytes > 0.6 * cap
    assert len(mapper._atlas.archive) < len(index), "the archive had to forget"


def test_the_graph_keeps_its_share_however_few_windows_that_are() -> None:
    """More recent windows than the share has room for are merged too."""
    graph = GraphConfig(keep_recent=50)
    config = replace(CONFIG, map=replace(CONFIG.map, max_map_bytes=400_000), graph=graph, graph_share=0.03)
    mapper = Mapper(oracle(OracleNoise()), CHANNELS, config)
    for window in world().windows():
        mapper.place(window, mapper.engine(window))
        assert mapper.nbytes <= 400_000
    assert len(dict(mapper.trajectory())) > 0


def test_a_cap_below_any_map_is_refused() -> None:
    with pytest.raises(ValueError, match="max_map_bytes"):
        Mapper(oracle(OracleNoise()), CHANNELS, replace(CONFIG, map=replace(CONFIG.map, max_map_bytes=1000)))


def test_a_saved_map_goes_on_once_a_place_is_recognised(tmp_path: Path) -> None:
    engine = oracle(OracleNoise.realistic())
    mapper, _ = run(engine, range(48))
    file = tmp_path / "map.safetensors"
    mapper.save(file)
    later = Mapper(engine, CHANNELS, CONFIG)
    later.load(file)
    assert later.map.gaussians().means.equal(mapper.map.gaussians().means)
    assert later._atlas.active.graph.nodes.keys() == mapper._atlas.active.graph.nodes.keys()
    assert all(key < 0 for key in later.map.keyframes.ids), "no frame of this process has these ids"
    _, updates = run(engine, range(84, len(world())), mapper=later)
    assert updates[0].submap == 1 and "file" in updates[0].reason
    assert any("joined to 0" in update.reason for update in updates)
    assert list(later.submaps) == [0]
    assert ate(world(), list(later.trajectory())) < 0.35


def test_other_submaps_are_in_the_file_too(tmp_path: Path) -> None:
    engine = oracle(OracleNoise())
    mapper, _ = run(engine, range(24))
    mapper, _ = run(engine, range(60, 84), mapper=mapper)
    mapper.save(tmp_path / "two")
    loaded = Mapper(engine, CHANNELS, CONFIG)
    loaded.load(tmp_path / "two")
    assert {n: len(each) for n, each in loaded.submaps.items()} == {n: len(each) for n, each in mapper.submaps.items()}
    assert len(loaded._atlas.archive) == len(mapper._atlas.archive)
    loaded.save(tmp_path / "again")
    with pytest.raises(MapFileError, match="16 channels, not 8"):
        Mapper(engine, 8, CONFIG).load(tmp_path / "two")


def test_measured_depth_makes_the_map_metric_and_fixes_the_scale() -> None:
    engine = oracle(OracleNoise.realistic())
    mapper, updates = run(engine, range(60), without_loops(), measured=True)
    assert mapper.map.metric and mapper.map.scale.source == "depth images"
    assert any(update.corrected for update in updates), "when it became metric"
    centres = torch.stack([pose[:3, 3] for _, pose in mapper.trajectory()])
    length = float(centres.diff(dim=0).norm(dim=1).sum())
    truth = world().select(list(range(60))).path_length
    assert length == pytest.approx(truth, rel=0.15), "path of noisy poses"
    free, _ = run(engine, range(60), without_loops())
    assert not free.map.metric
    assert ate(world(), list(mapper.trajectory())) < ate(world(), list(free.trajectory())) + 0.05
    up = torch.stack([pose[:3, 1] for _, pose in mapper.trajectory()])
    assert float((-up[:, 2]).min()) > math.cos(math.radians(4)), "gravity keeps every camera upright"


def test_old_windows_are_merged_and_nothing_is_lost() -> None:
    config = replace(CONFIG, graph=GraphConfig(max_windows=10, keep_recent=4), archive=ArchiveConfig(max_frames=30))
    mapper, _ = run(oracle(OracleNoise()), range(len(world())), config)
    graph = mapper._atlas.active.graph
    assert len(graph) <= 10
    assert len(mapper._atlas.archive) <= 30
    assert set(mapper.map.rows.anchors.tolist()) <= set(graph.nodes)
    assert {frame.node.window for frame in mapper._atlas.archive.frames.values()} <= set(graph.nodes)
    assert ate(world(), list(mapper.trajectory())) < 0.01


def test_merged_windows_move_together_when_a_loop_is_closed() -> None:
    """Keyframes of windows that are no nodes any more follow those that stand in for them."""
    config = replace(CONFIG, graph=GraphConfig(max_windows=12, keep_recent=4))
    mapper, updates = run(oracle(OracleNoise.realistic()), range(len(world())), config)
    assert any("loop closed" in update.reason for update in updates)
    nodes, poses = mapper._atlas.active.graph.nodes, dict(mapper.trajectory())
    for frame in mapper._atlas.archive.frames.values():
        assert nodes[frame.node.window] is frame.node
        assert frame.map_from_camera.allclose(poses[frame.stamp], atol=1e-4)
    open_end, _ = run(oracle(OracleNoise.realistic()), range(len(world())), without_loops(config))
    assert ate(world(), list(mapper.trajectory())) < 0.6 * ate(world(), list(open_end.trajectory()))


def test_a_metric_submap_makes_the_one_that_it_joins_metric() -> None:
    engine = oracle(OracleNoise.realistic())
    mapper, _ = run(engine, range(48))
    assert not mapper.map.metric
    before = dict(mapper.trajectory())
    mapper, after = run(engine, range(76, len(world())), mapper=mapper, measured=True)
    assert any("submap 1 joined to 0" in update.reason for update in after)
    assert mapper.map.metric and mapper.map.scale.source == "depth images"
    now = dict(mapper.trajectory())
    lengths = [torch.stack([poses[stamp][:3, 3] for stamp in list(before)]) for poses in (before, now)]
    units = [float(each.diff(dim=0).norm(dim=1).sum()) for each in lengths]
    assert units[1] == pytest.approx(world().select(list(range(48))).path_length, rel=0.25), f"was {units[0]:.2f}"
    for frame in mapper._atlas.archive.frames.values():
        assert frame.submap == 0
        assert frame.map_from_camera.allclose(now[frame.stamp], atol=1e-4)
    depths = [frame.unit for frame in mapper._atlas.archive.frames.values()]
    truth = [float(world().depth[world().stamps.index(stamp)].median()) for stamp in now]
    assert sum(depths) / len(depths) == pytest.approx(sum(truth) / len(truth), rel=0.3)
