"""Publishers of the map: all topics that the perception node publishes it on. Called from the worker's thread only."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Path
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header

from ff3r_model.frames.transforms import TransformBuffer
from ff3r_model.frames.used_camera import UsedCamera
from ff3r_model.pipeline import Pipeline
from ff3r_model.slam.mapper import MapUpdate
from ff3r_model.voxel_map.queries import Mask, Match, Query, best_queries
from ff3r_model.voxel_map.voxel_map import VoxelMap
from ff3r_ros.conversions import messages as conversions
from ff3r_ros.conversions.point_cloud import semantic_cloud
from ff3r_ros.msg import OccupancyMask, QueryList
from ff3r_ros.perception.grid_publishers import GridPublishers
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.tf_broadcaster import MapBroadcaster
from ff3r_ros.qos import LATCHED


class MapPublishers:
    """The node's outgoing topics. `publish` sends the whole map as it is now."""

    def __init__(
        self, node: Node, parameters: NodeParameters, transforms: TransformBuffer, camera_name: Callable[[], str]
    ) -> None:
        """`camera_name` gives the optical frame of the images: what TF places where no camera_frame is set."""
        self._node = node
        self.parameters = parameters
        """Replaced when `threshold` or `max_cloud_points` change."""
        self._camera_name = camera_name
        one_per_query = QoSProfile(
            depth=parameters.max_queries, reliability=LATCHED.reliability, durability=LATCHED.durability
        )
        self._cloud = node.create_publisher(PointCloud2, "~/semantic_cloud", LATCHED)
        self._pose = node.create_publisher(PoseStamped, "~/pose", LATCHED)
        self._uncertain_pose = node.create_publisher(PoseWithCovarianceStamped, "~/pose_with_covariance", LATCHED)
        self._camera = node.create_publisher(CameraInfo, "~/camera_info_estimated", LATCHED)
        self._path = node.create_publisher(Path, "~/path", LATCHED)
        self._masks = node.create_publisher(OccupancyMask, "~/occupancy_masks", one_per_query)
        self._queries = node.create_publisher(QueryList, "~/queries", LATCHED)
        self.tf = (
            MapBroadcaster(node, parameters.map_frame, parameters.odom_frame, transforms)
            if parameters.publish_tf
            else None
        )
        self.grids = GridPublishers(node)
        self._listed: dict[int, Query] = {}
        self._stamp = 0
        self._shown: weakref.ref[VoxelMap] | None = None

    def publish(self, pipeline: Pipeline, update: MapUpdate | None) -> None:
        """Cloud, masks, grids and queries; with an update the camera's poses too. Silent once ROS has shut down.

        All of them are of the map that is shown: poses wait while the camera is in a part of its own.
        """
        if not self._node.context.ok():
            return
        self._follow(pipeline.map)
        if update is not None:
            self._publish_camera(pipeline.camera, update.window.stamps[-1])
        if update is not None and update.accepted:
            self._publish_poses(pipeline, update)
        head = conversions.header(self._stamp, self.parameters.map_frame)
        matches = pipeline.queries.match(pipeline.map)
        self._cloud.publish(self._cloud_message(head, pipeline.map, matches))
        masks = [match.mask(pipeline.map) for match in matches]
        for message in [*self._emptied(head, masks), *(conversions.mask_message(head, mask) for mask in masks)]:
            self._masks.publish(message)
        self.grids.publish(head, pipeline.map, masks, self.parameters)
        listed = [(mask.query.id, mask.query.text, int(mask.indices.shape[0])) for mask in masks]
        self._queries.publish(conversions.query_list(head, listed, self.parameters.max_queries))

    def destroy(self) -> None:
        """Take all topics away; grids are emptied before."""
        self.grids.destroy(Header(frame_id=self.parameters.map_frame))
        poses = (self._pose, self._uncertain_pose, self._path, self._camera)
        for publisher in (self._cloud, *poses, self._masks, self._queries):
            self._node.destroy_publisher(publisher)
        if self.tf is not None:
            self.tf.destroy()

    def _follow(self, shown: VoxelMap) -> None:
        """What was said of another map's place in TF, and its path, are over."""
        if self._shown is not None and self._shown() is not shown:
            self._path.publish(conversions.path_message(self.parameters.map_frame, shown.trajectory()))
            if self.tf is not None:
                self.tf.clear()
        self._shown = weakref.ref(shown)

    def _publish_camera(self, camera: UsedCamera | None, stamp: int) -> None:
        """What the run takes an uncalibrated camera for, once it has estimated that."""
        if camera is not None and camera.estimated:
            self._camera.publish(conversions.camera_info(stamp, self._camera_name(), camera))

    def _publish_poses(self, pipeline: Pipeline, update: MapUpdate) -> None:
        if update.apart:
            if self.tf is not None:
                self.tf.lose()
            return
        frame, self._stamp = self.parameters.map_frame, update.window.stamps[-1]
        newest = update.map_from_camera[-1]
        self._pose.publish(conversions.pose_stamped(self._stamp, frame, newest))
        covariance = None if update.pose_covariance is None else update.pose_covariance[-1]
        self._uncertain_pose.publish(conversions.pose_with_covariance(self._stamp, frame, newest, covariance))
        self._path.publish(conversions.path_message(frame, pipeline.map.trajectory()))
        if self.tf is not None:
            odometry = update.window.odom_from_camera
            in_odom = None if odometry is None else odometry[-1]
            camera_frame = self.parameters.camera_frame or self._camera_name()
            self.tf.update(self._stamp, camera_frame, newest, in_odom, pipeline.map.metric)

    def _emptied(self, head: Header, masks: Sequence[Mask]) -> list[OccupancyMask]:
        """An empty mask for each query that is gone, so that nobody keeps its voxels."""
        before, self._listed = self._listed, {mask.query.id: mask.query for mask in masks}
        gone = [query for query_id, query in before.items() if query_id not in self._listed]
        return [OccupancyMask(header=head, query_id=query.id, query=query.text) for query in gone]

    def _cloud_message(self, head: Header, voxel_map: VoxelMap, matches: Sequence[Match]) -> PointCloud2:
        rows = voxel_map.spread_rows(self.parameters.max_cloud_points)
        ids, scores = best_queries(matches, voxel_map)
        return semantic_cloud(head, voxel_map.gaussians(rows), ids[rows], scores[rows])
