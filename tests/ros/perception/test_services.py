"""Services and parameters from anybody: files stay in their folder, waiting calls are answered, what stalls is said."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ff3r_model.pipeline import Pipeline
from ff3r_ros.parameters import ParameterError
from ff3r_ros.perception import node as node_module
from ff3r_ros.perception.map_folder import MapFolder
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.qos import QUERY_QOS
from tests.support.fake_engine import noise
from tests.support.robot import Robot, image_message
from tests.support.ros import Ros, wait_until


def set_map_file(robot: Robot, path: object) -> Any:
    return robot.node.set_parameters([Parameter("map_file", value=str(path))])[0]


def test_a_map_file_lies_in_the_folder_that_was_set_at_start(tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere.ff3r")
    maps = MapFolder(NodeParameters(map_folder=str(folder)))
    assert maps.path("office.ff3r") == maps.path(str(folder / "x" / ".." / "office.ff3r")) == folder / "office.ff3r"
    for outside in ("../a", "/etc/passwd", str(tmp_path / "maps2" / "a"), "link", str(folder), "~/a"):
        with pytest.raises(ParameterError, match=r"lies outside of .*maps, the folder"):
            maps.path(outside)
    with pytest.raises(ParameterError, match="map_file is empty"):
        maps.path("")


def test_without_a_folder_the_file_given_at_start_names_it(tmp_path: Path) -> None:
    maps = MapFolder(NodeParameters(map_file=str(tmp_path / "a.ff3r")))
    assert maps.path(str(tmp_path / "b.ff3r")) == tmp_path / "b.ff3r"
    with pytest.raises(ParameterError, match="lies outside"):
        maps.path("/etc/passwd")
    with pytest.raises(ParameterError, match="-p map_folder:=FOLDER"):
        MapFolder(NodeParameters()).path("/etc/passwd")
    with pytest.raises(ParameterError, match="lies outside"):
        MapFolder(NodeParameters(map_folder=str(tmp_path / "maps"), map_file="/etc/passwd"))


def test_map_files_of_strangers(ros: Ros, tmp_path: Path) -> None:
    """A peer that sets map_file reaches nothing outside; a named pipe hangs nobody; a slow save is said."""
    precious, pipe, folder = tmp_path / "precious", tmp_path / "maps" / "pipe", tmp_path / "maps"
    folder.mkdir()
    precious.write_text("mine")
    os.mkfifo(pipe)
    robot = Robot(ros, map_folder=str(folder))
    answer = ros.call(Trigger, "/ff3r/save_map")
    assert not answer.success and "not configured" in answer.message
    robot.activate().film(0, 4)
    robot.wait_for("windows", "1")
    refusal = set_map_file(robot, precious)
    assert not refusal.successful and "outside" in refusal.reason
    assert not ros.call(Trigger, "/ff3r/save_map").success and precious.read_text() == "mine"
    assert set_map_file(robot, pipe).successful
    for service in ("load_map", "save_map"):
        answer = ros.call(Trigger, f"/ff3r/{service}")
        assert not answer.success and "named pipe" in answer.message
    assert pipe.is_fifo()
    assert set_map_file(robot, "office.ff3r").successful
    assert ros.call(Trigger, "/ff3r/save_map").success and (folder / "office.ff3r").is_file()


def test_a_slow_disk_is_said(ros: Ros, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(Pipeline, "save", lambda self, path: go.wait(30))
    robot = Robot(ros, map_file=str(tmp_path / "a.ff3r")).activate()
    robot.film(0, 1)
    client = ros.probe.create_client(Trigger, "/ff3r/save_map")
    assert client.wait_for_service(10)
    future = client.call_async(Trigger.Request())
    wait_until(lambda: robot.values.get("command running", "").startswith("save_map for"), "the command's name")
    wait_until(lambda: "save_map has been running for" in robot.diagnostics[-1].status[0].message, "a warning")
    assert robot.diagnostics[-1].status[0].level == DiagnosticStatus.WARN
    go.set()
    wait_until(future.done, "the answer")
    robot.wait_for("command running", "")


def test_calls_that_wait_while_the_node_is_deactivated(ros: Ros, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Robot(ros).activate()
    go = threading.Event()
    monkeypatch.setattr(Pipeline, "reset", lambda self: go.wait(30))
    client = ros.probe.create_client(Trigger, "/ff3r/reset")
    assert client.wait_for_service(10)
    for _ in range(3):
        go.clear()
        futures = [client.call_async(Trigger.Request()) for _ in range(3)]
        wait_until(lambda: robot.node.session.worker.command[0] == "reset", "the command to run")
        robot.lifecycle.drive("inactive")
        go.set()
        wait_until(lambda: all(future.done() for future in futures), "answers")  # noqa: B023
        assert all(future.result().success for future in futures)
        robot.lifecycle.drive("active")
    robot.fresh_status()


def test_a_camera_that_falls_silent_and_a_clock_that_stands(ros: Ros, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "SILENCE", 1.0)
    robot = Robot(ros).activate()
    robot.send(*(image_message(0, noise(index)) for index in range(8)))
    status = robot.fresh_status()
    assert status.level == DiagnosticStatus.WARN and "images were dropped: time went backwards" in status.message
    robot.film(1, 5)
    wait_until(lambda: "no image on /image for" in robot.diagnostics[-1].status[0].message, "the silence to be said")
    assert robot.diagnostics[-1].status[0].level == DiagnosticStatus.WARN
    robot.film(5, 6)
    assert robot.fresh_status().level == DiagnosticStatus.OK


@pytest.mark.parametrize("depth", [10, 1000])
def test_a_burst_of_queries_is_accounted_for(ros: Ros, depth: int) -> None:
    """Sent = active + refused + dropped + lost, whatever the sender's queue overwrites."""
    robot = Robot(ros, max_queries=16).activate()
    publisher = ros.publisher(String, "/ff3r/query", depth)
    for index in range(2000):
        publisher.publish(String(data=f"thing number {index}"))

    def missing() -> int:
        names = ("queries", "queries refused", "queries dropped", "queries lost")
        return 2000 - sum(int(robot.values.get(name, "0")) for name in names)

    try:
        wait_until(lambda: missing() == 0, "all to be counted", 60)
    except AssertionError as error:
        raise AssertionError(f"{error}: {missing()} missing, {robot.values}") from None
    assert int(robot.values["queries received"]) + int(robot.values["queries lost"]) == 2000


def test_megabytes_of_text_are_refused_by_their_length(ros: Ros) -> None:
    robot = Robot(ros).activate()
    publisher = ros.publisher(String, "/ff3r/query", QUERY_QOS)
    text = "chair " * 2**18
    for _ in range(20):
        publisher.publish(String(data=text))
    robot.wait_for("queries refused", "20")
    assert f"{len(text)} characters, at most 256" in robot.values["last refusal"]
    assert len(robot.values["last refusal"]) < 200


def test_what_a_callback_cannot_take_is_counted_and_named(ros: Ros, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours in a callback costs the message, not the process."""

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("ff3r_ros.perception.camera_input.decode", broken)
    robot = Robot(ros).activate()
    robot.camera.publish(image_message(0))
    robot.wait_for("failed: message on image", "1")
    status = robot.diagnostics[-1].status[0]
    assert status.level == DiagnosticStatus.WARN and "ZeroDivisionError: a fault" in status.message
    monkeypatch.undo()
    robot.film(1, 5)
    robot.wait_for("windows", "1")


def test_frames_behind_a_broken_one_are_kept(ros: Ros, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Robot(ros).activate()
    add, seen = Pipeline.add, []

    def once(self: Pipeline, frame: Any) -> None:
        seen.append(frame)
        if len(seen) == 2:
            raise ArithmeticError("this frame")
        add(self, frame)

    monkeypatch.setattr(Pipeline, "add", once)
    robot.film(0, 5)
    robot.wait_for("windows", "1")
    assert robot.values["failures"] == "1" and "this frame" in robot.values["last error"]
