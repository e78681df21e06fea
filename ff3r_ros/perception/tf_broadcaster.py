"""TF of the map: map → odom where there is odometry (REP-105), map → camera otherwise, and never a second parent."""

from __future__ import annotations

import threading

import torch
from jaxtyping import Float
from rclpy.node import Node
from tf2_msgs.msg import TFMessage
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.frames.transforms import TransformBuffer
from ff3r_ros.conversions import messages as conversions

UNSCALED = "map -> odom waits until the map is metric"
LOST = "the camera's place in the map is not known: {}"


class MapBroadcaster:
    """Broadcasts where the map lies in the tree of frames. `update` is the worker's to call, `repeat` the executor's.

    map → odom is said again and again for the present moment, since it stays true until the next window; map → camera
    only for the time of an image.
    """

    def __init__(self, node: Node, map_frame: str, odom_frame: str, transforms: TransformBuffer) -> None:
        self._node, self._map, self._odom, self._transforms = node, map_frame, odom_frame, transforms
        self._publisher = node.create_publisher(TFMessage, "/tf", 100)
        self._map_from_odom: Float[Tensor, "4 4"] | None = None
        self._lock = threading.Lock()
        self.withheld = ""
        """Why nothing is broadcast; empty where something is, or nothing has happened yet."""

    def update(
        self,
        stamp: int,
        camera_frame: str,
        map_from_camera: Float[Tensor, "4 4"],
        odom_from_camera: Float[Tensor, "4 4"] | None,
        metric: bool,
    ) -> None:
        """The newest keyframe's pose in the map, and in odometry where that is known (NaN counts as unknown)."""
        if self._odom:
            self._join_odometry(map_from_camera, odom_from_camera, metric)
            self.repeat()
        elif (parent := self._transforms.parent(camera_frame)) not in (None, self._map):
            self.withheld = f"{camera_frame} already hangs on {parent}: set odom_frame to have map -> odom broadcast"
        else:
            self.withheld = ""
            self._send(stamp, camera_frame, map_from_camera)

    def lose(self) -> None:
        """The camera is in a part of its own: map → odom stays, and with it what wheels say; map → camera waits."""
        self.withheld = LOST.format("map -> odom stays as it was" if self._odom else "map -> camera waits")

    def repeat(self) -> None:
        """Say map → odom for now."""
        with self._lock:
            pose = self._map_from_odom
        if pose is not None and self._node.context.ok():
            self._send(int(self._node.get_clock().now().nanoseconds), self._odom, pose)

    def clear(self) -> None:
        """The map is another one: what was said of it is over."""
        with self._lock:
            self._map_from_odom = None

    def destroy(self) -> None:
        """Take the publisher away."""
        self.clear()
        self._node.destroy_publisher(self._publisher)

    def _join_odometry(
        self, map_from_camera: Float[Tensor, "4 4"], odom_from_camera: Float[Tensor, "4 4"] | None, metric: bool
    ) -> None:
        self.withheld = "" if metric else UNSCALED
        if not metric:
            self.clear()
        elif odom_from_camera is not None and bool(torch.isfinite(odom_from_camera).all()):
            with self._lock:
                self._map_from_odom = map_from_camera.double() @ invert_rigid(odom_from_camera.double())

    def _send(self, stamp: int, child: str, map_from_child: Float[Tensor, "4 4"]) -> None:
        transform = conversions.transform_message(stamp, self._map, child, map_from_child)
        self._publisher.publish(TFMessage(transforms=[transform]))
