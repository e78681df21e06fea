"""Occupancy grid and costmap filter masks for Nav2: one mask per query, and what the masks' values mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nav2_msgs.msg import CostmapFilterInfo
from nav_msgs.msg import OccupancyGrid
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from ff3r_model.voxel_map.occupancy_grid import GridConfig, MaskGrids, floor_height, occupancy_grid
from ff3r_model.voxel_map.queries import Mask
from ff3r_model.voxel_map.voxel_map import VoxelMap
from ff3r_ros.conversions import messages as conversions
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.qos import LATCHED

ACKNOWLEDGE = Duration(seconds=0.5)
"""How long a removed query's grid topic waits until its subscribers have the empty grid."""
KEEPOUT = 0
"""CostmapFilterInfo.type of keepout filters, which want base 0 and multiplier 1."""
UNSCALED = "grids wait until the map is metric"


class GridPublishers:
    """`~/occupancy_grid`, and for query number N `~/masks/qN` with `~/masks/qN/filter_info`.

    Grids have metres, so an unscaled map has none. A grid that is the same as before is not sent again.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._occupancy = node.create_publisher(OccupancyGrid, "~/occupancy_grid", LATCHED)
        self._masks: dict[int, tuple[Publisher[Any], Publisher[Any]]] = {}
        self._sent: dict[int, OccupancyGrid] = {}
        self._shown: tuple[int, int] | None = None
        self.withheld = ""
        """Why there are no grids; empty where there are, or nothing was mapped yet."""

    def publish(self, head: Header, voxel_map: VoxelMap, masks: Sequence[Mask], parameters: NodeParameters) -> None:
        """All grids of the map as it is now."""
        metric = {mask.query.id: mask for mask in masks} if voxel_map.metric else {}
        self.withheld = "" if voxel_map.metric or not len(voxel_map) else UNSCALED
        for query_id in self._masks.keys() - metric.keys():
            self._remove(head, query_id)
        if not voxel_map.metric:
            return
        resolution = parameters.grid_resolution or voxel_map.config.voxel_size
        self._publish_occupancy(head, voxel_map, resolution, parameters)
        band, value = (parameters.grid_low, parameters.grid_high), parameters.mask_value or None
        grids = MaskGrids(voxel_map, GridConfig(resolution=resolution, band=band, match=value)) if metric else None
        for query_id, mask in metric.items():
            assert grids is not None
            self._publish_mask(query_id, conversions.grid_message(head, grids.grid(mask)))

    def destroy(self, head: Header) -> None:
        """Take all topics away; grids are emptied before."""
        for query_id in list(self._masks):
            self._remove(head, query_id)
        self._node.destroy_publisher(self._occupancy)

    def _publish_occupancy(
        self, head: Header, voxel_map: VoxelMap, resolution: float, parameters: NodeParameters
    ) -> None:
        now = (id(voxel_map), voxel_map.revision)
        if now == self._shown:
            return
        self._shown = now
        ground = -parameters.camera_height if parameters.camera_height else floor_height(voxel_map)
        low, high = ground + parameters.obstacle_low, ground + parameters.obstacle_high
        config = GridConfig(resolution=resolution, band=(low, high), floor=(ground - parameters.obstacle_low, low))
        self._occupancy.publish(conversions.grid_message(head, occupancy_grid(voxel_map, config)))

    def _publish_mask(self, query_id: int, message: OccupancyGrid) -> None:
        if query_id not in self._masks:
            grid = self._node.create_publisher(OccupancyGrid, f"~/masks/q{query_id}", LATCHED)
            info = self._node.create_publisher(CostmapFilterInfo, f"~/masks/q{query_id}/filter_info", LATCHED)
            info.publish(CostmapFilterInfo(
                header=message.header, type=KEEPOUT, filter_mask_topic=grid.topic_name, base=0.0, multiplier=1.0
            ))  # fmt: skip
            self._masks[query_id] = grid, info
        before = self._sent.get(query_id)
        if before is None or before.data != message.data or before.info.origin != message.info.origin:
            self._masks[query_id][0].publish(message)
            self._sent[query_id] = message

    def _remove(self, head: Header, query_id: int) -> None:
        grid, info = self._masks.pop(query_id)
        self._sent.pop(query_id, None)
        if self._node.context.ok():
            grid.publish(conversions.empty_grid(head, resolution=1.0))
            grid.wait_for_all_acked(ACKNOWLEDGE)
        for publisher in (grid, info):
            self._node.destroy_publisher(publisher)
