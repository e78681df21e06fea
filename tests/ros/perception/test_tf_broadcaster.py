"""The map's place in TF, over DDS: with odometry, without, and where somebody else places the camera."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ff3r_model.frames.transforms import TransformBuffer
from ff3r_ros.conversions.messages import header, transform_message
from tests.support.fake_engine import SPEED
from tests.support.robot import SECOND, START, Robot
from tests.support.ros import Ros, wait_until

MOUNT = torch.eye(4, dtype=torch.float64)
MOUNT[:3, :3] = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # optical axes on a body, REP-103
MOUNT[2, 3] = 0.5


@pytest.fixture
def ros() -> Iterator[Ros]:
    ros = Ros()
    yield ros
    ros.close()


def odom_from_base(second: float) -> torch.Tensor:
    """Where wheels say the robot is: it slides to its right as the fake scene wants, and started elsewhere."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([3.0, 2.0 - 0.5 * SPEED * second, 0.0])
    return pose


def film(robot: Robot, odometry: object, windows: int) -> None:
    for window in range(windows):
        first, last = (0, 4) if window == 0 else (2 + 2 * window, 4 + 2 * window)
        for second in range(first, last):
            stamp = START + second * SECOND
            if odometry is not None:
                odometry.publish(
                    TFMessage(transforms=[transform_message(stamp, "odom", "base", odom_from_base(second))])
                )
            robot.film(second, second + 1)
        robot.wait_for("windows", str(window + 1))


def test_with_odometry_the_map_is_placed_over_odom(ros: Ros) -> None:
    robot = Robot(ros, camera_height=0.5, odom_frame="odom").activate()
    heard = ros.collect(TFMessage, "/tf", 100)
    tf, static = ros.publisher(TFMessage, "/tf", 100, 2), robot.node.session.transforms
    static.add([transform_message(0, "base", "optical", MOUNT)], static=True)
    film(robot, tf, windows=5)

    def ours() -> list[TFMessage]:
        return [message for message in heard if message.transforms[0].child_frame_id == "odom"]

    wait_until(lambda: len(ours()) > 3, "map -> odom, again and again")
    assert not any(t.child_frame_id == "optical" for message in heard for t in message.transforms)
    buffer = TransformBuffer()
    transform = ours()[-1].transforms[0]
    buffer.add([transform])
    assert transform.header.frame_id == "map"
    # Seconds of odometry later the robot is where the map says: the first camera's place is the map's origin.
    stamp = transform.header.stamp.sec * SECOND + transform.header.stamp.nanosec
    map_from_odom = buffer.lookup("map", "odom", stamp)
    origin = map_from_odom @ odom_from_base(0) @ MOUNT
    assert torch.allclose(origin[:3, 3], torch.zeros(3, dtype=torch.float64), atol=0.12)
    assert torch.allclose(map_from_odom[:3, :3], torch.eye(3, dtype=torch.float64), atol=0.05)
    # Track is lost: wheels go on from there.
    robot.node._submit(lambda pipeline: pipeline.windows.reset())
    count = len(ours())
    robot.film(20, 24)
    robot.wait_for("windows", "6")
    robot.wait_for("tf", "the camera's place in the map is not known: map -> odom stays as it was")
    wait_until(lambda: len(ours()) > count + 3, "map -> odom, again and again")
    assert ours()[-1].transforms[0].transform == transform.transform
    assert ros.call(Trigger, "/ff3r/reset").success
    wait_until(lambda: robot.node.session.publishers.tf._map_from_odom is None, "the end of the old map's place")


def test_a_camera_that_hangs_on_something_gets_no_second_parent(ros: Ros) -> None:
    robot = Robot(ros).activate()
    heard = ros.collect(TFMessage, "/tf", 100)
    robot.node.session.transforms.add([transform_message(0, "base", "optical", MOUNT)], static=True)
    film(robot, None, windows=1)
    robot.wait_for("tf", "optical already hangs on base: set odom_frame to have map -> odom broadcast")
    assert not heard


def test_unscaled_maps_are_not_placed_over_odom(ros: Ros) -> None:
    robot = Robot(ros, odom_frame="nowhere", sync_wait=0.0).activate()
    film(robot, None, windows=1)
    robot.wait_for("tf", "map -> odom waits until the map is metric")
    assert int(robot.values["frames with no odometry"]) >= 4


def test_depth_reaches_the_pipeline(ros: Ros) -> None:
    robot = Robot(ros, use_depth=True, sync_wait=10.0).activate()
    seen: list[torch.Tensor | None] = []
    engine = robot.engine
    inner = engine.__class__.__call__

    def spy(self: object, window: object) -> object:
        seen.append(window.depth)  # type: ignore[attr-defined]
        return inner(self, window)  # type: ignore[arg-type]

    engine.__class__ = type("Spy", (engine.__class__,), {"__call__": spy})
    depths = ros.publisher(Image, "depth", 10)
    for second in range(4):
        robot.film(second, second + 1)
        message = Image(header=header(START + second * SECOND, "optical"), height=48, width=64, encoding="32FC1")
        message.step = 4 * 64
        message.data.frombytes(np.full((48, 64), 1.5 + second, np.float32).tobytes())
        depths.publish(message)
    robot.wait_for("windows", "1")
    assert seen[0] is not None
    assert [float(view.median()) for view in seen[0]] == pytest.approx([1.5, 2.5, 3.5, 4.5])
