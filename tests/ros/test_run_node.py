"""What the library logs reaches /rosout, from every node's main."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import rclpy
from rcl_interfaces.msg import Log
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from ff3r_model.core.errors import UserError
from ff3r_ros import run_node
from ff3r_ros.camera import node as camera
from ff3r_ros.perception import node as perception
from ff3r_ros.viewer import node as viewer
from tests.support.ros import Ros, wait_until

ROSOUT = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MAINS = {
    "ff3r": (perception.main, []),
    "camera": (camera.main, ["-p", "width:=32", "-p", "height:=24"]),
    "ff3r_viewer": (viewer.main, ["-p", "port:=0"]),
}


@pytest.mark.parametrize("name", MAINS)
def test_library_logs_reach_rosout(ros: Ros, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    main, parameters = MAINS[name]
    logs = ros.collect(Log, "/rosout", ROSOUT)

    def heard() -> bool:
        """Said again until the subscriber has found the node."""
        logging.getLogger("ff3r_model.somewhere").warning("%s is odd", "this")
        logging.getLogger("ff3r_ros.elsewhere").info("and that")
        time.sleep(0.1)
        return {"this is odd", "and that"} <= {log.msg for log in logs if log.name == name}

    def spin(node: Any) -> None:
        wait_until(heard, "the logs")

    monkeypatch.setattr(rclpy, "spin", spin)
    main(["--ros-args", *parameters])
    levels = {log.msg: log.level for log in logs if log.name == name}  # the middleware may still repeat other nodes'
    assert levels["this is odd"] == logging.WARNING
    assert levels["and that"] == logging.INFO
    assert not rclpy.ok() and not logging.getLogger("ff3r_model").handlers


def made(action: Callable[[], None]) -> Callable[[], Node]:
    def make() -> Node:
        action()
        return Node("early")

    return make


def test_what_is_logged_before_there_is_a_node_is_not_lost(ros: Ros, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = ros.collect(Log, "/rosout", ROSOUT)
    monkeypatch.setattr(rclpy, "spin", lambda node: wait_until(lambda: "in time" in {log.msg for log in logs}, "it"))
    run_node.run_node(made(lambda: logging.getLogger("ff3r_model.x").error("in time")), "early", [])


def test_what_a_node_refuses_ends_it_with_status_2() -> None:
    def refuse() -> None:
        raise UserError("no such video")

    with pytest.raises(SystemExit) as end:
        run_node.run_node(made(refuse), "early", [])
    rclpy.shutdown()
    assert end.value.code == 2 and not logging.getLogger("ff3r_model").handlers


@pytest.mark.parametrize(
    ("module", "parameter", "message"),
    [
        ("camera", "rate:=-1.0", "parameter rate = -1"),
        ("viewer", "port:=-1", "parameter port = -1"),
        ("viewer", "host:=192.0.2.7", "the host '192.0.2.7' is no address of this machine"),
    ],
)
def test_parameters_that_are_refused_end_the_process_with_status_2(module: str, parameter: str, message: str) -> None:
    command = [sys.executable, "-m", f"ff3r_ros.{module}.node", "--ros-args", "-p", parameter]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and message in ended.stderr
    assert "FATAL" in ended.stderr and "Traceback" not in ended.stderr
