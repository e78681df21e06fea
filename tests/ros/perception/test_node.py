"""The perception node over DDS, around a pipeline whose network is exact geometry."""

from __future__ import annotations

import gc
import pathlib
import weakref

import cv2
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import OccupancyGrid, Path
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ff3r_model.core.text_space import TextSpace
from ff3r_model.frames.stamps import nanoseconds_from_time
from ff3r_model.pipeline import Pipeline
from ff3r_ros.conversions.messages import header
from ff3r_ros.lifecycle import LifecycleClient
from ff3r_ros.msg import OccupancyMask, QueryList
from ff3r_ros.perception.node import PerceptionNode
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.pipeline_factory import config_from_parameters
from ff3r_ros.qos import LATCHED, LATCHED_MANY
from tests.support.fake_engine import DIM, SPEED, FakeEngine, FakeText, noise
from tests.support.robot import SECOND, START, Robot
from tests.support.ros import Ros, wait_until


def test_images_become_a_metric_map(ros: Ros) -> None:
    robot = Robot(ros, camera_height=0.5, queries=["red chair"])
    clouds = ros.collect(PointCloud2, "/ff3r/semantic_cloud", LATCHED)
    poses = ros.collect(PoseStamped, "/ff3r/pose", LATCHED)
    uncertain = ros.collect(PoseWithCovarianceStamped, "/ff3r/pose_with_covariance", LATCHED)
    paths = ros.collect(Path, "/ff3r/path", LATCHED)
    transforms = ros.collect(TFMessage, "/tf", 100)
    masks = ros.collect(OccupancyMask, "/ff3r/occupancy_masks", LATCHED_MANY)
    grids = ros.collect(OccupancyGrid, "/ff3r/masks/q1", LATCHED)
    lists = ros.collect(QueryList, "/ff3r/queries", LATCHED)
    robot.activate()
    for first, last in ((0, 4), (4, 6), (6, 8), (8, 10)):
        robot.film(first, last)
        robot.wait_for("windows", str((last - 2) // 2))
    wait_until(lambda: poses and poses[-1].header.stamp.sec == 10, "the newest pose")
    wait_until(lambda: grids and grids[-1].info.width, "a grid")
    robot.wait_for("metric", "yes, by camera height")

    # The camera slides right (the map's -y) at SPEED units per second; a unit is about half a metre.
    positions = {p.header.stamp.sec - 1: p.pose.position for p in paths[-1].poses}
    assert sorted(positions) == list(range(10)) and paths[-1].header.frame_id == "map"
    for second, position in positions.items():
        assert (position.x, position.y, position.z) == pytest.approx((0, positions[9].y * second / 9, 0), abs=0.002)
    assert positions[9].y == pytest.approx(-0.5 * SPEED * 9, rel=0.1)  # the scale comes from a fitted floor
    transform = transforms[-1].transforms[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "optical")
    assert transform.transform.translation.y == pytest.approx(poses[-1].pose.position.y)
    wait_until(lambda: uncertain and uncertain[-1].header == poses[-1].header, "the pose with its covariance")
    assert uncertain[-1].pose.pose == poses[-1].pose and uncertain[-1].pose.covariance[0] == 1e6, "nobody measured it"

    newest = wait_until(lambda: [mask for mask in masks if mask.metric], "a metric mask")[-1]
    assert (newest.query, newest.query_id, newest.header.frame_id) == ("red chair", 1, "map")
    voxels = np.array(newest.indices).reshape(-1, 3) * newest.voxel_size
    assert len(voxels) > 10 and (voxels[:, 1] > -0.11).all()  # the chair hangs on the wall left of the start
    assert np.abs(voxels[:, 0] - 2.0).max() < 0.2  # 4 units ahead
    grid = np.array(grids[-1].data).reshape(grids[-1].info.height, grids[-1].info.width)
    assert grid.max() >= 50 and (grid == 0).any() and (grid == -1).any()

    rows = np.frombuffer(clouds[-1].data, np.float32).reshape(-1, 7)
    chairs = rows.view(np.int32)[:, 5] == 1
    assert len(rows) == clouds[-1].width == int(robot.values["voxels"]) and chairs.sum() == len(voxels)
    assert set(rows.view(np.int32)[:, 5].tolist()) == {-1, 1} and (rows[chairs, 6] >= 0.5).all()
    assert sorted(rows[chairs, 6].tolist()) == sorted(newest.scores) and (rows[~chairs, 6] == 0).all()
    assert [(q.id, q.text, q.voxels) for q in lists[-1].queries] == [(1, "red chair", len(voxels))]
    assert int(robot.values["map bytes"]) <= int(robot.values["map bytes allowed"])
    assert robot.fresh_status().level == DiagnosticStatus.OK


def test_the_map_stays_while_the_camera_is_in_a_part_of_its_own(ros: Ros) -> None:
    robot = Robot(ros, camera_height=0.5, queries=["red chair"]).activate()
    clouds = ros.collect(PointCloud2, "/ff3r/semantic_cloud", LATCHED)
    poses, paths = ros.collect(PoseStamped, "/ff3r/pose", LATCHED), ros.collect(Path, "/ff3r/path", LATCHED)
    grids = ros.collect(OccupancyGrid, "/ff3r/occupancy_grid", LATCHED)
    for window, (first, last) in enumerate(((0, 4), (4, 6), (6, 8), (8, 10)), 1):
        robot.film(first, last)
        robot.wait_for("windows", str(window))
    wait_until(lambda: clouds and clouds[-1].header.stamp.sec == 10 and grids and len(paths) == 4, "the map")
    voxels, data, grid, transforms = robot.values["voxels"], clouds[-1].data, grids[-1].data, len(poses)
    heard = ros.collect(TFMessage, "/tf", 100)
    # Lifted and carried off: the next window shares no keyframe with the map.
    robot.node._submit(lambda pipeline: pipeline.windows.reset())
    robot.film(20, 24)
    robot.wait_for("windows", "5")
    status = robot.fresh_status()
    assert status.level == DiagnosticStatus.WARN
    assert status.message == "tracking lost: mapping part 1 apart from the map that is shown (part 0)"
    assert (robot.values["submap shown"], robot.values["submaps"], robot.values["voxels"]) == ("0", "2", voxels)
    assert robot.values["metric"].startswith("yes") and "map -> camera waits" in robot.values["tf"]
    assert clouds[-1].data == data and clouds[-1].header.stamp.sec == 10 and grids[-1].data == grid
    assert len(poses) == transforms and len(paths[-1].poses) == 10 and not heard


def test_an_unscaled_map_says_so(ros: Ros) -> None:
    robot = Robot(ros, queries=["red chair"]).activate()
    masks = ros.collect(OccupancyMask, "/ff3r/occupancy_masks", LATCHED_MANY)
    robot.film(0, 4)
    robot.wait_for("windows", "1")
    wait_until(lambda: masks and len(masks[-1].indices), "a mask")
    assert not masks[-1].metric and "camera_height" in robot.values["metric"]
    assert not [name for name, _ in ros.probe.get_topic_names_and_types() if name.startswith("/ff3r/masks")]


def test_who_comes_late_sees_everything(ros: Ros) -> None:
    robot = Robot(ros, camera_height=0.5, queries=["red chair", "floor"]).activate()
    for first, last in ((0, 4), (4, 6), (6, 8)):
        robot.film(first, last)
        robot.wait_for("windows", str((last - 2) // 2))
    cloud, path = ros.collect(PointCloud2, "/ff3r/semantic_cloud", LATCHED), ros.collect(Path, "/ff3r/path", LATCHED)
    pose, lists = ros.collect(PoseStamped, "/ff3r/pose", LATCHED), ros.collect(QueryList, "/ff3r/queries", LATCHED)
    masks = ros.collect(OccupancyMask, "/ff3r/occupancy_masks", LATCHED_MANY)
    grid = ros.collect(OccupancyGrid, "/ff3r/masks/q2", LATCHED)
    wait_until(lambda: cloud and path and pose and lists and grid, "latched messages")
    wait_until(lambda: {mask.query for mask in masks if mask.metric} == {"red chair", "floor"}, "both masks")
    assert cloud[-1].width > 0 and len(path[-1].poses) == 8
    assert nanoseconds_from_time(pose[-1].header.stamp) == START + 7 * SECOND


def test_queries_come_and_go(ros: Ros) -> None:
    robot = Robot(ros, camera_height=0.5).activate()
    lists = ros.collect(QueryList, "/ff3r/queries", LATCHED)
    masks = ros.collect(OccupancyMask, "/ff3r/occupancy_masks", LATCHED_MANY)
    for first, last in ((0, 4), (4, 6), (6, 8)):
        robot.film(first, last)
        robot.wait_for("windows", str((last - 2) // 2))
    robot.ask("red chair", "floor", "red chair")  # live, without a new image
    wait_until(lambda: lists and len(lists[-1].queries) == 2, "two queries")
    assert [(query.id, query.text) for query in lists[-1].queries] == [(1, "red chair"), (2, "floor")]
    grids = ros.collect(OccupancyGrid, "/ff3r/masks/q1", LATCHED)
    wait_until(lambda: grids and grids[-1].info.width, "the chair's grid")
    robot.ask("red chair", topic="/ff3r/query/remove")
    wait_until(lambda: lists[-1].queries[0].text == "floor", "the chair to go")
    wait_until(lambda: not grids[-1].data, "an empty grid")
    wait_until(lambda: not ros.probe.count_publishers("/ff3r/masks/q1"), "the grid's topic to go")
    wait_until(lambda: [m for m in masks if m.query_id == 1 and not m.indices], "the chair's empty mask")
    robot.ask("2", topic="/ff3r/query/remove")
    wait_until(lambda: not lists[-1].queries, "the floor to go")
    robot.ask("wall")
    wait_until(lambda: [query.id for query in lists[-1].queries] == [3], "a new id")
    assert ros.call(Trigger, "/ff3r/clear_queries").success
    robot.wait_for("queries", "0")


def test_reset_starts_a_new_map(ros: Ros) -> None:
    robot = Robot(ros, queries=["floor"]).activate()
    clouds = ros.collect(PointCloud2, "/ff3r/semantic_cloud", LATCHED)
    robot.film(0, 4)
    robot.wait_for("windows", "1")
    assert ros.call(Trigger, "/ff3r/reset").success
    wait_until(lambda: clouds and clouds[-1].width == 0, "an empty cloud")
    robot.wait_for("voxels", "0")
    robot.film(4, 8)
    robot.wait_for("windows", "2")
    assert robot.values["queries"] == "1" and int(robot.values["voxels"]) > 0


def test_callbacks_never_wait_for_the_network(ros: Ros) -> None:
    robot = Robot(ros, inbox_frames=4).activate()
    robot.engine.gate.clear()
    robot.film(0, 4)
    wait_until(robot.engine.running.is_set, "the network to start")
    robot.film(4, 16)  # each image is taken while the network runs
    assert robot.fresh_status().level == DiagnosticStatus.OK and robot.engine.running.is_set()
    assert robot.node.set_parameters([Parameter("threshold", value=0.4)])[0].successful
    robot.engine.gate.set()
    robot.wait_for("windows", "2")
    assert int(robot.values["dropped: backlog"]) > 0 and robot.engine.views == [4, 4]


def test_a_window_of_64_views(ros: Ros) -> None:
    robot = Robot(ros, views=64, overlap=32).activate()
    robot.film(0, 64)
    robot.wait_for("windows", "1", timeout=90)
    assert robot.engine.views == [64] and int(robot.values["voxels"]) > 0
    assert ros.probe.count_publishers("/ff3r/semantic_cloud") == 1


def test_a_failing_network_is_survived(ros: Ros) -> None:
    robot = Robot(ros).activate()
    robot.film(0, 4)
    robot.wait_for("windows", "1")
    voxels = robot.values["voxels"]
    robot.engine.fail = [ValueError("a broken kernel"), torch.OutOfMemoryError("tried to allocate 9 TiB")]
    robot.film(4, 6)
    robot.wait_for("failures", "1")
    status = robot.fresh_status()
    assert status.level == DiagnosticStatus.ERROR and "a broken kernel" in status.message
    robot.film(6, 8)
    robot.wait_for("failures", "2")
    assert "long_side" in robot.values["last error"] and robot.values["voxels"] == voxels
    robot.film(8, 12)
    wait_until(lambda: int(robot.values["windows"]) > 1, "a window that works")
    assert robot.fresh_status().level != DiagnosticStatus.ERROR and int(robot.values["voxels"]) > int(voxels)


@pytest.mark.parametrize("reliability", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_cameras_of_either_reliability(ros: Ros, reliability: ReliabilityPolicy) -> None:
    robot = Robot(ros).activate()
    robot.camera = ros.publisher(Image, "image", QoSProfile(depth=5, reliability=reliability))
    robot.film(0, 4)
    robot.wait_for("windows", "1")


def test_compressed_images(ros: Ros) -> None:
    robot = Robot(ros, image_transport="compressed")
    robot.lifecycle.drive("active", timeout=30)
    robot.camera = ros.publisher(CompressedImage, "image", 10)
    for index in range(4):
        _, data = cv2.imencode(".jpg", noise(index))
        message = CompressedImage(header=header(START + index * SECOND, "optical"), format="jpeg")
        message.data.frombytes(data.tobytes())
        robot.send(message)
    robot.wait_for("windows", "1")


def test_topics_go_by_the_configuration_file(ros: Ros, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text("window: {long_side: 56}\nqueries: {max_queries: 3}\nmapping: {map: {max_map_bytes: 50000000}}\n")
    lists = ros.collect(QueryList, "/ff3r/queries", LATCHED)
    node = ros.run(PerceptionNode(configured_pipeline, **ros.options(config_file=str(file), queries=["chair"])))
    LifecycleClient("/ff3r", ros.context).drive("active", timeout=30)
    wait_until(lambda: lists, "the list of queries")
    assert lists[-1].max_queries == 3
    assert node.session.publishers.parameters.max_map_bytes == 50_000_000


def test_what_the_run_believes_of_the_camera_is_published(ros: Ros, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text("refine: tracks\ntracks: {gaps: network}\n")
    robot = Robot(ros, config_file=str(file)).activate()
    infos = ros.collect(CameraInfo, "/ff3r/camera_info_estimated", LATCHED)
    robot.film(0, 4)
    robot.wait_for("windows", "1")
    assert robot.values["engine"] == "FakeEngine"
    assert not infos and robot.values["focal length"].startswith("not known")
    robot.node._submit(lambda pipeline: pipeline.refinement.tracks.belief.recall(0.5, 0.02))
    robot.film(4, 6)
    wait_until(lambda: infos, "the estimated camera")
    assert (infos[0].width, infos[0].height, infos[0].header.frame_id) == (64, 48, "optical")
    assert infos[0].k[0] == pytest.approx(0.5 * 64, rel=0.02) and infos[0].k[2] == 31.5
    robot.wait_for("focal length", "32 of 64x48 pixels, estimated within 2 %")


def configured_pipeline(settings: NodeParameters) -> Pipeline:
    """The fake network's pipeline, by the parameters and the file that they name."""
    return Pipeline(FakeEngine(), FakeText(), TextSpace(torch.eye(DIM)), config_from_parameters(settings))


def test_cleanup_lets_go_of_the_network_at_once(ros: Ros) -> None:
    """A second one beside it would double the node's memory."""
    robot = Robot(ros).activate()
    robot.film(0, 6)
    pipeline = weakref.ref(robot.node.session.worker._pipeline)
    gc.disable()
    try:
        robot.lifecycle.drive("unconfigured")
        wait_until(lambda: pipeline() is None, "the end of the pipeline", 5)
    finally:
        gc.enable()
