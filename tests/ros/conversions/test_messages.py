"""Messages about poses and masks against scipy and hand-counted grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.frames.calibration import calibration_from_info
from ff3r_model.frames.prepare import plan_crop
from ff3r_model.frames.stamps import nanoseconds_from_time
from ff3r_model.frames.used_camera import UsedCamera
from ff3r_model.voxel_map.occupancy_grid import Grid
from ff3r_model.voxel_map.queries import Mask, Query
from ff3r_ros.conversions import messages as conversions


def some_pose(seed: int) -> torch.Tensor:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    matrix[:3, 3] = np.random.default_rng(seed).normal(size=3)
    return torch.from_numpy(matrix).float()


def mask(indices: list[list[int]], scores: list[float]) -> Mask:
    return Mask(
        query=Query(7, "red chair", torch.zeros(4)),
        threshold=0.5,
        voxel_size=0.1,
        origin=torch.full((3,), -0.05),
        indices=torch.tensor(indices, dtype=torch.int32).reshape(-1, 3),
        scores=torch.tensor(scores),
        metric=True,
    )


@pytest.mark.parametrize("stamp", [0, 1, 1_700_000_000_123_456_789])
def test_times_survive(stamp: int) -> None:
    assert nanoseconds_from_time(conversions.time_from_nanoseconds(stamp)) == stamp


@pytest.mark.parametrize("seed", range(5))
def test_pose(seed: int) -> None:
    matrix = some_pose(seed)
    pose = conversions.pose_stamped(3, "map", matrix).pose
    position, q = pose.position, pose.orientation
    assert np.allclose([position.x, position.y, position.z], matrix[:3, 3])
    assert np.allclose(Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), matrix[:3, :3], atol=1e-6)


def test_covariance_is_row_major_and_huge_where_unknown() -> None:
    covariance = torch.arange(36.0).view(6, 6)
    message = conversions.pose_with_covariance(3, "map", some_pose(1), covariance)
    assert message.header.frame_id == "map" and message.pose.pose == conversions.pose_message(some_pose(1))
    assert list(message.pose.covariance) == list(range(36))
    for unknown in (None, covariance * torch.nan):
        variances = conversions.pose_with_covariance(3, "map", some_pose(1), unknown).pose.covariance
        assert np.array_equal(np.array(variances).reshape(6, 6), 1e6 * np.eye(6))


def test_camera_info_is_read_as_it_was_meant() -> None:
    camera = UsedCamera(640, 480, plan_crop(480, 640, 112, 14), None)
    with pytest.raises(ValueError, match="nobody knows"):
        conversions.camera_info(5, "optical", camera)
    found = camera.with_estimate(0.8, 0.02)
    message = conversions.camera_info(5, "optical", found)
    assert (message.width, message.height, message.header.frame_id) == (640, 480, "optical")
    read = calibration_from_info(message)
    assert read is not None and found.intrinsics is not None and read.intrinsics is not None
    torch.testing.assert_close(read.intrinsics, found.intrinsics.float())


def test_path_and_transform() -> None:
    poses = [(10, some_pose(1)), (2_000_000_020, some_pose(2))]
    path = conversions.path_message("map", poses)
    assert path.header.stamp.sec == 2 and path.header.frame_id == "map" and len(path.poses) == 2
    transform = conversions.transform_message(20, "map", "camera", poses[0][1])
    assert transform.child_frame_id == "camera" and transform.header.frame_id == "map"
    assert transform.transform.rotation.x == path.poses[0].pose.orientation.x
    assert conversions.path_message("map", []).poses == []


def test_mask_lists_its_voxels() -> None:
    message = conversions.mask_message(conversions.header(1, "map"), mask([[0, 1, 2], [-3, 4, -5]], [0.5, 1.0]))
    assert list(message.indices) == [0, 1, 2, -3, 4, -5] and list(message.scores) == [0.5, 1.0]
    assert (message.query_id, message.query, message.metric) == (7, "red chair", True)
    assert message.origin.x == pytest.approx(-0.05)


def test_grid_from_above() -> None:
    """Rows along y from the lower left corner, in ROS' order."""
    flat = Grid((0.15, -0.15), 0.1, torch.tensor([[90, -1, -1], [-1, 0, 100]], dtype=torch.int8))
    grid = conversions.grid_message(conversions.header(1, "map"), flat)
    assert (grid.info.width, grid.info.height) == (3, 2) and grid.info.origin.orientation.w == 1.0
    assert list(grid.data) == [90, -1, -1, -1, 0, 100]
    assert grid.info.resolution == pytest.approx(0.1)
    assert (grid.info.origin.position.x, grid.info.origin.position.y) == pytest.approx((0.15, -0.15))


def test_an_empty_grid() -> None:
    flat = Grid((0.0, 0.0), 0.1, torch.zeros(0, 0, dtype=torch.int8))
    grid = conversions.grid_message(conversions.header(1, "map"), flat)
    assert len(grid.data) == 0 and grid.info.width == 0 and grid.info.height == 0


def test_query_list() -> None:
    message = conversions.query_list(conversions.header(1, "map"), [(1, "door", 0), (4, "plant", 12)], 16)
    assert [(query.id, query.text, query.voxels) for query in message.queries] == [(1, "door", 0), (4, "plant", 12)]
    assert message.max_queries == 16
