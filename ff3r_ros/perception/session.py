"""Session of the perception node, from configure to cleanup: camera input, synchronisation, worker and publishers."""

from __future__ import annotations

import time

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from ff3r_model.frames.sensor_sync import SensorSynchronizer, SyncConfig
from ff3r_model.frames.transforms import TransformBuffer
from ff3r_model.pipeline import Pipeline
from ff3r_ros.perception.camera_input import CameraInput
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.publishers import MapPublishers
from ff3r_ros.perception.worker import Worker


class Session:
    """Image messages in, the map's topics out. It begins to work at once, and ends with `close`."""

    def __init__(self, node: Node, pipeline: Pipeline, settings: NodeParameters) -> None:
        self._node = node
        self.camera = CameraInput(self._warn, self._now, settings.image_is_rectified)
        self.transforms = TransformBuffer()
        self.publishers = MapPublishers(node, settings, self.transforms, lambda: self.camera.name)
        self.worker = Worker(
            pipeline,
            self.publishers.publish,
            inbox_frames=settings.inbox_frames,
            time_jump_reset=settings.time_jump_reset,
        )
        self.sync = SensorSynchronizer(_sync_config(settings), self.transforms, self.worker.offer, self._warn)
        self.worker.start()

    def take_image(self, message: Image | CompressedImage) -> None:
        """An image message, on its way to the worker."""
        arrival = time.monotonic()
        frame = self.camera.take_image(message)
        if frame is not None:
            self.sync.take_frame(frame, arrival, self.camera.calibration)

    def tick(self) -> None:
        """Pass on the frames that are synchronised, and broadcast the map's transform again."""
        self.sync.pump(time.monotonic())
        if self.publishers.tf is not None:
            self.publishers.tf.repeat()

    def close(self) -> bool:
        """Stop the worker and take the map's topics away. False where the worker does not stop."""
        stopped = self.worker.stop()
        self.publishers.destroy()
        return stopped

    def notes(self) -> dict[str, str]:
        """Values for the diagnostics beside the worker's status."""
        tf = self.publishers.tf
        return {
            "frames received": str(self.camera.received),
            "frames without calibration": str(self.camera.uncalibrated),
            "grids": self.publishers.grids.withheld,
            "tf": "" if tf is None else tf.withheld,
            "problem": self.camera.problem,
            **{f"frames with {reason}": str(count) for reason, count in sorted(self.sync.missing.items())},
        }

    def _warn(self, text: str) -> None:
        self._node.get_logger().warning(text)

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)


IDLE_NOTES = {"frames received": "0", "frames without calibration": "0", "grids": "", "tf": "", "problem": ""}
"""The same while there is no session."""


def _sync_config(settings: NodeParameters) -> SyncConfig:
    return SyncConfig(
        use_depth=settings.use_depth,
        odom_frame=settings.odom_frame,
        use_imu=settings.use_imu,
        tolerance=settings.sync_tolerance,
        max_wait=settings.sync_wait,
        jump_back=settings.time_jump_reset,
    )
