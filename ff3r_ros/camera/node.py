"""Camera node of the demo: publishes a synthetic room or a recording as a camera's driver would."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from geometry_msgs.msg import PoseStamped
from jaxtyping import Float
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from torch import Tensor

from ff3r_model.core.types import Frame
from ff3r_ros import parameters as ros_parameters
from ff3r_ros.camera.playback import CameraParameters, Prefetch, Recording, SyntheticRoom
from ff3r_ros.conversions.messages import pose_message
from ff3r_ros.run_node import run_node

WORLD_FRAME = "world"
"""Frame of the true poses: the synthetic room's own."""
JPEG_QUALITY = 90


class CameraNode(Node):
    """Publishes `image` (and `image/compressed`), `camera_info`, and the truth on `~/ground_truth/pose`.

    Raises SourceError for a recording that cannot be played.
    """

    def __init__(self, name: str = "camera", **node_options: Any) -> None:
        super().__init__(name, **node_options)
        settings: CameraParameters = ros_parameters.declare(self, CameraParameters)
        shots = Recording(settings) if settings.source else SyntheticRoom(settings)
        self._settings, self._source_name = settings, shots.name
        self._shots = Prefetch(shots, settings.ahead, settings.loop)
        reliability = ReliabilityPolicy.RELIABLE if settings.reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=5, reliability=reliability)
        raw, compressed = settings.image_transport != "compressed", settings.image_transport != "raw"
        self._raw = self.create_publisher(Image, "image", qos) if raw else None
        self._compressed = self.create_publisher(CompressedImage, "image/compressed", qos) if compressed else None
        self._info = self.create_publisher(CameraInfo, "camera_info", qos)
        self._truth = self.create_publisher(PoseStamped, "~/ground_truth/pose", 100)
        self.published = 0
        self._timer = self.create_timer(1 / (settings.rate or shots.fps), self._tick)
        self.get_logger().info(f"playing {shots.name} at {settings.rate or shots.fps:.3g} Hz")

    def destroy_node(self) -> None:
        """Also ends the thread that prepares frames."""
        self._shots.close()
        super().destroy_node()

    def _tick(self) -> None:
        shot = self._shots.take()
        if shot is None:
            self._nothing_to_publish()
            return
        stamp = self.get_clock().now().to_msg()
        head = Header(stamp=stamp, frame_id=self._settings.frame_id)
        self._info.publish(camera_info(head, shot.frame))
        if self._raw is not None:
            self._raw.publish(image_message(head, shot.frame.image))
        if self._compressed is not None:
            self._compressed.publish(compressed_message(head, shot.frame.image))
        if shot.world_from_camera is not None:
            pose = pose_message(shot.world_from_camera)
            self._truth.publish(PoseStamped(header=Header(stamp=stamp, frame_id=WORLD_FRAME), pose=pose))
        self.published += 1

    def _nothing_to_publish(self) -> None:
        if not self._shots.finished.is_set():
            return
        self._timer.cancel()
        reason = f"failed: {self._shots.error}" if self._shots.error else "ended"
        self.get_logger().info(f"{self._source_name} {reason} after {self.published} images")


def image_message(head: Header, image: Tensor) -> Image:
    """sensor_msgs/Image of an RGB uint8 tensor (height, width, 3)."""
    height, width = image.shape[:2]
    message = Image(header=head, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data.frombytes(np.ascontiguousarray(image.numpy()).data)
    return message


def compressed_message(head: Header, image: Tensor) -> CompressedImage:
    """The same as JPEG, described as image_transport does."""
    bgr = cv2.cvtColor(np.ascontiguousarray(image.numpy()), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    message = CompressedImage(header=head, format="rgb8; jpeg compressed bgr8")
    message.data.frombytes(data.data)
    return message


def camera_info(head: Header, frame: Frame) -> CameraInfo:
    """An undistorted pinhole camera; K stays zero where nobody knows it, as drivers do for uncalibrated cameras."""
    height, width = frame.image.shape[:2]
    info = CameraInfo(header=head, height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
    if frame.intrinsics is not None:
        matrix = _ros_pixels(frame.intrinsics)
        info.k, info.r = matrix.reshape(-1), np.eye(3).reshape(-1)
        info.p = np.hstack([matrix, np.zeros((3, 1))]).reshape(-1)
    return info


def _ros_pixels(intrinsics: Float[Tensor, "3 3"]) -> np.ndarray:
    """ROS puts pixel centres at integers."""
    matrix = intrinsics.to(torch.float64).clone()
    matrix[:2, 2] -= 0.5
    return matrix.numpy()


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `camera_node`."""
    run_node(CameraNode, "camera", arguments)


if __name__ == "__main__":
    main()
