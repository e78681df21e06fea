"""A running perception node around a pipeline whose network is exact geometry, its camera, and what it said."""

from __future__ import annotations

from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ff3r_ros.conversions.messages import header
from ff3r_ros.lifecycle import LifecycleClient
from ff3r_ros.perception.node import PerceptionNode
from tests.support.fake_engine import FakeEngine, noise
from tests.support.ros import Ros, wait_until
from tests.support.ros_fakes import fake_pipeline

SECOND = 1_000_000_000
START = SECOND
"""A stamp of zero would mean none."""


def image_message(index: int, pixels: np.ndarray | None = None) -> Image:
    """The picture taken `index` seconds after START."""
    pixels = noise(index) if pixels is None else pixels
    height, width = pixels.shape[:2]
    message = Image(header=header(START + index * SECOND, "optical"), height=height, width=width, encoding="rgb8")
    message.step = 3 * width
    message.data.frombytes(np.ascontiguousarray(pixels).tobytes())
    return message


class Robot:
    """A running node, its camera, and what it said."""

    def __init__(self, ros: Ros, **parameters: Any) -> None:
        defaults = {"views": 4, "overlap": 2, "long_side": 56, "voxel_size": 0.1, "diagnostics_period": 0.1}
        self.ros, self.engine = ros, FakeEngine()
        options = ros.options(**{**defaults, **parameters})
        self.node = ros.run(PerceptionNode(lambda settings: fake_pipeline(self.engine, settings), **options))
        self.lifecycle = LifecycleClient("/ff3r", ros.context)
        self.diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
        self.camera: Any = None

    def activate(self) -> Robot:
        """Drive the node to active and find its subscription."""
        self.lifecycle.drive("active", timeout=30)
        self.camera = self.ros.publisher(Image, "image", 10)
        return self

    def send(self, *messages: Image) -> None:
        """Publish images one by one, each once the node has the one before."""
        for message in messages:
            before = self.node.session.camera.received
            self.camera.publish(message)
            wait_until(
                lambda expected=before + 1: self.node.session.camera.received >= expected, "the node to get an image"
            )

    def film(self, first: int, last: int) -> None:
        """The pictures of some seconds."""
        self.send(*(image_message(index) for index in range(first, last)))

    @property
    def values(self) -> dict[str, str]:
        """The newest diagnostics."""
        return {item.key: item.value for item in self.diagnostics[-1].status[0].values} if self.diagnostics else {}

    def wait_for(self, key: str, value: str, timeout: float = 30) -> None:
        """Until diagnostics say so."""
        try:
            wait_until(lambda: self.values.get(key) == value, f"{key} = {value}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; diagnostics: {self.values}") from None

    def fresh_status(self) -> DiagnosticStatus:
        """The status of diagnostics that are published from now on."""
        count = len(self.diagnostics)
        wait_until(lambda: len(self.diagnostics) > count + 1, "diagnostics")
        return self.diagnostics[-1].status[0]

    def ask(self, *texts: str, topic: str = "/ff3r/query") -> None:
        publisher = self.ros.publisher(String, topic, 1000)
        for text in texts:
            publisher.publish(String(data=text))
