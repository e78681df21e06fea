"""Messages of the perception node → NumPy arrays, for subscribers. Stateless."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Pose
from numpy import ndarray
from sensor_msgs.msg import PointCloud2, PointField

from ff3r_ros.msg import OccupancyMask

NUMPY_TYPES = {
    PointField.INT32: "i4",
    PointField.UINT32: "u4",
    PointField.FLOAT32: "f4",
    PointField.FLOAT64: "f8",
    PointField.UINT8: "u1",
}


def cloud_arrays(cloud: PointCloud2) -> tuple[ndarray, ndarray]:
    """Points (n, 3) float32 and colours (n, 3) uint8 of a cloud with fields x, y, z, rgb."""
    fields = {
        item.name: (NUMPY_TYPES[item.datatype], item.offset) for item in cloud.fields if item.datatype in NUMPY_TYPES
    }
    layout = np.dtype(
        {
            "names": list(fields),
            "formats": [kind for kind, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": cloud.point_step,
        }
    )
    rows = np.frombuffer(cloud.data, dtype=layout, count=cloud.width * cloud.height)
    points = np.stack([rows["x"], rows["y"], rows["z"]], axis=1)
    packed = np.ascontiguousarray(rows["rgb"]).view(np.uint32)
    colors = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8)
    return points, colors


def voxel_centres(mask: OccupancyMask) -> ndarray:
    """Centres (n, 3) float64 of the listed voxels in the map's frame and unit."""
    indices = np.array(mask.indices, dtype=np.int64).reshape(-1, 3)
    origin = np.array([mask.origin.x, mask.origin.y, mask.origin.z])
    return origin + (indices + 0.5) * mask.voxel_size


def pose_matrix(pose: Pose) -> ndarray:
    """map_from_camera (4, 4) float64."""
    x, y, z, w = pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = position(pose)
    return matrix


def typical_spacing(points: ndarray) -> float:
    """A point size for clouds of unknown voxel size: their extent in 150 steps."""
    return float(np.linalg.norm(np.ptp(points, axis=0))) / 150 if len(points) > 1 else 0.05


def position(pose: Pose) -> tuple[float, float, float]:
    """(x, y, z) of a pose."""
    return pose.position.x, pose.position.y, pose.position.z
