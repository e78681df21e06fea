"""The scale ladder against windows whose true size is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ff3r_model.core.geometry import BODY_FROM_OPTICAL
from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.slam.reference.depth_scale import scale_from_depth
from ff3r_model.slam.reference.scale import (
    DEPTH,
    HEIGHT,
    LEARNED,
    ODOMETRY,
    ScaleConfig,
    ScaleLadder,
    better,
    scale_from_odometry,
)
from ff3r_model.synthetic.hall import CAMERA_HEIGHT, PITCH, hall_tour, make_hall
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise
from ff3r_model.synthetic.sequences import Sequence, room_sequence


@pytest.fixture(scope="module")
def hall() -> Sequence:
    return room_sequence(make_hall(0, 60.0), hall_tour(60.0, 0.5)[:60], width=56)


def observed(hall: Sequence, ladder: ScaleLadder, what: set[str], unit: float, count: int = 5) -> ScaleLadder:
    """Show windows to a ladder, placed in a map whose unit is `unit` metres long."""
    engine = OracleEngine(hall, OracleNoise.realistic())
    for index, full in enumerate(hall.windows(measured=True)):
        if index == count:
            break
        window = replace(full, **{name: None for name in ("depth", "odom_from_camera") if name not in what})
        prediction = engine(window)
        truth = float((hall.depth[list(window.keyframes)] / prediction.depth).median())
        if "learned" in what:
            prediction = replace(prediction, metres_per_unit=1.06 * truth)
        ladder.observe(window, prediction, Similarity(truth / unit, level()))
    return ladder


def level() -> torch.Tensor:
    """The camera looks down a little; the map's z points up."""
    pitch = torch.deg2rad(torch.tensor(-PITCH))
    turn = torch.tensor([[pitch.cos(), 0, pitch.sin()], [0, 1, 0], [-pitch.sin(), 0, pitch.cos()]])
    return turn @ BODY_FROM_OPTICAL


@pytest.mark.parametrize(
    ("what", "height", "source", "within"),
    [
        ({"depth", "odom_from_camera"}, CAMERA_HEIGHT, DEPTH, 0.02),
        ({"odom_from_camera"}, CAMERA_HEIGHT, ODOMETRY, 0.05),
        (set(), CAMERA_HEIGHT, HEIGHT, 0.08),
        ({"odom_from_camera", "learned"}, None, ODOMETRY, 0.05),
        ({"learned"}, CAMERA_HEIGHT, HEIGHT, 0.08),
        ({"learned"}, None, LEARNED, 0.07),
    ],
)
def test_the_best_source_there_is_gives_the_scale(
    hall: Sequence, what: set[str], height: float | None, source: str, within: float
) -> None:
    best = observed(hall, ScaleLadder(camera_height=height), what, unit=1.7).best
    assert best is not None
    assert best.source == source
    assert best.factor == pytest.approx(1.7, rel=within)
    assert best.confidence >= 0.5


def test_nothing_to_measure_by_is_no_scale(hall: Sequence) -> None:
    assert observed(hall, ScaleLadder(), set(), 1.0).best is None
    assert observed(hall, ScaleLadder(), {"depth"}, 1.0, count=2).best is None, "two windows are too few"


def test_a_better_source_takes_over(hall: Sequence) -> None:
    ladder = observed(hall, ScaleLadder(), {"odom_from_camera"}, 2.0)
    assert ladder.best is not None and ladder.best.source == ODOMETRY
    best = observed(hall, ladder, {"depth"}, 2.0).best
    assert best is not None and best.source == DEPTH
    assert better(DEPTH, ODOMETRY) and better(HEIGHT, "none") and not better(HEIGHT, DEPTH)


def test_a_source_that_contradicts_itself_is_not_believed(hall: Sequence) -> None:
    ladder = ScaleLadder()
    for unit in (0.5, 1.0, 2.0, 4.0, 8.0):
        observed(hall, ladder, {"depth"}, unit, count=1)
    estimate = ladder.estimate(DEPTH)
    assert estimate is not None and estimate.confidence == pytest.approx(0.2)
    assert ladder.best is None


def test_rescaling_the_map_rescales_what_was_seen(hall: Sequence) -> None:
    ladder = observed(hall, ScaleLadder(), {"depth"}, 3.0)
    before = ladder.best
    ladder.transform(Similarity(3.0))
    after = ladder.best
    assert before is not None and after is not None
    assert after.factor == pytest.approx(before.factor / 3)


def exact(depth: torch.Tensor | None, odometry: torch.Tensor | None, hall: Sequence) -> tuple[Window, Prediction]:
    window = replace(hall.window([0, 1, 2, 3]), depth=depth, odom_from_camera=odometry)
    return window, OracleEngine(hall)(window)


def test_outliers_and_holes_of_the_sensor_do_no_harm(hall: Sequence) -> None:
    depth = hall.depth[:4].clone()
    depth[:, :10] = 0
    depth[:, 10:16] *= 7
    window, prediction = exact(depth, None, hall)
    truth = float((hall.depth[:4] / prediction.depth).median())
    assert scale_from_depth(window, prediction, 0.05) == pytest.approx(truth, rel=1e-4)
    assert scale_from_depth(replace(window, depth=depth * 0), prediction, 0.05) is None


def test_odometry_needs_a_baseline_and_survives_gaps(hall: Sequence) -> None:
    poses = hall.world_from_camera[:4].clone()
    window, prediction = exact(None, poses.clone(), hall)
    truth = float((hall.depth[:4] / prediction.depth).median())
    assert scale_from_odometry(window, prediction, 0.2) == pytest.approx(truth, rel=1e-4)
    assert scale_from_odometry(window, prediction, 5.0) is None
    poses[1] = torch.nan
    assert scale_from_odometry(replace(window, odom_from_camera=poses), prediction, 0.2) == pytest.approx(
        truth, rel=1e-4
    )
    poses[1:] = torch.nan
    assert scale_from_odometry(replace(window, odom_from_camera=poses), prediction, 0.2) is None
    ladder = ScaleLadder(ScaleConfig(windows=1))
    assert ladder.window_scale(window, prediction) == pytest.approx(truth, rel=1e-4)


def test_what_a_source_lacks_is_said(hall: Sequence) -> None:
    assert observed(hall, ScaleLadder(), set(), 1.0).shortcomings() == []
    few = observed(hall, ScaleLadder(camera_height=CAMERA_HEIGHT), {"depth"}, 1.0, count=1)
    assert few.shortcomings() == [
        "depth images: 3 windows with depth in 5% of their pixels are needed, so far 1",
        "camera height: 3 windows that see the floor are needed, so far 1",
    ]
    at_odds = ScaleLadder()
    for unit in (0.5, 1.0, 2.0, 4.0, 8.0):
        observed(hall, at_odds, {"depth"}, unit, count=1)
    assert at_odds.shortcomings() == ["depth images: 20% of 5 windows agree within 10%, 50% must"]
    assert observed(hall, ScaleLadder(), {"depth"}, 1.0).shortcomings() == []
