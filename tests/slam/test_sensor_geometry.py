"""Sensor geometry in place of a network's that is wrong in every way the oracle knows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import invert_rigid, quaternion_to_matrix
from ff3r_model.core.types import Prediction, SparsePoints, Window, WindowQuality
from ff3r_model.slam.reference.scale import ScaleConfig
from ff3r_model.slam.refinement.sensor_geometry import use_sensor_geometry
from ff3r_model.synthetic.hall import hall_tour, make_hall
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise
from ff3r_model.synthetic.sequences import Sequence, room_sequence

INDEX = list(range(6))


@pytest.fixture(scope="module")
def hall() -> Sequence:
    return room_sequence(make_hall(0, 60.0), hall_tour(60.0, 0.5)[:8], width=56)


@pytest.fixture
def case(hall: Sequence) -> tuple[Window, Prediction]:
    window = hall.window(INDEX, measured=True)
    return window, OracleEngine(hall, OracleNoise.realistic(0.1))(window)


def truth(hall: Sequence) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses in the first camera's frame, and the points of all pixels there, metres."""
    first_from_camera = invert_rigid(hall.world_from_camera[:1]) @ hall.world_from_camera[INDEX]
    points = OracleEngine(hall)(hall.window(INDEX)).gaussians.means
    scale = float((OracleEngine(hall)(hall.window(INDEX)).depth / hall.depth[INDEX]).median())
    return first_from_camera, points / scale


def test_depth_and_odometry_make_it_exact(hall: Sequence, case: tuple[Window, Prediction]) -> None:
    window, prediction = case
    corrected = use_sensor_geometry(prediction, window, ScaleConfig())
    poses, points = truth(hall)
    torch.testing.assert_close(invert_rigid(corrected.cameras.camera_from_world), poses, atol=1e-4, rtol=0)
    torch.testing.assert_close(corrected.depth, hall.depth[INDEX])
    torch.testing.assert_close(corrected.gaussians.means, points, atol=1e-3, rtol=0)
    assert torch.equal(corrected.cameras.camera_from_world[0], torch.eye(4))
    assert torch.equal(corrected.gaussians.features, prediction.gaussians.features), "semantics stay ours"
    assert torch.equal(corrected.gaussians.opacities, prediction.gaussians.opacities)
    footprint = hall.depth[INDEX].flatten() / hall.intrinsics[0, 0] / 2
    torch.testing.assert_close(corrected.gaussians.scales[:, 0], footprint, rtol=1e-3, atol=0)


def test_predicted_geometry_is_left_alone(case: tuple[Window, Prediction]) -> None:
    window, prediction = case
    blind = replace(window, depth=None, odom_from_camera=None)
    assert use_sensor_geometry(prediction, blind, ScaleConfig()) is prediction, "nothing was measured"


def test_where_the_sensor_is_blind_the_network_fills_in_at_its_size(
    hall: Sequence, case: tuple[Window, Prediction]
) -> None:
    window, _ = case
    prediction = OracleEngine(hall)(window)
    depth = hall.depth[INDEX].clone()
    depth[:, :, :20] = 0
    depth[2] = 0
    corrected = use_sensor_geometry(prediction, replace(window, depth=depth), ScaleConfig())
    torch.testing.assert_close(corrected.depth, hall.depth[INDEX], rtol=1e-4, atol=1e-4)
    uneven = replace(prediction, depth=prediction.depth * torch.linspace(0.8, 1.2, len(INDEX))[:, None, None])
    corrected = use_sensor_geometry(uneven, replace(window, depth=depth, odom_from_camera=None), ScaleConfig())
    seeing = [0, 1, 3, 4, 5]
    torch.testing.assert_close(corrected.depth[seeing], hall.depth[INDEX][seeing], rtol=1e-4, atol=1e-4)
    confident = corrected.depth_confidence[0]
    assert float(confident[:, 20:].min()) >= float(confident[:, :20].max())


def test_views_without_odometry_keep_their_place_beside_those_with(
    hall: Sequence, case: tuple[Window, Prediction]
) -> None:
    window, prediction = case
    exact = OracleEngine(hall)(window)
    odometry = hall.world_from_camera[INDEX].clone()
    odometry[[0, 3]] = torch.nan
    poses, _ = truth(hall)
    corrected = use_sensor_geometry(exact, replace(window, odom_from_camera=odometry), ScaleConfig())
    torch.testing.assert_close(invert_rigid(corrected.cameras.camera_from_world), poses, atol=1e-4, rtol=0)
    corrected = use_sensor_geometry(prediction, replace(window, odom_from_camera=odometry), ScaleConfig())
    found = invert_rigid(corrected.cameras.camera_from_world)
    relative, expected = (invert_rigid(each[1:2]) @ each[[2, 4, 5]] for each in (found, poses))
    torch.testing.assert_close(relative, expected, atol=1e-4, rtol=0)
    assert float((found[3, :3, 3] - poses[3, :3, 3]).norm()) < 0.15


def test_odometry_alone_gives_the_size(hall: Sequence, case: tuple[Window, Prediction]) -> None:
    window, _ = case
    corrected = use_sensor_geometry(OracleEngine(hall)(window), replace(window, depth=None), ScaleConfig())
    torch.testing.assert_close(corrected.depth, hall.depth[INDEX], rtol=1e-3, atol=0)


def test_points_and_errors_of_tracks_follow_the_size_and_go_with_their_poses(
    case: tuple[Window, Prediction],
) -> None:
    window, prediction = case
    count = len(window.keyframes)
    none = torch.zeros(0, dtype=torch.int64)
    points = SparsePoints(torch.ones(4, 3), none, none, none, torch.zeros(0, 2))
    quality = WindowQuality(3.0, (True,) * count, 0.4, 5.0, torch.ones(count, 6, 6, dtype=torch.float64), 0.8, 0.0)
    tracked = replace(prediction, points_seen=points, quality=quality)
    sized = use_sensor_geometry(tracked, replace(window, odom_from_camera=None), ScaleConfig())
    centres = [invert_rigid(each.cameras.camera_from_world)[-1, :3, 3].norm() for each in (sized, prediction)]
    metres = float(centres[0] / centres[1])
    assert sized.points_seen is not None and sized.quality is not None and abs(metres - 1) > 0.01
    torch.testing.assert_close(sized.points_seen.positions, metres * points.positions)
    spread = sized.quality.pose_covariance[0]
    assert [float(spread[at]) for at in ((0, 0), (0, 5), (5, 5))] == pytest.approx([metres**2, metres, 1])
    driven = use_sensor_geometry(tracked, window, ScaleConfig())
    assert driven.points_seen is None and driven.quality is None


def test_gaussians_turn_with_their_cameras(hall: Sequence, case: tuple[Window, Prediction]) -> None:
    """One long Gaussian per pixel that points along the camera's x keeps pointing along it."""
    window, prediction = case
    old = invert_rigid(prediction.cameras.camera_from_world)[:, :3, :3]
    count = prediction.depth[0].numel()
    wxyz = torch.tensor(Rotation.from_matrix(old.double().numpy()).as_quat()).float()[:, [3, 0, 1, 2]]
    gaussians = replace(prediction.gaussians, quaternions=wxyz.repeat_interleave(count, 0))
    corrected = use_sensor_geometry(replace(prediction, gaussians=gaussians), window, ScaleConfig())
    axes = quaternion_to_matrix(corrected.gaussians.quaternions)[::count, :, 0]
    expected = invert_rigid(corrected.cameras.camera_from_world)[:, :3, 0]
    torch.testing.assert_close(axes, expected, atol=1e-4, rtol=0)
