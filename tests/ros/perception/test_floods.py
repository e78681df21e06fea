"""Floods of messages at a node in a process of its own: all are accounted for, and memory stays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from ff3r_ros.conversions.messages import transform_message
from ff3r_ros.lifecycle import LifecycleClient
from ff3r_ros.qos import QUERY_QOS, TF_QOS
from tests.support.ros import Ros, wait_until

pytestmark = pytest.mark.long


class Node:
    """A perception node in its own process."""

    def __init__(self, ros: Ros) -> None:
        parameters = ("-p", "diagnostics_period:=0.2", "-p", "long_side:=56")
        command = [sys.executable, "-m", "tests.support.slow_node", "--ros-args", *parameters]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._diagnostics = ros.collect(DiagnosticArray, "/diagnostics")

    def activate(self, ros: Ros) -> None:
        client = LifecycleClient("/ff3r", ros.context)
        wait_until(lambda: client.state(timeout=120) == "unconfigured", "the node", 120)
        client.drive("active", timeout=60)

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20

    def values(self) -> dict[str, str]:
        return {item.key: item.value for item in self._diagnostics[-1].status[0].values} if self._diagnostics else {}

    def count(self, *names: str) -> int:
        return sum(int(self.values().get(name, "0")) for name in names)


@pytest.fixture
def node(ros: Ros) -> Iterator[Node]:
    node = Node(ros)
    try:
        node.activate(ros)
        yield node
        assert node.process.poll() is None, "the process ended"
    finally:
        node.process.kill()


@pytest.mark.parametrize("depth", [10, 1000, 10_000])
def test_ten_thousand_queries(ros: Ros, node: Node, depth: int, capsys: pytest.CaptureFixture[str]) -> None:
    publisher, before = ros.publisher(String, "/ff3r/query", depth), node.megabytes
    for index in range(10_000):
        publisher.publish(String(data=f"thing number {index}"))
    names = ("queries", "queries refused", "queries dropped", "queries lost")
    wait_until(lambda: node.count(*names) == 10_000, "all to be counted", 120)
    with capsys.disabled():
        counts = ", ".join(f"{name} {node.count(name)}" for name in names)
        print(f"\n| 10,000 queries at once, sender's depth {depth} | {counts}; +{node.megabytes - before:.0f} MB |")


def test_six_hundred_queries_of_a_megabyte(ros: Ros, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    publisher, before, text = ros.publisher(String, "/ff3r/query", QUERY_QOS), node.megabytes, "chair " * 174_763
    for _ in range(600):
        publisher.publish(String(data=text))
    wait_until(lambda: node.count("queries refused") == 600, "all to be refused", 120)
    grown = node.megabytes - before
    with capsys.disabled():
        print(f"\n| 600 queries of 1 MB | all refused; +{grown:.0f} MB |")
    assert grown < 700


def test_a_hundred_thousand_transforms(ros: Ros, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    publisher, before = ros.publisher(TFMessage, "/tf", TF_QOS), node.megabytes
    pattern = [transform_message(10**12 - 10**5 * index, "odom", "base", torch.eye(4)) for index in range(1000)]
    publisher.publish(TFMessage(transforms=pattern * 100))
    name = "transforms refused: too many transforms in one message"
    wait_until(lambda: node.count(name) == 90_000, "the message to be taken", 60)
    with capsys.disabled():
        print(
            f"\n| 100,000 transforms in one message | 10,000 taken, 90,000 refused; +{node.megabytes - before:.0f} MB |"
        )
