"""Up in the map: from what sensors say, from the floor, from the camera."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import BODY_FROM_OPTICAL, compose, rigid
from ff3r_model.core.types import Similarity
from ff3r_model.slam.mapper import Mapper
from ff3r_model.slam.reference.floor import turn_towards
from ff3r_model.slam.reference.gravity import UP, Gravity, GravityConfig, measured_up
from ff3r_model.synthetic.hall import hall_tour, make_hall
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise
from ff3r_model.synthetic.sequences import Sequence, room_sequence


@pytest.fixture(scope="module")
def hall() -> Sequence:
    """A camera that looks down and is held askew."""
    turn = torch.tensor(Rotation.from_euler("xz", [12, 6], degrees=True).as_matrix()).float()
    poses = hall_tour(60.0, 0.5)[:24]
    askew = poses @ rigid(turn, torch.zeros(3))
    return room_sequence(make_hall(0, 60.0), askew, width=56)


def true_up(hall: Sequence, first: int) -> torch.Tensor:
    """In the window's frame, the first camera's."""
    return hall.world_from_camera[first, :3, :3].T @ torch.tensor([0.0, 0.0, 1.0])


def degrees(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.degrees(math.acos(min(1.0, float(a @ b) / float(a.norm() * b.norm()))))


def placed_as_held(hall: Sequence, first: int) -> Similarity:
    """map_from_window where the map began as camera 0 was held."""
    return Similarity(
        1.0, BODY_FROM_OPTICAL @ (hall.world_from_camera[0, :3, :3].T @ hall.world_from_camera[first, :3, :3])
    )


def test_noise_and_gaps_in_what_is_measured(hall: Sequence) -> None:
    window = hall.window(list(range(8)), measured=True)
    assert window.up is not None
    noisy = window.up + 0.05 * torch.randn(window.up.shape, generator=torch.Generator().manual_seed(0))
    noisy[2:4] = torch.nan
    prediction = OracleEngine(hall)(window)
    up = measured_up(replace(window, up=noisy), prediction)
    assert up is not None
    assert degrees(up, true_up(hall, 0)) < 3
    assert measured_up(replace(window, up=noisy * torch.nan), prediction) is None
    assert measured_up(replace(window, up=None), prediction) is None
    contradicting = window.up.clone()
    contradicting[::2] *= -1
    assert measured_up(replace(window, up=contradicting), prediction) is None


def test_without_a_sensor_the_floor_turns_the_map_once(hall: Sequence) -> None:
    gravity, engine = Gravity(), OracleEngine(hall, OracleNoise.realistic())
    turns = []
    for window in hall.windows(8, 4):
        turn = gravity.observe(window, engine(window), placed_as_held(hall, window.keyframes[0]))
        turns += [] if turn is None else [turn]
    assert len(turns) == 1 and gravity.source == "floor"
    before = BODY_FROM_OPTICAL @ true_up(hall, 0)
    assert degrees(before, UP) > 5
    assert degrees(turns[0].rotation @ before, UP) < 2
    assert float(turns[0].translation.norm()) == 0 and turns[0].scale == 1.0


def test_a_sensor_that_comes_late_overrules_the_floor(hall: Sequence) -> None:
    gravity, engine = Gravity(GravityConfig(floors=1)), OracleEngine(hall)
    blind, seeing = (hall.window(list(range(8)), measured=measured) for measured in (False, True))
    prediction, placed = engine(blind), placed_as_held(hall, 0)
    gravity.observe(blind, prediction, placed)
    assert gravity.source == "floor"
    turn = gravity.observe(seeing, prediction, placed)
    assert gravity.source == "measured" and turn is not None
    assert degrees(turn.rotation @ placed.rotation @ true_up(hall, 0), UP) < 0.1
    assert gravity.observe(seeing, prediction, placed) is None, "once"
    assert Gravity().observe(seeing, prediction, compose(turn, placed)) is None, "what stands upright is not turned"


def test_a_floor_is_not_looked_for_for_ever(hall: Sequence) -> None:
    gravity, window = Gravity(GravityConfig(floors=3, tries=2)), hall.window(list(range(8)))
    prediction = OracleEngine(hall)(window)
    for _ in range(5):
        assert gravity.observe(window, prediction, placed_as_held(hall, 0)) is None
    assert gravity.source == "camera"


@pytest.mark.parametrize("measured", [True, False])
def test_the_whole_map_turns(hall: Sequence, measured: bool) -> None:
    """Voxels, path and graph alike: after the turn the next windows still fit, and the corridor's floor is level."""
    mapper = Mapper(OracleEngine(hall), 16)
    updates = []
    for window in hall.windows(8, 4):
        up = window.up if not measured or window.keyframes[0] < 8 else hall.window(list(window.keyframes), True).up
        updates.append(mapper.place(replace(window, up=up), mapper.engine(window)))
    assert all(update.accepted for update in updates)
    assert [update.corrected for update in updates].count(True) == 1
    poses = dict(mapper.trajectory())
    for index in (0, 12, 23):
        up = poses[hall.stamps[index]][:3, :3] @ true_up(hall, index)
        assert degrees(up, UP) < (0.2 if measured else 2)
    heights = torch.stack([pose[2, 3] for pose in poses.values()])
    assert float(heights.std()) < 0.1 * float(torch.stack([pose[0, 3] for pose in poses.values()]).std())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_turning_one_vector_towards_another(seed: int) -> None:
    a, b = torch.nn.functional.normalize(torch.tensor(np.random.default_rng(seed).normal(size=(2, 3))).float(), dim=1)
    turn = turn_towards(a, b)
    torch.testing.assert_close(turn @ a, b, atol=1e-5, rtol=0)
    assert np.degrees(Rotation.from_matrix(turn.double().numpy()).magnitude()) == pytest.approx(degrees(a, b), abs=0.1)
    torch.testing.assert_close(turn_towards(a, -a) @ a, -a, atol=1e-5, rtol=0)
