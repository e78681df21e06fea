"""Session of the perception node, from configure to cleanup: camera input, synchronisation, worker and publishers."""

from __future__ import annotations

import time
from collections import Counter

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from tf2_msgs.msg import TFMessage

from ff3r_model.frames.sensor_sync import SensorSynchronizer, SyncConfig
from ff3r_model.frames.transforms import TransformBuffer
from ff3r_model.pipeline import Pipeline
from ff3r_ros.perception.camera_input import CameraInput
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.publishers import MapPublishers
from ff3r_ros.perception.worker import Worker

LONG_COMMAND = 1.0
"""Seconds after which diagnostics say that images wait for a command, such as saving to a slow disk."""


class Session:
    """Image messages in, the map's topics out. It begins to work at once, and ends with `close`."""

    def __init__(self, node: Node, pipeline: Pipeline, settings: NodeParameters) -> None:
        self._node = node
        self.camera = CameraInput(self._warn, self._now, settings.image_is_rectified)
        self.transforms = TransformBuffer()
        self.publishers = MapPublishers(node, settings, self.transforms, lambda: self.camera.name)
        self.queries: Counter[str] = Counter()
        """Messages that ask for a query or remove one: received, dropped, lost before they came here."""
        self.longest_query = pipeline.queries.config.max_length
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

    def take_tf(self, message: TFMessage) -> None:
        """Transforms of what moves."""
        self.transforms.add(message.transforms)

    def take_static_tf(self, message: TFMessage) -> None:
        """Transforms of what does not."""
        self.transforms.add(message.transforms, static=True)

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
        command, seconds = self.worker.command
        waiting = f"{command} for {seconds:.1f} s" if command else ""
        stalled = f"{command} has been running for {seconds:.0f} s: images wait" if seconds > LONG_COMMAND else ""
        return {
            "frames received": str(self.camera.received),
            "frames without calibration": str(self.camera.uncalibrated),
            "frames lack": self.sync.why,
            "command running": waiting,
            "grids": self.publishers.grids.withheld,
            "tf": "" if tf is None else tf.withheld,
            "problem": stalled or self.camera.problem,
            **{f"queries {what}": str(self.queries[what]) for what in ("received", "dropped", "lost")},
            **{f"frames with {reason}": str(count) for reason, count in sorted(self.sync.missing.items())},
            **{f"transforms refused: {reason}": str(n) for reason, n in sorted(self.transforms.rejected.items())},
            **{f"camera_info refused: {reason}": str(n) for reason, n in sorted(self.camera.rejected_infos.items())},
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
