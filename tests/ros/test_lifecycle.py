"""The node's states: what each transition does, undoes, and says."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from ff3r_ros.lifecycle import LifecycleClient, LifecycleError
from tests.support.robot import Robot
from tests.support.ros import Ros, wait_until


def test_no_such_node(ros: Ros) -> None:
    with pytest.raises(LifecycleError, match="no lifecycle node /nobody"):
        LifecycleClient("nobody", ros.context).state(timeout=0.2)


def test_one_frame_only_and_silence(ros: Ros) -> None:
    robot = Robot(ros).activate()
    status = robot.fresh_status()
    assert status.level == DiagnosticStatus.WARN and "no image on /image yet" in status.message
    assert "sensor_msgs/msg/Image" in status.message  # the probe is there, but sends nothing
    robot.film(0, 1)
    robot.wait_for("frames in", "1")
    assert robot.values["windows"] == "0" and robot.fresh_status().level == DiagnosticStatus.OK


def test_configure_fails_and_can_be_tried_again(ros: Ros) -> None:
    robot = Robot(ros)
    good, robot.node._make_pipeline = robot.node._make_pipeline, _no_weights
    with pytest.raises(LifecycleError, match="stays unconfigured"):
        robot.lifecycle.drive("active", timeout=30)
    status = robot.fresh_status()
    assert status.level == DiagnosticStatus.WARN and "nothing.safetensors does not exist" in status.message
    robot.node._make_pipeline = good
    robot.activate()
    robot.film(0, 4)
    robot.wait_for("windows", "1")
    robot.lifecycle.drive("inactive", timeout=30)
    assert ros.probe.count_subscribers("image") == 0 and int(robot.values["voxels"]) > 0
    robot.activate()
    robot.film(4, 6)
    robot.wait_for("windows", "2")  # the map was kept
    robot.lifecycle.drive("unconfigured", timeout=30)
    wait_until(lambda: not ros.probe.count_publishers("/ff3r/semantic_cloud"), "the map's topics to go")
    robot.activate()
    robot.film(10, 14)
    robot.wait_for("windows", "1")


def _no_weights(_: object) -> None:
    raise FileNotFoundError("nothing.safetensors does not exist")
