"""What the node adds to network and mapping: its share of the time from a window's last image to the published map.

The real node with the shipped weights, over DDS: a synthetic room is filmed, one window's worth of images at a time,
with queries active. Between arrival and publication the node decodes, prepares, scores, writes and publishes.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import statistics
import threading
import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from benchmarks.common import Report, main
from ff3r_ros.camera_node import image_message
from ff3r_ros.camera_source import CameraParameters, SyntheticRoom
from ff3r_ros.conversions import header
from ff3r_ros.node import PerceptionNode

QUERIES = ["chair", "table", "red sofa"]
MAPPING = ("align", "voxelize", "integrate")


class Filming:
    """Publishes images and reads what diagnostics say about each window."""

    def __init__(self) -> None:
        self.node = Node("benchmark")
        self._images = self.node.create_publisher(Image, "image", 100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._take, 100)
        self.values: dict[str, str] = {}
        self._shots = enumerate(SyntheticRoom(CameraParameters()), start=1)

    def window(self, count: int) -> dict[str, str]:
        """Publish `count` images, 0.1 s apart by their stamps, and wait until a window came of them."""
        windows = self.values.get("windows", "0")
        for index, shot in itertools.islice(self._shots, count):
            received = self._received()
            self._images.publish(image_message(header(index * 10**8, "camera"), shot.frame.image))
            wait_until(lambda before=received: self._received() > before)  # type: ignore[misc]
        wait_until(lambda: self.values.get("windows", "0") != windows)
        return dict(self.values)

    def ready(self) -> bool:
        """Whether the node is there."""
        return self._images.get_subscription_count() > 0

    def _received(self) -> int:
        return int(self.values.get("frames received", "0"))

    def _take(self, message: DiagnosticArray) -> None:
        self.values = {item.key: item.value for item in message.status[0].values}


def wait_until(condition: Any, timeout: float = 120.0) -> None:
    """Poll until the condition holds. RuntimeError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the node does not answer")
        time.sleep(0.005)


def measure(quick: bool, report: Report) -> None:
    """Figures `node_*`."""
    logging.disable(logging.INFO)
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    rclpy.init(args=[])
    overrides = [Parameter("queries", value=QUERIES), Parameter("diagnostics_period", value=0.05)]
    node, filming = PerceptionNode(parameter_overrides=overrides), Filming()
    executors = []
    for each in (node, filming.node):
        executors.append(SingleThreadedExecutor())
        executors[-1].add_node(each)
        threading.Thread(target=executors[-1].spin, daemon=True).start()
    node.trigger_configure()
    node.trigger_activate()
    try:
        wait_until(filming.ready)
        filming.window(8)  # the first window pays for caches and memory
        windows = [filming.window(4) for _ in range(2 if quick else 20)]
    finally:
        node.release()
        for executor in executors:
            executor.shutdown()
        rclpy.shutdown()
    _report(windows, report)


def _report(windows: list[dict[str, str]], report: Report) -> None:
    latency = [float(window["latency"]) for window in windows]
    network = [float(window["seconds: network"]) for window in windows]
    mapping = [sum(float(window.get(f"seconds: {stage}", 0)) for stage in MAPPING) for window in windows]
    rest = [all_ - a - b for all_, a, b in zip(latency, network, mapping, strict=True)]
    total = statistics.fmean(latency)
    report.add(
        "node_latency_ms", total * 1e3, "ms", f"{len(windows)} windows, {windows[-1]['voxels']} voxels at the end"
    )
    report.add("node_network_share", statistics.fmean(network) / total)
    report.add("node_mapping_share", statistics.fmean(mapping) / total, "", "alignment, voxelization, integration")
    report.add("node_overhead_share", statistics.fmean(rest) / total, "", "decode, prepare, score, write, publish")


if __name__ == "__main__":
    main("node_overhead", measure)
