"""Frames wait for their depth, their pose and their up, and never for ever."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.types import Frame
from ff3r_model.frames.sensor_sync import SensorSynchronizer, SyncConfig
from ff3r_model.frames.transforms import TransformBuffer
from tests.support.messages import Message, header, image_message, quaternion, transform_message, vector

SECOND = 10**9
HEIGHT, WIDTH = 12, 16


def frame(seconds: float) -> Frame:
    return Frame(torch.zeros(HEIGHT, WIDTH, 3, dtype=torch.uint8), int(seconds * SECOND), camera_name="camera")


def depth_message(seconds: float, metres: float = 2.0, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Message:
    return image_message(int(seconds * SECOND), "16UC1", np.full(shape, metres * 1000, np.uint16))


class Station:
    """A synchroniser and what came out of it."""

    def __init__(self, **config: object) -> None:
        self.frames: list[Frame] = []
        self.warnings: list[str] = []
        self.transforms = TransformBuffer()
        self.sync = SensorSynchronizer(
            SyncConfig(**config),  # type: ignore[arg-type]
            self.transforms,
            lambda frame, arrival: self.frames.append(frame),
            self.warnings.append,
        )


def test_frames_that_need_nothing_pass_at_once() -> None:
    station = Station()
    station.sync.take_frame(frame(1.0), arrival=0.0)
    assert len(station.frames) == 1 and station.frames[0].depth is None and not station.warnings


def test_a_frame_waits_for_its_own_depth() -> None:
    station = Station(use_depth=True)
    station.sync.take_depth(depth_message(0.9, metres=1.0))
    station.sync.take_frame(frame(1.0), arrival=0.0)
    assert not station.frames
    station.sync.take_depth(depth_message(1.01, metres=3.0))
    station.sync.pump(0.05)
    assert station.frames[0].depth is not None and torch.allclose(station.frames[0].depth, torch.tensor(3.0))


def test_waiting_ends_and_is_counted() -> None:
    station = Station(use_depth=True, odom_frame="odom", max_wait=0.3)
    station.sync.take_frame(frame(1.0), arrival=0.0)
    station.sync.pump(0.29)
    assert not station.frames
    station.sync.pump(0.31)
    assert len(station.frames) == 1 and station.frames[0].depth is None
    assert station.sync.missing == {"no depth image": 1, "no odometry": 1}
    assert any("nobody publishes odom" in text for text in station.warnings)


def test_order_is_kept_while_one_waits() -> None:
    station = Station(use_depth=True)
    station.sync.take_frame(frame(1.0), arrival=0.0)
    station.sync.take_depth(depth_message(1.1))
    station.sync.take_frame(frame(1.1), arrival=0.1)
    assert not station.frames
    station.sync.pump(0.35)
    assert [f.stamp for f in station.frames] == [SECOND, int(1.1 * SECOND)]


def test_poses_are_those_of_the_images_time_and_odometry_says_where_up_is() -> None:
    station = Station(odom_frame="odom")
    mount = torch.eye(4, dtype=torch.float64)
    mount[:3, :3] = torch.from_numpy(Rotation.from_euler("x", -90, degrees=True).as_matrix())  # optical on a body
    station.transforms.add([transform_message(0, "base", "camera", mount)], static=True)
    for second in (1, 2):
        pose = torch.eye(4, dtype=torch.float64)
        pose[0, 3] = 4.0 * second
        station.transforms.add([transform_message(second * SECOND, "odom", "base", pose)])
    station.sync.take_frame(frame(1.25), arrival=0.0)
    found = station.frames[0]
    assert found.odom_from_camera is not None and found.up is not None
    assert float(found.odom_from_camera[0, 3]) == pytest.approx(5.0)
    assert torch.allclose(found.up, torch.tensor([0.0, -1, 0]), atol=1e-6)


def imu(rotation: Rotation | None) -> Message:
    return Message(
        header=header(0, "imu"),
        orientation=quaternion(rotation or Rotation.identity()),
        orientation_covariance=[-1.0 if rotation is None else 0.0] * 9,
        linear_acceleration=vector((9.81, 0, 0) if rotation is None else (0, 0, 0)),
    )


def test_an_imu_says_where_up_is() -> None:
    tilt = Rotation.from_euler("xyz", [20, -35, 70], degrees=True)
    turn = Rotation.from_euler("zyx", [30, 10, 50], degrees=True)
    mounted = torch.eye(4, dtype=torch.float64)
    mounted[:3, :3] = torch.from_numpy(turn.as_matrix())
    for rotation, up_in_imu in ((tilt, tilt.inv().apply([0, 0, 1])), (None, np.array([1.0, 0, 0]))):
        station = Station(use_imu=True)
        station.transforms.add([transform_message(0, "camera", "imu", mounted)], static=True)
        station.sync.take_imu(imu(rotation))
        station.sync.take_frame(frame(1.0), arrival=0.0)
        expected = torch.from_numpy(turn.apply(up_in_imu)).float()
        assert station.frames[0].up is not None and torch.allclose(station.frames[0].up, expected, atol=1e-6)


def test_depth_of_another_size_is_resized_and_of_another_shape_refused() -> None:
    station = Station(use_depth=True, max_wait=0.0)
    station.sync.take_depth(depth_message(1.0, shape=(HEIGHT // 2, WIDTH // 2)))
    station.sync.take_frame(frame(1.0), arrival=0.0)
    assert station.frames[0].depth is not None and station.frames[0].depth.shape == (HEIGHT, WIDTH)
    station.sync.take_depth(depth_message(2.0, shape=(HEIGHT, WIDTH // 2)))
    station.sync.take_frame(frame(2.0), arrival=1.0)
    assert station.frames[1].depth is None and "must be registered" in station.sync.why


def test_what_is_no_depth_image_is_counted_and_said_once() -> None:
    station = Station(use_depth=True)
    message = depth_message(1.0)
    message.encoding = "rgb8"
    for _ in range(3):
        station.sync.take_depth(message)
    assert station.sync.missing["depth image: unknown encoding"] == 3
    assert len(station.warnings) == 1 and "16UC1" in station.warnings[0]


def test_nothing_waits_without_bound() -> None:
    station = Station(use_depth=True, max_wait=math.inf)
    for index in range(1000):
        station.sync.take_frame(frame(1.0 + index), arrival=0.0)
    assert len(station.frames) == 1000 - 256


def test_after_a_jump_back_old_depth_is_forgotten() -> None:
    station = Station(use_depth=True)
    station.sync.take_depth(depth_message(1.0))
    station.sync.clear()
    station.sync.take_frame(frame(1.0), arrival=0.0)
    assert not station.frames
