"""Bags give the frames that were written, in order, and say exactly what is wrong with what they cannot read."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.rectify import Rectifier, UnknownDistortionError
from ff3r_model.frames.source import SourceError

DATA = Path(os.environ.get("FF3R_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
STORE = get_typestore(Stores.ROS2_KILTED)
TYPES = STORE.types
SIZE = (48, 64)


def picture(index: int) -> np.ndarray:
    """A smooth RGB image that differs from frame to frame."""
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    return np.stack([rows * 4, columns * 3, np.full_like(rows, 40 * index % 256)], axis=-1).astype(np.uint8)


def header(nanoseconds: int) -> Any:
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="optical")


def raw(index: int, encoding: str = "rgb8", padding: int = 0, data: np.ndarray | None = None) -> Any:
    data = picture(index) if data is None else data
    rows = np.pad(data.reshape(SIZE[0], -1).view(np.uint8), ((0, 0), (0, padding)), constant_values=77)
    return TYPES["sensor_msgs/msg/Image"](
        header=header(10**9 + index * 10**8),
        height=SIZE[0],
        width=SIZE[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.ravel(),
    )


def compressed(index: int, suffix: str = ".png", data: np.ndarray | None = None, kind: str = "png") -> Any:
    encoded = cv2.imencode(suffix, picture(index)[..., ::-1] if data is None else data)[1]
    return TYPES["sensor_msgs/msg/CompressedImage"](header=header(10**9 + index * 10**8), format=kind, data=encoded)


def info(distortion: list[float], model: str = "plumb_bob", size: tuple[int, int] = SIZE) -> Any:
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    matrix = np.array([50.0, 0, 31, 0, 51, 25, 0, 0, 1])
    projection = np.array([50.0, 0, 31, 0, 0, 51, 25, 0, 0, 0, 1, 0])
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header=header(10**9),
        height=size[0],
        width=size[1],
        distortion_model=model,
        d=np.array(distortion),
        k=matrix,
        r=np.eye(3).ravel(),
        p=projection,
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def write_bag(path: Path, topics: dict[str, Iterable[Any]], storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, messages in topics.items():
            connection = None
            for index, message in enumerate(messages):
                connection = connection or writer.add_connection(topic, message.__msgtype__, typestore=STORE)
                data = STORE.serialize_cdr(message, message.__msgtype__)
                writer.write(connection, 10**9 + index * 10**8, data)
    return path


# Bags


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("make", [raw, compressed, lambda index: raw(index, padding=5)])
def test_bag_gives_the_written_images(tmp_path: Path, make: Callable[[int], Any], storage: StoragePlugin) -> None:
    path = write_bag(tmp_path / "bag", {"/cam/image": [make(index) for index in range(4)]}, storage)
    source = open_source(path)
    frames = list(source)
    assert source.count == 4 and source.fps == pytest.approx(10, rel=0.01)
    for index, frame in enumerate(frames):
        assert torch.equal(frame.image, torch.from_numpy(picture(index)))
        assert (frame.stamp, frame.camera_name, frame.intrinsics) == (10**9 + index * 10**8, "optical", None)


def test_mcap_file_and_folder_without_metadata(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", {"/cam/image": [raw(index) for index in range(3)]})
    assert len(list(open_source(path / "bag.mcap"))) == 3
    (path / "metadata.yaml").unlink()
    assert len(list(open_source(path))) == 3


ENCODINGS = {
    "bgr8": lambda rgb: rgb[..., ::-1].copy(),
    "rgba8": lambda rgb: cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA),
    "bgra8": lambda rgb: cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA),
    "8UC3": lambda rgb: rgb[..., ::-1].copy(),
    "rgb16": lambda rgb: rgb.astype(np.uint16) * 257,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_bag_encodings(tmp_path: Path, encoding: str) -> None:
    messages = [raw(index, encoding, data=ENCODINGS[encoding](picture(index))) for index in range(2)]
    frames = list(open_source(write_bag(tmp_path / "bag", {"/cam/image": messages})))
    for index, frame in enumerate(frames):
        assert torch.equal(frame.image, torch.from_numpy(picture(index)))


def test_bag_takes_the_topic_with_most_colour_images(tmp_path: Path) -> None:
    depth = np.full(SIZE, 1500, dtype=np.uint16)
    grey = np.full(SIZE, 99, dtype=np.uint8)
    topics = {
        "/a/depth": [raw(index, "16UC1", data=depth) for index in range(9)],
        "/b/depth/compressed": [compressed(index, data=depth) for index in range(9)],
        "/c/infrared": [raw(index, "mono8", data=grey) for index in range(8)],
        "/d/few": [raw(index) for index in range(2)],
        "/e/many/compressed": [compressed(index) for index in range(3)],
    }
    path = write_bag(tmp_path / "bag", topics)
    assert len(list(open_source(path))) == 3
    assert len(list(open_source(path, topic="/d/few"))) == 2
    assert len(list(open_source(path, topic="/c/infrared"))) == 8
    with pytest.raises(SourceError, match=r"no image topic '/f'.*\n(.*\n)*  /d/few  sensor_msgs/msg/Image  2 messages"):
        open_source(path, topic="/f")
    with pytest.raises(SourceError, match="16UC1"):
        open_source(path, topic="/a/depth")


def test_bag_without_images_lists_its_topics(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", {"/cam/camera_info": [info([])]})
    with pytest.raises(SourceError, match=r"it has no image topic.*\n  /cam/camera_info  sensor_msgs/msg/CameraInfo"):
        open_source(path)
    with pytest.raises(SourceError, match="is no bag"):
        open_source(tmp_path, topic="/x")


def test_damaged_images_in_a_bag_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    short, empty = raw(1), compressed(2)
    short.data, empty.data = short.data[:100], empty.data[:0]
    path = write_bag(tmp_path / "bag", {"/cam/image": [raw(0), short]})
    with caplog.at_level(logging.WARNING):
        assert len(list(open_source(path))) == 1
    assert (
        "1 of 2 images on /cam/image left out: short data: 64x48 'rgb8' with step 192 needs 9216 bytes, has 100"
        in caplog.text
    )
    with pytest.raises(SourceError, match="0 bytes of format 'png' cannot be decoded"):
        open_source(write_bag(tmp_path / "bag2", {"/cam/image": [empty]}))


def test_truncated_bag(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", {"/cam/image": [raw(index) for index in range(5)]}) / "bag.mcap"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(SourceError, match=r"bag\.mcap cannot be read as a ROS bag"):
        list(open_source(path))


def test_bag_camera_info(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [raw(index) for index in range(2)]
    straight = write_bag(tmp_path / "a", {"/cam/image_raw": images, "/cam/camera_info": [info([])]})
    frame = next(iter(open_source(straight)))
    assert frame.intrinsics is not None
    assert torch.equal(frame.intrinsics, torch.tensor([[50.0, 0, 31.5], [0, 51, 25.5], [0, 0, 1]]))
    with caplog.at_level(logging.WARNING):
        other = write_bag(tmp_path / "b", {"/cam/image_raw": images, "/cam/camera_info": [info([], size=(96, 128))]})
        assert [frame.intrinsics for frame in open_source(other)] == [None, None]
        unknown = write_bag(tmp_path / "c", {"/cam/image_raw": images, "/cam/camera_info": [info([0.1], "ftheta")]})
        assert [frame.intrinsics for frame in open_source(unknown)] == [None, None]
    assert "2 images on /cam/image_raw: camera_info is for 128x96, images have 64x48: not used" in caplog.text
    assert "distortion model 'ftheta' is not one of" in caplog.text


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_rectified_pixels_follow_the_pinhole_that_is_reported(model: str) -> None:
    """Dots drawn where the distorted lens puts known rays are found where the new pinhole puts them."""
    camera = np.array([[300.0, 0, 320], [0, 300, 240], [0, 0, 1]])
    distortion = [-0.2, 0.05, 0.001, -0.001, 0.0] if model == "plumb_bob" else [0.05, -0.01, 0.002, 0.0]
    rays = np.array([[-0.5, -0.4, 1], [0.6, 0.3, 1], [0.05, 0.02, 1], [-0.3, 0.45, 1]])
    project = cv2.projectPoints if model == "plumb_bob" else cv2.fisheye.projectPoints
    arguments = (rays[:, None], np.zeros(3), np.zeros(3), camera, np.array(distortion))
    dots = project(*arguments)[0].reshape(-1, 2)
    rectifier = Rectifier(camera, distortion, model, (640, 480))
    for dot, ray in zip(dots, rays, strict=True):
        image = np.zeros((480, 640, 3), dtype=np.uint8)
        cv2.circle(image, tuple(int(value) for value in np.round(dot * 16)), 5 * 16, (255, 255, 255), -1, shift=4)
        straight = rectifier(image)[..., 0].astype(float)
        assert straight.sum() > 0
        rows, columns = np.mgrid[0:480, 0:640]
        found = np.array([(columns * straight).sum(), (rows * straight).sum()]) / straight.sum()
        expected = (rectifier.intrinsics @ ray)[:2] - 0.5  # rows and columns count from pixel centres
        assert np.abs(found - expected).max() < 0.25


def test_rectifier_leaves_straight_images_alone_and_refuses_unknown_models() -> None:
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    assert Rectifier(np.eye(3), [0.0] * 5, "whatever", SIZE[::-1])(image) is image
    with pytest.raises(UnknownDistortionError, match="'whatever'"):
        Rectifier(np.eye(3), [0.1], "whatever", SIZE[::-1])


# Real recordings


def test_real_bag() -> None:
    path = DATA / "rosbag2_redkitchen/mcap"
    if not path.exists():
        pytest.skip(f"no real recordings at {DATA}")
    source = open_source(path)
    frames = list(source)
    assert source.count == len(frames) == 40
    assert frames[0].image.shape == (480, 640, 3) and frames[0].intrinsics is not None
    assert frames[0].intrinsics[0, 0] == 585
    assert (frames[0].image[..., 0].float().mean() > frames[0].image[..., 2].float().mean()).item()  # a red kitchen


def test_real_video() -> None:
    path = DATA / "anysplat_videos/vrnerf_apartment.mp4"
    if not path.exists():
        pytest.skip(f"no real recordings at {DATA}")
    frames = list(open_source(path))
    assert len(frames) == 32 and frames[0].image.shape == (1122, 742, 3)
