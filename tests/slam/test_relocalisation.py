"""A lost camera is found where it was before, and nowhere else; older windows of the same place hold a map together."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ff3r_model.core.types import Prediction, Window
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.mapper import Mapper, MapUpdate
from ff3r_model.slam.place_recognition import LoopConfig
from ff3r_model.slam.refinement.matching import MANY, elsewhere
from ff3r_model.slam.relocalisation import torn
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise
from ff3r_model.synthetic.sequences import Sequence
from ff3r_model.voxel_map.config import MapConfig
from tests.support.ring_world import ate, path, ring
from tests.support.tracked_engine import TrackedEngine

CHANNELS = 16
CONFIG = MappingConfig(map=MapConfig(voxel_size=0.15, max_map_bytes=64 * 2**20, initial_rows=1024))
LAP = 106
"""Frames of one round: those after it see what the first ones saw."""


@cache
def world() -> Sequence:
    return ring(path(1.4))


@cache
def engine() -> TrackedEngine:
    return TrackedEngine(OracleEngine(world(), OracleNoise(), channels=CHANNELS), world())


def run(
    frames: Iterable[int], mapper: Mapper | None = None, config: MappingConfig = CONFIG
) -> tuple[Mapper, list[MapUpdate]]:
    """Windows of eight of these frames, half of them shared."""
    mapper, index = mapper or Mapper(engine(), CHANNELS, config), list(frames)
    windows = [world().window(index[start : start + 8]) for start in range(0, len(index) - 4, 4)]
    return mapper, [mapper.place(window, engine()(window)) for window in windows if len(window.keyframes) > 4]


def test_a_lost_camera_is_found_where_it_was_before(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    mapper, _ = run(range(32))
    # Carried on unseen, to where the second round sees what the first one saw.
    _, updates = run(range(LAP + 8, LAP + 28), mapper)
    first = updates[0]
    assert first.accepted and first.submap == first.shown == 0 and not first.apart
    assert first.relocalised is not None and first.relocalised < 32
    assert first.reason == f"relocalised in part 0 against keyframe {first.relocalised}" in caplog.messages
    assert all(update.relocalised is None and update.submap == 0 for update in updates[1:])
    assert list(mapper.submaps) == [0] and ate(world(), list(mapper.trajectory())) < 0.02
    graph = mapper._atlas.active.graph
    assert any(b == 7 and a < 7 for (a, b), edge in graph.edges.items() if not edge.loop), "tied to what told"


def test_a_place_that_was_never_seen_is_a_part_of_its_own() -> None:
    mapper, _ = run(range(32))
    _, updates = run(range(56, 76), mapper)
    assert "submap 1 begins" in updates[0].reason and updates[0].relocalised is None
    assert list(mapper.submaps) == [0, 1]
    # Back where it was, and lost once more: in the old part again, though another is active.
    _, updates = run(range(LAP + 8, LAP + 20), mapper)
    assert updates[0].relocalised is not None and updates[0].submap == 0
    assert ate(world(), list(mapper.map.trajectory())) < 0.02
    assert set(mapper.submaps) == {0, 1} and mapper.nbytes < CONFIG.map.max_map_bytes


def test_nothing_is_looked_for_where_loops_are_off() -> None:
    mapper, _ = run(range(24), config=replace(CONFIG, loops=LoopConfig(enabled=False)))
    _, updates = run(range(LAP + 8, LAP + 16), mapper)
    assert updates[0].relocalised is None and updates[0].submap == 1


def test_a_saved_map_goes_on_where_it_is_seen_again(tmp_path: Path) -> None:
    mapper, _ = run(range(32))
    mapper.save(tmp_path / "map.safetensors")
    later = Mapper(engine(), CHANNELS, CONFIG)
    later.load(tmp_path / "map.safetensors")
    _, updates = run(range(LAP + 8, LAP + 24), later)
    assert updates[0].relocalised is not None and list(later.submaps) == [0]
    assert ate(world(), list(later.trajectory())) < 0.02


def test_older_windows_of_the_place_are_tied_to_the_newest() -> None:
    """What the nearest old windows say makes edges of the graph, and asks no network."""

    def predict(window: Window) -> Prediction:
        raise AssertionError("no joint window was to be asked for")

    mapper = Mapper(predict, CHANNELS, replace(CONFIG, loops=LoopConfig(likeness=1.0)))
    index = [*range(20), *range(LAP + 19, LAP, -1)]  # there, and back on the second round
    windows = [world().window(list(index[start : start + 8])) for start in range(0, len(index) - 8, 4)]
    updates = [mapper.place(window, engine()(window)) for window in windows]
    assert any(edge.loop for edge in mapper._atlas.active.graph.edges.values())
    assert not any(edge.loop and abs(a - b) < 3 for (a, b), edge in mapper._atlas.active.graph.edges.items())
    assert all(update.accepted and update.submap == 0 for update in updates)


def test_a_window_of_two_places_is_no_bridge() -> None:
    quality = engine()(world().window([0, 1, 2, 3, 4, 5, 6, 7])).quality
    assert quality is not None
    fresh = torch.arange(4, 8)
    assert not torn(quality, fresh) and not torn(None, fresh)
    assert torn(replace(quality, registered=(False,) * 4 + (True,) * 4), fresh)
    assert not torn(replace(quality, registered=(False,) * 6 + (True,) * 2), fresh), "two views prove nothing"
    assert not torn(replace(quality, registered=(True,) * 8), torch.arange(8)), "none of it is known"
    known_alone = replace(quality, registered=(True,) * 4 + (False,) * 4)
    assert not torn(known_alone, fresh), "walls without texture are tied to nothing"
    assert torn(replace(known_alone, elsewhere=(False,) * 4 + (True,) * 4), fresh)


def test_views_that_only_each_other_tie_are_elsewhere() -> None:
    def matches(count: int) -> np.ndarray:
        return np.zeros((count, 2), np.int64)

    registered = np.array([True, True, False, False, False, False])
    pairs = {(0, 1): matches(90), (2, 3): matches(MANY), (3, 4): matches(MANY)}
    assert elsewhere(pairs, registered) == (False, False, True, True, True, False)
    assert not any(elsewhere(pairs | {(1, 4): matches(15)}, registered)), "few matches may tie them to the others"
    assert not any(elsewhere({(0, 1): matches(90), (2, 3): matches(MANY - 1)}, registered))


def test_a_window_of_two_places_is_left_out_of_the_map() -> None:
    mapper, _ = run(range(24))
    window = world().window([20, 21, 22, 23, 60, 61, 62, 63])
    predicted = engine()(window)
    assert predicted.quality is not None
    quality = replace(predicted.quality, registered=(False,) * 4 + (True,) * 4)
    points = predicted.points_seen
    assert points is not None
    update = mapper.place(window, replace(predicted, quality=quality, points_seen=None))
    assert not update.accepted and "nothing ties what the new views show" in update.reason
    _, updates = run(range(20, 32), mapper)
    assert all(each.accepted and each.submap == 0 for each in updates), "and the next goes on from where it was"
