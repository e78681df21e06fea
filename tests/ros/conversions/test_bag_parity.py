"""A message means the same image and the same calibration on a live robot and in a bag."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from ff3r_model.core.types import Frame
from ff3r_model.frames.image_messages import decode_depth
from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.source import SourceError
from ff3r_ros.perception.camera_input import CameraInput
from tests.ros.conversions.test_image_decoding import COLOURS, HEIGHT, RGB, WIDTH, message
from tests.ros.perception.test_camera_input import MODELS, K, camera_info, image_message

STORE = get_typestore(Stores.ROS2_KILTED)
SECOND = 10**9
DEPTH_ENCODINGS = {"16UC1", "32FC1", "64FC1"}


def write_bag(path: Path, recorded: Sequence[tuple[str, Image | CompressedImage | CameraInfo]]) -> Path:
    """A bag of (topic, message), as ROS itself serialises them."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, object] = {}
        for index, (topic, sent) in enumerate(recorded):
            kind = f"sensor_msgs/msg/{type(sent).__name__}"
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], SECOND + index, serialize_message(sent))  # type: ignore[arg-type]
    return path


def live(sent: Image | CompressedImage, info: CameraInfo | None = None, rectified: bool = False) -> Frame:
    """What the node makes of a message."""
    camera = CameraInput(lambda text: None, lambda: 0, rectified)
    if info is not None:
        camera.take_info(info)
    frame = camera.take_image(sent)
    assert frame is not None
    return frame


def assert_same(recorded: Frame, seen: Frame) -> None:
    assert torch.equal(recorded.image, seen.image)
    assert (recorded.stamp, recorded.camera_name) == (seen.stamp, seen.camera_name)
    assert (recorded.intrinsics is None) == (seen.intrinsics is None)
    if recorded.intrinsics is not None and seen.intrinsics is not None:
        assert torch.equal(recorded.intrinsics, seen.intrinsics)


@pytest.mark.parametrize("padding", [0, 16])
@pytest.mark.parametrize("encoding", sorted(COLOURS))
def test_every_encoding(tmp_path: Path, encoding: str, padding: int) -> None:
    sent = message(encoding, COLOURS[encoding][0], padding=padding)
    sent.header.frame_id, sent.header.stamp.sec = "optical", 7
    (frame,) = open_source(write_bag(tmp_path / "bag", [("/camera/image", sent)]))
    assert_same(frame, live(sent))


@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "32FC3"])
def test_big_endian_cameras(tmp_path: Path, encoding: str) -> None:
    sent = message(encoding, COLOURS[encoding][0], bigendian=True)
    sent.header.stamp.sec = 7
    (frame,) = open_source(write_bag(tmp_path / "bag", [("/camera/image", sent)]))
    assert_same(frame, live(sent))


@pytest.mark.parametrize(("suffix", "pixels"), [(".png", RGB), (".jpg", RGB), (".png", RGB.astype(np.uint16) * 257)])
def test_compressed_images(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    sent = CompressedImage(format=suffix[1:])
    sent.header.stamp.sec = 7
    sent.data.frombytes(cv2.imencode(suffix, pixels[..., ::-1])[1].tobytes())
    (frame,) = open_source(write_bag(tmp_path / "bag", [("/camera/image/compressed", sent)]))
    assert_same(frame, live(sent))


@pytest.mark.parametrize(
    "kind", ["rgb8; png compressed rgb8", "bgr8; png compressed bgr8", "bayer_rggb8; png compressed "]
)
def test_channel_orders_of_compressed_images(tmp_path: Path, kind: str) -> None:
    sent = CompressedImage(format=kind)
    sent.header.stamp.sec = 7
    pixels = COLOURS["bayer_rggb8"][0] if "bayer" in kind else RGB if "rgb8;" in kind else RGB[..., ::-1]
    sent.data.frombytes(cv2.imencode(".png", pixels)[1].tobytes())
    (frame,) = open_source(write_bag(tmp_path / "bag", [("/camera/image/compressed", sent)]))
    assert_same(frame, live(sent))
    difference = np.abs(frame.image.numpy().astype(int) - RGB)[2:-2, 2:-2]
    assert difference.max() <= (12 if "bayer" in kind else 0)


@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24"])
def test_planar_images_whose_height_counts_rows_in_memory(tmp_path: Path, encoding: str) -> None:
    rows, _, tolerance = COLOURS[encoding]
    sent = message(encoding, rows)
    sent.height, sent.header.stamp.sec = len(rows), 7
    (frame,) = open_source(write_bag(tmp_path / "bag", [("/camera/image", sent)]))
    assert_same(frame, live(sent))
    assert np.abs(frame.image.numpy().astype(int) - RGB)[2:-2, 2:-2].max() <= tolerance


@pytest.mark.parametrize("encoding", sorted(DEPTH_ENCODINGS))
def test_depth_is_no_picture_and_the_same_depth(tmp_path: Path, encoding: str) -> None:
    values = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) + 1
    kind = {"16UC1": np.uint16, "32FC1": np.float32, "64FC1": np.float64}[encoding]
    picture, depth = message("rgb8", RGB), message(encoding, values.astype(kind))
    for sent in (picture, depth):
        sent.header.stamp.sec = 7
    path = write_bag(tmp_path / "bag", [("/camera/image", picture), ("/camera/depth", depth)])
    with pytest.raises(SourceError, match=encoding):
        open_source(path, topic="/camera/depth")
    if encoding == "64FC1":
        with pytest.raises(SourceError, match="depth images are 16UC1"):
            open_source(path, depth="/camera/depth")
        return
    (frame,) = open_source(path, depth="/camera/depth")
    assert frame.depth is not None and torch.equal(frame.depth, decode_depth(depth))
    assert frame.depth.shape == (HEIGHT, WIDTH) and frame.depth.max() > 0


ROI = RegionOfInterest(x_offset=20, y_offset=10, width=160, height=120)
CALIBRATIONS = {
    "none": (camera_info(), True),
    **{model: (camera_info(model, distortion), True) for model, distortion in MODELS},
    "region of interest": (camera_info(*MODELS[0], roi=ROI), True),
    "binning": (camera_info(*MODELS[0], binning_x=2, binning_y=2), True),
    "both": (camera_info(roi=ROI, binning_x=2, binning_y=3), True),
    "uncalibrated": (CameraInfo(width=320, height=240), False),
    "another size": (camera_info(), False),
    "unknown model": (camera_info("double_sphere", (0.1, 0.2)), False),
    "wrong count": (camera_info("plumb_bob", (0.1, 0.2, 0.3)), False),
    "not finite": (camera_info("plumb_bob", (float("nan"),) * 5), False),
    "negative focal length": (CameraInfo(width=320, height=240, k=(-K).reshape(-1)), False),
}
"""Name → the camera_info, and whether it gives intrinsics."""
SIZES = {"region of interest": (160, 120), "binning": (160, 120), "both": (80, 40), "another size": (64, 48)}


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("name", CALIBRATIONS)
def test_every_calibration(tmp_path: Path, name: str, rectified: bool) -> None:
    info, calibrated = CALIBRATIONS[name]
    sent = image_message(*SIZES.get(name, (320, 240)), stamp=12)
    rng = np.random.default_rng(0)
    sent.data[:] = type(sent.data)("B", rng.integers(0, 255, len(sent.data), np.uint8).tobytes())
    topic = "/camera/image_rect" if rectified else "/camera/image_raw"
    (frame,) = open_source(write_bag(tmp_path / "bag", [("/camera/camera_info", info), (topic, sent)]))
    assert_same(frame, live(sent, info, rectified))
    if not rectified:
        assert (frame.intrinsics is not None) == calibrated
