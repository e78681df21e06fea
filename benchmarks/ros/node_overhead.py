"""What the node adds to network and mapping: its share of the time from a window's last image to the published map.

The real node with the shipped weights, over DDS: a synthetic room is filmed, one window's worth of images at a time,
with queries active. Between arrival and publication the node decodes, prepares, scores, writes and publishes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from benchmarks.common import Report, main
from ff3r_ros.camera.node import image_message
from ff3r_ros.camera.playback import CameraParameters, SyntheticRoom
from ff3r_ros.conversions.messages import header
from ff3r_ros.perception.node import PerceptionNode

QUERIES = ["chair", "table", "red sofa"]
MAPPING = ("align", "integrate", "loops")


class Filming:
    """Publishes images and reads what diagnostics say about each window."""

    def __init__(self) -> None:
        self.node = Node("benchmark")
        self._images = self.node.create_publisher(Image, "image", 100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._take, 100)
        self.values: dict[str, str] = {}
        self._shots = enumerate(SyntheticRoom(CameraParameters()), start=1)

    def window(self) -> dict[str, str]:
        """Publish images, 0.1 s apart by their stamps, until a window came of them: not every image is a keyframe.

        Raises RuntimeError when the node fails on one, or the room's tour ends first.
        """
        windows = self.values.get("windows", "0")
        for index, shot in self._shots:
            taken = self._taken()
            self._images.publish(image_message(header(index * 10**8, "camera"), shot.frame.image))
            wait_until(lambda before=taken: self._taken() > before)  # type: ignore[misc]
            if self.values["failures"] != "0":
                raise RuntimeError(f"the node failed: {self.values['last error']}")
            if self.values["windows"] != windows:
                return dict(self.values)
        raise RuntimeError("the tour of the room ended before it made a window")

    def ready(self) -> bool:
        """Whether the node is there."""
        return self._images.get_subscription_count() > 0

    def _taken(self) -> int:
        """Frames that the worker is done with, the window that they completed included."""
        return int(self.values.get("frames in", "0"))

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
    with spinning(node), spinning(filming.node):
        try:
            node.trigger_configure()
            node.trigger_activate()
            wait_until(filming.ready)
            filming.window()  # the first window pays for caches and memory
            windows = [filming.window() for _ in range(2 if quick else 20)]
        finally:
            node.release()
    rclpy.shutdown()
    _report(windows, report)


@contextlib.contextmanager
def spinning(node: Node) -> Iterator[None]:
    """Callbacks of the node run on a thread of their own.

    The thread is joined: `shutdown` does not wait for `spin`, and Python's exit aborts threads that wait inside rclpy.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()


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
