"""Guarded callbacks: failures are counted by name, said once per kind, and shown for a while."""

from __future__ import annotations

import pytest
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

from ff3r_ros import guard as guard_module
from ff3r_ros.guard import CallbackGuard
from ff3r_ros.run_node import run_node
from ff3r_ros.viewer.node import ViewerNode
from tests.support.ros import Ros


def test_failures_are_counted_named_and_said_once() -> None:
    said: list[str] = []
    guard = CallbackGuard(said.append)
    divide = guard("share", lambda value: 1 / value)
    for value in (1, 0, 2, 0, None):
        divide(value)
    assert guard.failed == {"share": 3}
    assert said[0] == "share dropped: ZeroDivisionError: division by zero" and "TypeError" in said[1] and len(said) == 2
    assert "TypeError" in guard.recent


def test_failures_are_short_and_not_shown_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    guard = CallbackGuard(said.append)
    guard("text", lambda text: float(text))("x" * 10**6)
    assert len(said[0]) == len(guard.recent) == guard_module.SHOWN_LENGTH
    monkeypatch.setattr(guard_module, "SHOWN_SECONDS", 0.0)
    assert guard.recent == ""


def test_who_interrupts_is_not_held_up() -> None:
    guard = CallbackGuard(print)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard("work", interrupt)()


def test_spinning_goes_on_after_whatever_the_executor_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    troubles = [ValueError("a take that failed"), RuntimeError("an answer that nobody takes")]

    def spin(node: Node) -> None:
        if troubles:
            raise troubles.pop(0)

    monkeypatch.setattr(rclpy, "spin", spin)
    run_node(lambda: Node("survivor"), "survivor", [])
    assert not troubles and not rclpy.ok()


def test_the_viewer_survives_clouds_that_are_none(ros: Ros) -> None:
    node = ViewerNode(**ros.options(port=0))
    try:
        node._latest.put("PointCloud2", PointCloud2(width=1000, height=1000, point_step=3))
        node.refresh()
        assert node._guard.failed == {"PointCloud2": 1}
    finally:
        node.destroy_node()
