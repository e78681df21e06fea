"""What cameras, bags and people send wrong: each is counted or refused with a reason, and nothing mapped is lost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from tests.support.fake_engine import noise
from tests.support.robot import Robot, image_message
from tests.support.ros import Ros, wait_until


@pytest.fixture(scope="module")
def robot() -> Iterator[Robot]:
    """One node with a map of one window; each test here does its worst and leaves the map there."""
    ros = Ros()
    robot = Robot(ros, max_queries=3).activate()
    robot.film(0, 4)
    robot.wait_for("windows", "1")
    yield robot
    ros.close()


@pytest.fixture(autouse=True)
def _nothing_is_lost(robot: Robot) -> Iterator[None]:
    before = int(robot.values["voxels"])
    yield
    robot.fresh_status()
    assert int(robot.values["voxels"]) >= before > 0 and robot.values["failures"] == "0"


def broken(**changes: object) -> Image:
    """A good image with some fields changed."""
    message = image_message(1000)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "rgb9"}, "unknown encoding"),
        ({"height": 4800}, "short data"),
        ({"step": 1}, "short data"),
        ({"width": 0, "height": 0}, "zero-size image"),
        ({"encoding": "uyvy", "width": 63, "step": 126, "data": bytes(126 * 48)}, "undecodable image"),
    ],
)
def test_images_that_are_none(robot: Robot, changes: dict[str, object], reason: str) -> None:
    before = int(robot.values.get(f"dropped: {reason}", "0"))
    robot.send(broken(**changes))
    robot.wait_for(f"dropped: {reason}", str(before + 1))
    status = robot.fresh_status()
    assert status.level == DiagnosticStatus.WARN and reason in status.message


def test_images_that_show_nothing_new(robot: Robot) -> None:
    black = np.zeros((48, 64, 3), np.uint8)
    robot.send(image_message(5), image_message(6, noise(5)), image_message(7, black))
    robot.wait_for("dropped: identical image", "1")
    robot.wait_for("dropped: featureless image", "1")


def test_time_goes_back_a_little_then_starts_over(robot: Robot) -> None:
    windows = int(robot.values["windows"])
    late = image_message(11)
    late.header.stamp.sec, late.header.stamp.nanosec = 10, 500_000_000
    robot.send(image_message(10), late)
    robot.wait_for("dropped: time went backwards", "1")
    assert robot.values["time jumps"] == "0"
    robot.send(image_message(0), image_message(1), image_message(2), image_message(3))  # a bag that loops
    robot.wait_for("time jumps", "1")
    wait_until(lambda: int(robot.values["windows"]) > windows, "windows after the loop")


def test_the_resolution_changes(robot: Robot) -> None:
    windows = int(robot.values["windows"])
    robot.send(*(image_message(index, noise(index, 96, 128)) for index in (20, 21, 22, 23)))  # the same shape, larger
    wait_until(lambda: int(robot.values["windows"]) > windows, "a window of larger images")
    robot.send(image_message(30, noise(30, 96, 64)))
    robot.wait_for("dropped: aspect ratio changed", "1")


def test_camera_info_of_another_size(robot: Robot) -> None:
    info = CameraInfo(width=640, height=480, k=[500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0])
    publisher = robot.ros.publisher(CameraInfo, "camera_info")
    publisher.publish(info)
    wait_until(lambda: robot.node.session.camera._calibration, "the calibration")
    robot.send(image_message(40))
    robot.wait_for("frames without calibration", "1")
    assert "640x480" in robot.fresh_status().message


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "empty"), ("   ", "empty"), ("chair " * 1667, "10002 characters"), ("bell\a", "control")],
)
def test_queries_that_are_none(robot: Robot, text: str, words: str) -> None:
    refused = int(robot.values["queries refused"])
    robot.ask(text)
    robot.wait_for("queries refused", str(refused + 1))
    assert words in robot.values["last refusal"]


def test_a_query_that_is_not_utf8(robot: Robot) -> None:
    refused = int(robot.values["queries refused"])
    raw = serialize_message(String(data="chair XX")).replace(b"XX", b"\xff\xfe")
    robot.ros.publisher(String, "/ff3r/query").publish(raw)
    robot.wait_for("queries refused", str(refused + 1))
    assert "broken characters" in robot.values["last refusal"]


def test_a_thousand_queries(robot: Robot) -> None:
    refused = int(robot.values["queries refused"])
    robot.ask(*(f"thing number {index}" for index in range(1000)))
    robot.wait_for("queries refused", str(refused + 997), timeout=60)
    robot.wait_for("queries", "3")  # counted once the whole burst is through
    assert "3 queries are active" in robot.values["last refusal"]


def test_removing_what_is_not_there(robot: Robot) -> None:
    refused = int(robot.values["queries refused"])
    robot.ask("unicorn", "999", topic="/ff3r/query/remove")
    robot.wait_for("queries refused", str(refused + 2))
    assert "999" in robot.values["last refusal"]
