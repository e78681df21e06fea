"""The grids that Nav2 reads, over DDS: values, frames and latching as its costmap filters want them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from nav2_msgs.msg import CostmapFilterInfo
from nav_msgs.msg import OccupancyGrid
from std_msgs.msg import String

from ff3r_ros.qos import LATCHED
from tests.support.robot import Robot
from tests.support.ros import Ros, wait_until

LETHAL, NO_INFORMATION = 254, 255


@pytest.fixture
def ros() -> Iterator[Ros]:
    ros = Ros()
    yield ros
    ros.close()


def costs(grid: OccupancyGrid, info: CostmapFilterInfo | None = None) -> np.ndarray:
    """What Nav2 makes of a grid: -1 is no information, 0 free, 100 lethal, linear between, after base + multiplier."""
    data = np.array(grid.data, np.int16).reshape(grid.info.height, grid.info.width)
    base, multiplier = (info.base, info.multiplier) if info is not None else (0.0, 1.0)
    scaled = np.clip((base + multiplier * data) / 100, 0, 1) * LETHAL
    return np.where(data == -1, NO_INFORMATION, scaled.round())


def cell(grid: OccupancyGrid, x: float, y: float) -> tuple[int, int]:
    """Row and column over a place in the map."""
    origin, resolution = grid.info.origin.position, grid.info.resolution
    return int((y - origin.y) // resolution), int((x - origin.x) // resolution)


def mapped(ros: Ros, **parameters: object) -> Robot:
    robot = Robot(ros, **parameters).activate()
    for windows, (first, last) in enumerate(((0, 4), (4, 6), (6, 8), (8, 10)), start=1):
        robot.film(first, last)
        robot.wait_for("windows", str(windows))
    return robot


def test_occupancy_and_keepout_mask(ros: Ros) -> None:
    mapped(ros, camera_height=0.5, queries=["red chair"], grid_resolution=0.05)
    late = ros.collect(OccupancyGrid, "/ff3r/occupancy_grid", LATCHED)
    masks = ros.collect(OccupancyGrid, "/ff3r/masks/q1", LATCHED)
    infos = ros.collect(CostmapFilterInfo, "/ff3r/masks/q1/filter_info", LATCHED)
    wait_until(lambda: late and masks and infos, "latched grids")

    grid = late[-1]
    assert grid.header.frame_id == "map" and grid.info.resolution == pytest.approx(0.05)
    assert grid.info.origin.orientation.w == 1.0
    cost = costs(grid)
    assert cost[cell(grid, 2.0, -0.3)] == LETHAL  # the wall, 4 units of half a metre ahead
    assert cost[cell(grid, 1.3, -0.3)] == 0  # floor before it
    assert (cost == NO_INFORMATION).any()
    assert set(np.unique(cost)) <= {0, LETHAL, NO_INFORMATION}

    info, mask = infos[-1], masks[-1]
    assert (info.type, info.base, info.multiplier) == (0, 0.0, 1.0)  # what a keepout filter insists on
    assert info.filter_mask_topic == "/ff3r/masks/q1" and info.header.frame_id == mask.header.frame_id == "map"
    kept_out = costs(mask, info)
    assert kept_out[cell(mask, 2.0, 0.4)] == LETHAL  # the chair hangs left of the start
    assert kept_out[cell(mask, 2.0, -0.4)] == 0  # wall without chair
    assert set(np.unique(kept_out)) <= {0, LETHAL, NO_INFORMATION}


def test_scores_in_place_of_lethal_cells(ros: Ros) -> None:
    robot = mapped(ros, camera_height=0.5, queries=["red chair"], mask_value=0, threshold=0.0)
    masks = ros.collect(OccupancyGrid, "/ff3r/masks/q1", LATCHED)
    wait_until(lambda: masks and masks[-1].info.width, "a mask")
    values = np.unique(np.array(masks[-1].data))
    assert len(values[(values > 0) & (values < 100)]) > 0, "with every voxel in the mask, some score is a middling one"
    robot.wait_for("queries", "1")


def test_unscaled_maps_have_no_grids_and_say_why(ros: Ros) -> None:
    robot = mapped(ros, queries=["red chair"])
    robot.wait_for("grids", "grids wait until the map is metric")
    late = ros.collect(OccupancyGrid, "/ff3r/occupancy_grid", LATCHED)
    robot.wait_for("windows", "4")
    assert not late


def test_a_removed_query_leaves_an_empty_mask(ros: Ros) -> None:
    robot = mapped(ros, camera_height=0.5, queries=["red chair"])
    masks = ros.collect(OccupancyGrid, "/ff3r/masks/q1", LATCHED)
    wait_until(lambda: masks and masks[-1].info.width, "a mask")
    ros.publisher(String, "/ff3r/query/remove", 10).publish(String(data="red chair"))
    wait_until(lambda: masks[-1].info.width == 0, "the empty mask")
    robot.wait_for("queries", "0")
