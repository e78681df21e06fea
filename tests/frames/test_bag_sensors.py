"""Depth and odometry of bags: each frame gets what was measured at its own time, or goes without and it is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rosbags.rosbag2 import StoragePlugin, Writer
from scipy.spatial.transform import Rotation

from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.source import SourceError
from tests.frames.test_sources import DATA, SIZE, STORE, TYPES, compressed, info, raw

STAMP = 10**9
"""Of the first image; one every tenth of a second follows."""
STEP = 10**8
MOUNT = Rotation.from_euler("xyz", [-90, 10, 0], degrees=True), np.array([0.1, 0.0, 0.5])
"""base from camera."""


def robot(seconds: float) -> tuple[Rotation, np.ndarray]:
    """odom from base of a robot that turns and drives at constant speed."""
    return Rotation.from_euler("z", 0.5 * seconds), np.array([2.0 * seconds, -seconds, 0.0])


def transforms(stamp: int, parent: str, child: str, pose: tuple[Rotation, np.ndarray]) -> Any:
    time = TYPES["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    head = TYPES["std_msgs/msg/Header"](stamp=time, frame_id=parent)
    move = TYPES["geometry_msgs/msg/Vector3"](*map(float, pose[1]))
    turn = TYPES["geometry_msgs/msg/Quaternion"](*map(float, pose[0].as_quat()))
    transform = TYPES["geometry_msgs/msg/Transform"](translation=move, rotation=turn)
    stamped = TYPES["geometry_msgs/msg/TransformStamped"](header=head, child_frame_id=child, transform=transform)
    return TYPES["tf2_msgs/msg/TFMessage"](transforms=[stamped])


def depth(stamp: int, millimetres: int) -> Any:
    message = raw(0, "16UC1", data=np.full(SIZE, millimetres, np.uint16))
    message.header.stamp.sec, message.header.stamp.nanosec = stamp // 10**9, stamp % 10**9
    return message


def write(path: Path, recorded: list[tuple[int, str, Any]]) -> Path:
    """A bag of (nanoseconds of its recording, topic, message)."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for time, topic, message in sorted(recorded, key=lambda item: item[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=STORE)
            data = STORE.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], time, data)
    return path


IMAGES = [(STAMP + index * STEP, "/camera/image", raw(index)) for index in range(5)]


def test_depth_comes_with_the_frame_of_its_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stamps 15 ms apart belong together, 40 ms apart do not, and it does not matter how late depth was recorded."""
    offsets = [0, 15_000_000, -15_000_000, 40_000_000, 0]
    depths = [
        (STAMP + index * STEP + 700_000_000, "/depth", depth(STAMP + index * STEP + offset, 1000 + index))
        for index, offset in enumerate(offsets)
    ]
    path = write(tmp_path / "bag", [*IMAGES, *depths])
    assert all(frame.depth is None for frame in open_source(path))
    source = open_source(path, depth="/depth")
    with caplog.at_level(logging.WARNING):
        frames = list(source)
    assert [frame.stamp for frame in frames] == [stamp for stamp, _, _ in IMAGES]
    found = [None if frame.depth is None else round(float(frame.depth.max()) * 1000) for frame in frames]
    assert found == [1000, 1001, 1002, None, 1004]
    assert "1 frames: no depth image" in caplog.text
    assert [frame.stamp for frame in source] == [frame.stamp for frame in frames]  # iterating again starts again


def test_depth_is_straightened_as_the_images_are(tmp_path: Path) -> None:
    """A bright square is far away before and after, whatever the lens does to it."""
    square = np.zeros(SIZE, bool)
    square[5:15, 4:20] = True
    picture = raw(0, data=np.dstack([square, square, ~square]).astype(np.uint8) * 255)
    far = raw(0, "16UC1", data=np.where(square, 4000, 1000).astype(np.uint16))
    lens = info([-0.3, 0.1, 0.001, -0.001, 0.0])
    recorded = [(1, "/camera/camera_info", lens), (STAMP, "/camera/image", picture), (STAMP, "/depth", far)]
    (frame,) = open_source(write(tmp_path / "bag", recorded), depth="/depth")
    assert frame.intrinsics is not None and frame.intrinsics[0, 0] != 50 and frame.depth is not None
    bright, dark = frame.image[..., 0] == 255, frame.image[..., 0] == 0
    assert bright.sum() > 100 and not torch.equal(bright, torch.from_numpy(square))
    assert (frame.depth[bright] - 4).abs().max() < 1e-6 and (frame.depth[dark] - 1).abs().max() < 1e-6


@pytest.mark.parametrize("header", [b"", bytes(12)])
def test_compressed_depth(tmp_path: Path, header: bytes) -> None:
    """A PNG by itself, and as compressed_depth_image_transport sends it; only 16 bits are depth."""
    values = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE)
    message = compressed(0, data=values, kind="16UC1; compressedDepth png")
    message.data = np.frombuffer(header + message.data.tobytes(), np.uint8)
    colours = compressed(0)
    recorded = [*IMAGES[:1], (STAMP, "/depth/compressedDepth", message), (STAMP, "/other", colours)]
    path = write(tmp_path / "bag", recorded)
    (frame,) = open_source(path, "/camera/image", depth="/depth/compressedDepth")
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth.numpy(), values / 1000, atol=1e-6)
    with pytest.raises(SourceError, match="depth images are 16-bit grey"):
        open_source(path, depth="/other")


def test_real_depth() -> None:
    path = DATA / "rosbag2_redkitchen/mcap"
    if not path.exists():
        pytest.skip(f"no real recordings at {DATA}")
    frames = list(open_source(path, depth="/camera/depth/image_rect_raw/compressedDepth_png"))
    assert len(frames) == 40
    for frame in frames:
        assert frame.depth is not None and frame.depth.shape == (480, 640)
        known = frame.depth[(frame.depth > 0) & (frame.depth < 60)]  # 65.535 m: the sensor's word for unknown
        assert known.numel() > 0.5 * frame.depth.numel() and 0.5 < known.median() < 5  # a kitchen


def test_poses_are_those_of_the_images_time(tmp_path: Path) -> None:
    tree = [(STAMP + 350_000_000, "/tf_static", transforms(0, "base", "optical", MOUNT))]
    tree += [
        (STAMP + index * 7 * 10**7, "/tf", transforms(STAMP + index * 7 * 10**7, "odom", "base", robot(0.07 * index)))
        for index in range(8)
    ]
    path = write(tmp_path / "bag", [*IMAGES, *tree])
    assert all(frame.odom_from_camera is None for frame in open_source(path))
    for index, frame in enumerate(open_source(path, odom_frame="odom")):
        turn, move = robot(0.1 * index)
        assert frame.odom_from_camera is not None and frame.up is not None
        rotation = (turn * MOUNT[0]).as_matrix()
        np.testing.assert_allclose(frame.odom_from_camera[:3, :3], rotation, atol=1e-5)
        np.testing.assert_allclose(frame.odom_from_camera[:3, 3], turn.apply(MOUNT[1]) + move, atol=1e-5)
        np.testing.assert_allclose(frame.up, rotation[2], atol=1e-5)


def test_a_frame_that_nobody_publishes_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "bag", [*IMAGES, (STAMP, "/tf", transforms(STAMP, "odom", "base", robot(0)))])
    with caplog.at_level(logging.WARNING):
        frames = list(open_source(path, odom_frame="odometry"))
    assert len(frames) == 5 and all(frame.odom_from_camera is None for frame in frames)
    assert "nobody publishes odometry" in caplog.text and "5 frames: no odometry" in caplog.text


def test_what_a_bag_does_not_have_is_said_with_its_topics(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", list(IMAGES))
    with pytest.raises(SourceError, match=r"no image topic '/depth' for depth.*\n  /camera/image  "):
        open_source(path, depth="/depth")
    with pytest.raises(SourceError, match=r"no depth on /camera/image: unknown encoding: 'rgb8'.*\n  /camera/image  "):
        open_source(path, depth="/camera/image")
    with pytest.raises(SourceError, match=r"has no /tf, so no pose of the camera in 'odom'.*\n  /camera/image  "):
        open_source(path, odom_frame="odom")
    with pytest.raises(SourceError, match="is no bag, so it has no depth topic '/depth'"):
        open_source(tmp_path, depth="/depth")
    with pytest.raises(SourceError, match="is no bag, so it has no TF frame 'odom'"):
        open_source(tmp_path, odom_frame="odom")


def test_without_sensors_nothing_waits(tmp_path: Path) -> None:
    frames = list(open_source(write(tmp_path / "bag", list(IMAGES))))
    assert torch.equal(torch.tensor([frame.stamp for frame in frames]), STAMP + STEP * torch.arange(5))
