"""SIGTERM ends the node's process within seconds, in every state, and what it was saving is whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from ff3r_model.voxel_map.file import read_map
from ff3r_ros.lifecycle import LifecycleClient, LifecycleError
from tests.support.robot import image_message
from tests.support.ros import Ros, wait_until

WITHIN = 30.0
"""Seconds from the signal to the end, of which the slow node's pipeline takes two and a loaded machine much more."""


@pytest.mark.long
@pytest.mark.parametrize("state", ["unconfigured", "configuring", "inactive", "active", "mapping", "saving", "loading"])
def test_sigterm(ros: Ros, tmp_path: Path, state: str) -> None:
    map_file = tmp_path / "map.ff3r"
    parameters = ("-p", f"map_file:={map_file}", "-p", "views:=4", "-p", "overlap:=2", "-p", "long_side:=56")
    command = [sys.executable, "-m", "tests.support.slow_node", "--ros-args", *parameters]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        bring_to(state, process, ros)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        took = time.monotonic() - start
    finally:
        process.kill()
    print(f"{state}: {took:.1f} s, exit status {process.returncode}")
    assert process.returncode == 0 and "Traceback" not in output, output
    assert took < WITHIN
    if state == "saving":
        read_map(map_file)


def bring_to(state: str, process: subprocess.Popen[str], ros: Ros) -> None:
    """Until the node is in this state; what it does there has just begun."""
    client = LifecycleClient("/ff3r", ros.context)
    wait_until(lambda: process.poll() is None and client.state(timeout=120) == "unconfigured", "the node", 120)
    if state == "unconfigured":
        return
    if state == "configuring":
        in_background(lambda: client.drive("inactive", timeout=60))
        read_until("configuring", process)
        return
    client.drive("inactive" if state == "inactive" else "active", timeout=60)
    if state in ("inactive", "active"):
        return
    camera = ros.publisher(Image, "image", 10)
    in_background(lambda: film(camera, process))
    if state == "mapping":
        time.sleep(1.0)
        return
    time.sleep(1.0)
    services = {"saving": ["save_map"], "loading": ["save_map", "load_map"]}[state]
    for service in services[:-1]:
        assert ros.call(Trigger, f"/ff3r/{service}").success
    ros.probe.create_client(Trigger, f"/ff3r/{services[-1]}").call_async(Trigger.Request())
    read_until(state, process)


def film(camera: Any, process: subprocess.Popen[str]) -> None:
    for index in range(10_000):
        if process.poll() is not None:
            return
        camera.publish(image_message(index))
        time.sleep(0.05)


def in_background(work: Callable[[], object]) -> None:
    def run() -> None:
        with suppress(LifecycleError):  # the node goes away: that is the test
            work()

    threading.Thread(target=run, daemon=True).start()


def read_until(word: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"the process ended before {word}")
