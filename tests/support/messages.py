"""Look-alikes of ROS messages, for code that takes anything with the right fields; no ROS is needed."""

from __future__ import annotations

from types import SimpleNamespace as Message

import numpy as np
import torch
from scipy.spatial.transform import Rotation


def header(stamp: int, frame: str = "") -> Message:
    """std_msgs/Header of a time in nanoseconds."""
    return Message(stamp=Message(sec=stamp // 10**9, nanosec=stamp % 10**9), frame_id=frame)


def quaternion(rotation: Rotation) -> Message:
    """geometry_msgs/Quaternion."""
    return Message(**dict(zip("xyzw", map(float, rotation.as_quat()), strict=True)))


def vector(values: np.ndarray | tuple[float, float, float]) -> Message:
    """geometry_msgs/Vector3."""
    return Message(**dict(zip("xyz", map(float, values), strict=True)))


def transform_message(stamp: int, parent: str, child: str, parent_from_child: torch.Tensor) -> Message:
    """geometry_msgs/TransformStamped."""
    pose = parent_from_child.double().numpy()
    transform = Message(translation=vector(pose[:3, 3]), rotation=quaternion(Rotation.from_matrix(pose[:3, :3])))
    return Message(header=header(stamp, parent), child_frame_id=child, transform=transform)


def image_message(stamp: int, encoding: str, pixels: np.ndarray, frame: str = "optical") -> Message:
    """sensor_msgs/Image."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
    return Message(
        header=header(stamp, frame), height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, is_bigendian=0,
        step=rows.shape[1], data=rows.tobytes(),
    )  # fmt: skip
