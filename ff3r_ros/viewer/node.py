"""Viewer node: what the perception node publishes, on a web page; what is typed into the page, as queries."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Path
from numpy import ndarray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import String

from ff3r_model.frames.image_messages import ImageRejected
from ff3r_model.visualization.web_address import LOCALHOST
from ff3r_model.visualization.web_viewer import ShownQuery, Viewer
from ff3r_ros.conversions.image_decoding import decode
from ff3r_ros.conversions.reading import cloud_arrays, pose_matrix, position, typical_spacing, voxel_centres
from ff3r_ros.guard import CallbackGuard
from ff3r_ros.msg import OccupancyMask, QueryList
from ff3r_ros.parameters import declare, parameter
from ff3r_ros.qos import CAMERA_QOS, LATCHED, LATCHED_MANY
from ff3r_ros.run_node import run_node

SHOWN_FOV = math.radians(55)
"""Of the drawn frustum, which is a symbol: the viewer knows no intrinsics."""
SHOWN_STATUS = ("frames in", "windows", "latency", "voxels", "map bytes", "queries", "metric")


@dataclass(frozen=True)
class ViewerParameters:
    """Of the viewer node."""

    host: str = parameter(LOCALHOST, "Address to serve on. 0.0.0.0 lets everybody on the network look and query.")
    port: int = parameter(8080, "Port to serve on; the next free one where it is taken.", low=0, high=65535)
    allowed_hosts: list[str] = parameter(
        [""], "Further names by which browsers reach the page, such as that of a proxy; empty ones are skipped."
    )
    perception: str = parameter("/ff3r", "Full name of the perception node whose map is shown.")
    image_transport: str = parameter(
        "raw",
        "raw: `image` is sensor_msgs/Image. compressed: sensor_msgs/CompressedImage.",
        choices=("raw", "compressed"),
    )
    refresh_rate: float = parameter(3.0, "Updates of the page per second at most.", low=0.1, high=30.0, change="never")


@dataclass
class Latest:
    """The newest message of each topic that the page does not show yet."""

    messages: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, topic: str, message: Any) -> None:
        with self.lock:
            self.messages[topic] = message

    def take(self) -> dict[str, Any]:
        with self.lock:
            messages, self.messages = self.messages, {}
        return messages


class ViewerNode(Node):
    """Subscribes as any node could; holds no state that the topics do not give again."""

    def __init__(self, name: str = "ff3r_viewer", **node_options: Any) -> None:
        super().__init__(name, **node_options)
        own: ViewerParameters = declare(self, ViewerParameters)
        base = own.perception.rstrip("/")
        self._guard = CallbackGuard(self.get_logger().warning)
        self._latest = Latest()
        self._masks: dict[int, OccupancyMask] = {}
        self._listed: list[tuple[int, str]] = []
        self._pose: ndarray | None = None
        self._image: ndarray | None = None
        self._length = 0.15
        self._query = self.create_publisher(String, f"{base}/query", 10)
        self._remove = self.create_publisher(String, f"{base}/query/remove", 10)
        kind = Image if own.image_transport == "raw" else CompressedImage
        self._keep(PointCloud2, f"{base}/semantic_cloud", LATCHED)
        self._keep(Path, f"{base}/path", LATCHED)
        self._keep(QueryList, f"{base}/queries", LATCHED)
        self._keep(kind, "image", CAMERA_QOS)
        self.create_subscription(OccupancyMask, f"{base}/occupancy_masks", self._on_mask, LATCHED_MANY)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        names = list(filter(None, own.allowed_hosts))
        self.viewer = Viewer(own.port, own.host, allowed_hosts=names, on_query=self.ask, on_remove=self.remove)
        self.create_timer(1 / own.refresh_rate, self.refresh)
        self.get_logger().info(f"viewer at {' '.join(self.viewer.urls)}")

    def ask(self, text: str) -> None:
        """Send a query to the perception node."""
        self._query.publish(String(data=text))

    def remove(self, query_id: int) -> None:
        """Ask the perception node to forget a query."""
        text = dict(self._listed).get(query_id)
        if text is not None:
            self._remove.publish(String(data=text))

    def refresh(self) -> None:
        """Put what came since the last time on the page."""
        show = {
            Path: self._show_path,
            PointCloud2: self._show_cloud,
            QueryList: self._take_list,
            Image: self._show_image,
            CompressedImage: self._show_image,
            DiagnosticArray: self._show_status,
        }
        news = self._latest.take()
        for message in news.values():
            if type(message) in show:
                self._guard(type(message).__name__, show[type(message)])(message)
        if any(isinstance(message, QueryList | OccupancyMask) for message in news.values()):
            self._guard("masks", self._show_queries)()

    def destroy_node(self) -> None:
        """Stop serving, then destroy the node."""
        self.viewer.close()
        super().destroy_node()

    def _keep(self, kind: type, topic: str, qos: QoSProfile) -> None:
        self.create_subscription(kind, topic, lambda message: self._latest.put(kind.__name__, message), qos)

    def _on_mask(self, mask: OccupancyMask) -> None:
        self._masks[mask.query_id] = mask
        self._latest.put("mask", mask)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        if any(status.name.endswith("semantic map") for status in message.status):
            self._latest.put("status", message)

    def _show_cloud(self, cloud: PointCloud2) -> None:
        points, colors = cloud_arrays(cloud)
        sizes = [mask.voxel_size for mask in self._masks.values() if mask.voxel_size > 0]
        self.viewer.show_cloud(points, colors, sizes[-1] if sizes else typical_spacing(points))

    def _show_path(self, path: Path) -> None:
        if not path.poses:
            return
        positions = np.array([position(stamped.pose) for stamped in path.poses], dtype=np.float64)
        self._pose = pose_matrix(path.poses[-1].pose)
        self._length = 0.06 * max(float(np.linalg.norm(np.ptp(positions, axis=0))), 1e-2) + 0.05
        self.viewer.show_path(positions)
        self.viewer.show_camera(self._pose, self._image, SHOWN_FOV, self._length)

    def _take_list(self, message: QueryList) -> None:
        self._listed = [(query.id, query.text) for query in message.queries]
        known = {query_id for query_id, _ in self._listed}
        gone = [query_id for query_id, mask in self._masks.items() if query_id not in known and not mask.indices]
        for query_id in gone:  # a mask that is not empty may be ahead of its list
            del self._masks[query_id]

    def _show_queries(self) -> None:
        shown = []
        for query_id, text in self._listed:
            mask = self._masks.get(query_id)
            shown.append(
                ShownQuery(query_id, text) if mask is None else ShownQuery(query_id, text, voxel_centres(mask))
            )
        self.viewer.show_queries(shown)

    def _show_image(self, message: Image | CompressedImage) -> None:
        try:
            image = decode(message).numpy()
        except ImageRejected as rejection:
            self.get_logger().warning(f"image not shown: {rejection}", throttle_duration_sec=10.0)
            return
        step = max(1, max(image.shape[:2]) // 320)
        self._image = np.ascontiguousarray(image[::step, ::step])
        self.viewer.show_image(self._image)

    def _show_status(self, message: DiagnosticArray) -> None:
        status = next(status for status in message.status if status.name.endswith("semantic map"))
        values = {item.key: item.value for item in status.values}
        lines = [status.message, *(f"{key}: {_readable(key, values[key])}" for key in SHOWN_STATUS if key in values)]
        self.viewer.show_status("\n".join(lines))


def _readable(key: str, value: str) -> str:
    if key == "map bytes":
        return f"{int(value) / 1e6:.1f} MB"
    if key == "latency":
        return f"{float(value):.2f} s"
    return f"{int(value):,}" if value.isdigit() else value


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `viewer_node`."""
    run_node(ViewerNode, "ff3r_viewer", arguments)


if __name__ == "__main__":
    main()
