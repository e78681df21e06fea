"""The demo's independent subscriber: a node that listens as any user's node would, and counts what it gets."""

from __future__ import annotations

from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from numpy import ndarray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import String

from ff3r_model.frames.stamps import nanoseconds_from_time
from ff3r_ros.conversions.reading import cloud_arrays, pose_matrix, voxel_centres
from ff3r_ros.msg import OccupancyMask, QueryList
from ff3r_ros.qos import LATCHED, LATCHED_MANY


class DemoMonitor(Node):
    """Subscribes to the perception node `/ff3r` and to the truth that the camera node publishes."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__("demo_monitor", **node_options)
        self.clouds = self.poses = self.masks = 0
        """Messages that were not empty."""
        self.cloud_points = 0
        self.images = 0
        self.estimated: dict[int, ndarray] = {}
        """map_from_camera by stamp, nanoseconds: of the newest path."""
        self.truth: dict[int, ndarray] = {}
        """world_from_camera by stamp."""
        self.voxels: dict[str, ndarray] = {}
        """Centres of each query's voxels, map frame."""
        self.voxel_size = 0.0
        self.metric = False
        self.status: dict[str, str] = {}
        self.message = ""
        self._ask = self.create_publisher(String, "/ff3r/query", 10)
        self.create_subscription(PointCloud2, "/ff3r/semantic_cloud", self._on_cloud, LATCHED)
        self.create_subscription(PoseStamped, "/ff3r/pose", self._on_pose, LATCHED)
        self.create_subscription(Path, "/ff3r/path", self._on_path, LATCHED)
        self.create_subscription(OccupancyMask, "/ff3r/occupancy_masks", self._on_mask, LATCHED_MANY)
        self.create_subscription(QueryList, "/ff3r/queries", self._on_queries, LATCHED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.create_subscription(PoseStamped, "/camera/ground_truth/pose", self._on_truth, 1000)
        best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(CameraInfo, "camera_info", self._on_info, best_effort)
        self.queries: list[str] = []

    def ask(self, text: str) -> None:
        """Send a query."""
        self._ask.publish(String(data=text))

    @property
    def heard(self) -> bool:
        """Whether the perception node listens to queries by now."""
        return self._ask.get_subscription_count() > 0

    def _on_cloud(self, cloud: PointCloud2) -> None:
        points, _ = cloud_arrays(cloud)
        self.cloud_points = len(points)
        self.clouds += bool(len(points)) and bool(np.isfinite(points).all())

    def _on_pose(self, pose: PoseStamped) -> None:
        self.poses += bool(np.isfinite(pose_matrix(pose.pose)).all())

    def _on_path(self, path: Path) -> None:
        self.estimated = {nanoseconds_from_time(pose.header.stamp): pose_matrix(pose.pose) for pose in path.poses}

    def _on_mask(self, mask: OccupancyMask) -> None:
        self.masks += bool(len(mask.indices))
        self.voxels[mask.query] = voxel_centres(mask)
        if mask.voxel_size > 0:
            self.voxel_size, self.metric = mask.voxel_size, mask.metric

    def _on_queries(self, message: QueryList) -> None:
        self.queries = [query.text for query in message.queries]

    def _on_truth(self, pose: PoseStamped) -> None:
        self.truth[nanoseconds_from_time(pose.header.stamp)] = pose_matrix(pose.pose)

    def _on_info(self, _: CameraInfo) -> None:
        self.images += 1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("semantic map"):
                self.status = {item.key: item.value for item in status.values}
                self.message = status.message
