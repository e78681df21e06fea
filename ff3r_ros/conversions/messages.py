"""The pipeline's results → ROS messages. Stateless; quaternions turn from wxyz to xyzw here and nowhere else."""

from __future__ import annotations

import array
from collections.abc import Iterable, Sequence

import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseStamped,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Quaternion,
    Transform,
    TransformStamped,
    Vector3,
)
from jaxtyping import Float
from nav_msgs.msg import MapMetaData, OccupancyGrid, Path
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from torch import Tensor

from ff3r_model.core.geometry import matrix_to_quaternion
from ff3r_model.frames.used_camera import UsedCamera
from ff3r_model.voxel_map.occupancy_grid import Grid
from ff3r_model.voxel_map.queries import Mask
from ff3r_ros.msg import OccupancyMask, Query, QueryList

UNKNOWN_VARIANCE = 1e6
"""Square metres and square radians of a pose whose uncertainty nobody measured: filters that fuse it ignore it."""


def time_from_nanoseconds(stamp: int) -> Time:
    """A ROS time."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def header(stamp: int, frame: str) -> Header:
    """A header from nanoseconds."""
    return Header(stamp=time_from_nanoseconds(stamp), frame_id=frame)


def quaternion_message(rotation: Float[Tensor, "3 3"]) -> Quaternion:
    """xyzw of a rotation matrix."""
    w, x, y, z = matrix_to_quaternion(rotation.double()).tolist()
    return Quaternion(x=x, y=y, z=z, w=w)


def pose_message(target_from_source: Float[Tensor, "4 4"]) -> Pose:
    """The pose of `source` in `target`."""
    x, y, z = target_from_source[:3, 3].tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=quaternion_message(target_from_source[:3, :3]))


def pose_stamped(stamp: int, frame: str, map_from_camera: Float[Tensor, "4 4"]) -> PoseStamped:
    """The camera's pose (its optical frame) in the map."""
    return PoseStamped(header=header(stamp, frame), pose=pose_message(map_from_camera))


def pose_with_covariance(
    stamp: int, frame: str, map_from_camera: Float[Tensor, "4 4"], covariance: Float[Tensor, "6 6"] | None
) -> PoseWithCovarianceStamped:
    """The camera's pose in the map, with its covariance about the map's axes as `covariance_in_map` gives it.

    Position and rotation that nobody measured (None, NaN) have the variance UNKNOWN_VARIANCE along each axis.
    """
    if covariance is None or not bool(covariance.isfinite().all()):
        covariance = UNKNOWN_VARIANCE * torch.eye(6)
    pose = PoseWithCovariance(pose=pose_message(map_from_camera), covariance=covariance.flatten().tolist())
    return PoseWithCovarianceStamped(header=header(stamp, frame), pose=pose)


def camera_info(stamp: int, frame: str, camera: UsedCamera) -> CameraInfo:
    """Intrinsics of images without distortion; ROS puts pixel centres at integers. ValueError where none are known."""
    if camera.intrinsics is None:
        raise ValueError("nobody knows the camera's intrinsics")
    matrix = camera.intrinsics.double().clone()
    matrix[:2, 2] -= 0.5
    info = CameraInfo(header=header(stamp, frame), width=camera.width, height=camera.height)
    info.distortion_model, info.d = "plumb_bob", [0.0] * 5
    info.k, info.r = matrix.flatten().tolist(), torch.eye(3).flatten().tolist()
    info.p = torch.cat([matrix, torch.zeros(3, 1)], dim=1).flatten().tolist()
    return info


def path_message(frame: str, trajectory: Iterable[tuple[int, Float[Tensor, "4 4"]]]) -> Path:
    """All poses of a trajectory of (stamp, map_from_camera); the header has the newest stamp."""
    poses = [pose_stamped(stamp, frame, pose) for stamp, pose in trajectory]
    newest = poses[-1].header.stamp if poses else Time()
    return Path(header=Header(stamp=newest, frame_id=frame), poses=poses)


def transform_message(stamp: int, parent: str, child: str, parent_from_child: Float[Tensor, "4 4"]) -> TransformStamped:
    """TF's form of parent_from_child."""
    x, y, z = parent_from_child[:3, 3].tolist()
    rotation = quaternion_message(parent_from_child[:3, :3])
    transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=rotation)
    return TransformStamped(header=header(stamp, parent), child_frame_id=child, transform=transform)


def mask_message(head: Header, mask: Mask) -> OccupancyMask:
    """The voxels that answer one query."""
    x, y, z = mask.origin.tolist()
    return OccupancyMask(
        header=head,
        query_id=mask.query.id,
        query=mask.query.text,
        threshold=float(mask.threshold),
        voxel_size=float(mask.voxel_size),
        origin=Point(x=x, y=y, z=z),
        indices=_array("i", mask.indices.to(torch.int32)),
        scores=_array("f", mask.scores.float()),
        metric=bool(mask.metric),
    )


def grid_message(head: Header, grid: Grid) -> OccupancyGrid:
    """A mask seen from above, as Nav2's costmap filters take it."""
    rows, columns = grid.data.shape
    message = empty_grid(head, grid.resolution)
    message.info.width, message.info.height = columns, rows
    message.info.origin.position.x, message.info.origin.position.y = grid.origin
    message.data = _array("b", grid.data)
    return message


def empty_grid(head: Header, resolution: float) -> OccupancyGrid:
    """A grid without cells: nothing is masked anywhere."""
    info = MapMetaData(map_load_time=head.stamp, resolution=resolution)
    info.origin.orientation.w = 1.0
    return OccupancyGrid(header=head, info=info)


def query_list(head: Header, queries: Sequence[tuple[int, str, int]], max_queries: int) -> QueryList:
    """The active queries as (id, text, matching voxels)."""
    listed = [Query(id=id_, text=text, voxels=voxels) for id_, text, voxels in queries]
    return QueryList(header=head, queries=listed, max_queries=max_queries)


def _array(typecode: str, values: Tensor) -> array.array:
    """The values as the array type that rclpy takes without looking at each element."""
    result = array.array(typecode)
    result.frombytes(values.contiguous().cpu().numpy().tobytes())
    return result
