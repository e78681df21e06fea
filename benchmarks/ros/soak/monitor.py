"""The soak's node: it hears diagnostics and logs, sends queries and broken images, and calls the services."""

from __future__ import annotations

import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Log
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ff3r_ros.qos import LATCHED

SERVICE_SECONDS = 60.0
"""A service must have answered by then."""
ERROR = 40
"""Of rcl_interfaces/Log; its constants are bytes in some distributions and numbers in others."""
LEVELS = {DiagnosticStatus.OK: "OK", DiagnosticStatus.WARN: "WARN", DiagnosticStatus.ERROR: "ERROR"}


class SoakMonitor(Node):
    """Beside the perception node `/ff3r`. Spun by a thread of its own; others only read."""

    def __init__(self) -> None:
        super().__init__("soak_monitor")
        self.status: dict[str, str] = {}
        """Of the newest diagnostics, with `level` and `message`."""
        self.heard = 0.0
        """When those came, `time.monotonic` seconds."""
        self.errors: list[tuple[float, str]] = []
        """Time and text of everything that was logged, or stood in diagnostics, as an error."""
        self.clouds = 0
        self._shown = ""
        self._ask = self.create_publisher(String, "/ff3r/query", 1000)
        self._forget = self.create_publisher(String, "/ff3r/query/remove", 10)
        self._image = self.create_publisher(Image, "image", QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE))
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self.create_subscription(Log, "/rosout", self._on_log, 1000)
        self.create_subscription(PointCloud2, "/ff3r/semantic_cloud", self._on_cloud, LATCHED)

    def ask(self, text: str) -> None:
        """Send a query."""
        self._ask.publish(String(data=text))

    def forget(self, text: str) -> None:
        """Send the removal of a query."""
        self._forget.publish(String(data=text))

    def send_broken_image(self) -> None:
        """An image whose data are shorter than its size says."""
        self._image.publish(Image(height=480, width=640, encoding="rgb8", step=1920, data=bytes(100)))

    def call(self, service: str) -> tuple[bool, str]:
        """Call a Trigger service of the perception node: whether it succeeded, and what it said."""
        client: Any = self.create_client(Trigger, f"/ff3r/{service}")
        try:
            if not client.wait_for_service(timeout_sec=SERVICE_SECONDS):
                return False, f"no service {service} within {SERVICE_SECONDS:g} s"
            answered = threading.Event()
            future = client.call_async(Trigger.Request())
            future.add_done_callback(lambda _: answered.set())
            if not answered.wait(SERVICE_SECONDS):
                return False, f"{service} does not answer within {SERVICE_SECONDS:g} s"
            return future.result().success, future.result().message
        finally:
            self.destroy_client(client)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("semantic map"):
                self.heard = time.monotonic()
                values = {item.key: item.value for item in status.values}
                self.status = values | {"level": LEVELS.get(status.level, "STALE"), "message": status.message}
                if status.level >= DiagnosticStatus.ERROR and status.message != self._shown:
                    self.errors.append((time.monotonic(), f"diagnostics: {status.message}"))
                self._shown = status.message

    def _on_log(self, message: Log) -> None:
        if message.level >= ERROR:
            self.errors.append((time.monotonic(), f"log of {message.name}: {message.msg}"))

    def _on_cloud(self, cloud: PointCloud2) -> None:
        self.clouds += bool(cloud.width)
