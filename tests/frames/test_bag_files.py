"""Damaged, compressed and mistaken bags: read as far as they can be, or refused with what helps."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ff3r_model.frames.bag_files import is_bag
from ff3r_model.frames.image_folder import FolderSource
from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.rosbag import BagSource
from ff3r_model.frames.source import SourceError
from tests.frames.test_sources import SIZE, STORE, picture, raw, write_bag

COUNT = 6
SUFFIX = {StoragePlugin.MCAP: ".mcap", StoragePlugin.SQLITE3: ".db3"}
STORAGES = pytest.mark.parametrize("storage", SUFFIX)


def bag(path: Path, storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (COUNT, *SIZE, 3), np.uint8)
    return write_bag(path, {"/cam/image": [raw(index, data=image) for index, image in enumerate(noise)]}, storage)


def rosbag1(path: Path) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    with Rosbag1Writer(path) as writer:
        connection = writer.add_connection("/cam/image", "sensor_msgs/msg/Image", typestore=store)
        for index in range(COUNT):
            time = types["builtin_interfaces/msg/Time"](sec=1, nanosec=index * 10**8)
            head = types["std_msgs/msg/Header"](seq=index, stamp=time, frame_id="optical")
            message = types["sensor_msgs/msg/Image"](head, *SIZE, "rgb8", 0, 3 * SIZE[1], picture(index).ravel())
            writer.write(connection, 10**9 + index * 10**8, store.serialize_ros1(message, message.__msgtype__))
    return path


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize("whole_folder", [False, True])
@pytest.mark.parametrize(
    ("storage", "words"),
    [
        (StoragePlugin.MCAP, r"the recording was not closed: `mcap recover \S+bag.mcap -o recovered.mcap`"),
        (StoragePlugin.SQLITE3, r"the database is damaged: `sqlite3 \S+bag.db3 .recover"),
    ],
)
def test_cut_recordings(tmp_path: Path, storage: StoragePlugin, words: str, whole_folder: bool) -> None:
    folder = bag(tmp_path / "bag", storage)
    file = folder / f"bag{SUFFIX[storage]}"
    cut(file, 0.6)
    with pytest.raises(SourceError, match=words):
        open_source(folder if whole_folder else file)


def test_cut_rosbag1(tmp_path: Path) -> None:
    cut(rosbag1(tmp_path / "a.bag"), 0.6)
    with pytest.raises(SourceError, match=r"the recording was not closed: `rosbag reindex \S+a\.bag`"):
        open_source(tmp_path / "a.bag")


def test_what_is_there_of_a_damaged_database_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its first pages are whole, a later one is missing."""
    folder = bag(tmp_path / "bag", StoragePlugin.SQLITE3)
    cut(folder / "bag.db3", 0.999)
    with caplog.at_level(logging.WARNING):
        assert 0 < len(list(open_source(folder))) < COUNT
    assert "is damaged, and read no further: " in caplog.text


def test_damaged_messages_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first one too: it does not condemn the bag."""
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/cam/image", "sensor_msgs/msg/Image", typestore=STORE)
        for index in range(COUNT):
            data = bytes(STORE.serialize_cdr(raw(index), "sensor_msgs/msg/Image"))
            writer.write(connection, 10**9 + index * 10**8, data[:20] if index in (0, 3) else data)
    with caplog.at_level(logging.WARNING):
        assert len(list(open_source(tmp_path / "bag"))) == COUNT - 2
    assert "2 messages cannot be read: damaged message on /cam/image" in caplog.text


@pytest.mark.parametrize(
    "content", ["rosbag2_bagfile_information: [oops", "rosbag2_bagfile_information: 7", "x: 1", ""]
)
@STORAGES
def test_a_recording_without_usable_metadata_is_read(tmp_path: Path, content: str, storage: StoragePlugin) -> None:
    folder = bag(tmp_path / "bag", storage)
    (folder / "metadata.yaml").write_text(content)
    assert len(list(open_source(folder))) == COUNT
    shutil.copy(folder / f"bag{SUFFIX[storage]}", folder / f"other{SUFFIX[storage]}")
    with pytest.raises(SourceError, match="`ros2 bag reindex "):
        open_source(folder)


def test_rosbag1_folders(tmp_path: Path) -> None:
    rosbag1(tmp_path / "a.bag")
    assert len(list(open_source(tmp_path))) == COUNT
    rosbag1(tmp_path / "b.bag")
    with pytest.raises(SourceError, match=r"and 2 recordings: name one, e\.g\. \S+a\.bag"):
        open_source(tmp_path)


def test_metadata_itself_means_its_folder(tmp_path: Path) -> None:
    assert len(list(open_source(bag(tmp_path / "bag") / "metadata.yaml"))) == COUNT


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags(tmp_path: Path, mode: CompressionMode) -> None:
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/cam/image", "sensor_msgs/msg/Image", typestore=STORE)
        for index in range(COUNT):
            writer.write(connection, 10**9 + index, STORE.serialize_cdr(raw(index), "sensor_msgs/msg/Image"))
    assert len(list(open_source(tmp_path / "bag"))) == COUNT
    if mode is CompressionMode.FILE:
        (file,) = (tmp_path / "bag").glob("*.zstd")
        with pytest.raises(SourceError, match=r"\.db3\.zstd is compressed: give its folder, \S+bag$"):
            open_source(file)
        (tmp_path / "bag/metadata.yaml").unlink()
        for path in (file, tmp_path / "bag"):
            with pytest.raises(SourceError, match=r"decompress it \(`zstd -d \S+\.db3\.zstd`\)"):
                open_source(path)


@pytest.mark.parametrize("suffix", [".bag", ".mcap", ".db3"])
def test_other_files_with_a_bags_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"clip{suffix}").write_bytes(b"\0\0\0\x20ftypisom" + bytes(500))
    with pytest.raises(SourceError, match=rf"clip\{suffix} is no bag: \{suffix} files begin with "):
        open_source(tmp_path / f"clip{suffix}")


def test_photos_with_a_metadata_file_are_photos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    (tmp_path / "metadata.yaml").write_text("photographer: somebody\n")
    assert not is_bag(tmp_path) and isinstance(open_source(tmp_path), FolderSource)
    shutil.copy(bag(tmp_path / "bag") / "bag.mcap", tmp_path)
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_source(tmp_path), BagSource)
    assert "holds 1 images beside bag.mcap: the bag is read, not the images" in caplog.text


@pytest.mark.parametrize("flip", range(8))
@STORAGES
def test_flipped_bytes_never_crash(tmp_path: Path, storage: StoragePlugin, flip: int) -> None:
    folder = bag(tmp_path / "bag", storage)
    file = folder / f"bag{SUFFIX[storage]}"
    data, rng = bytearray(file.read_bytes()), np.random.default_rng(flip)
    ends = [int(rng.integers(0, 400)), -1 - int(rng.integers(0, 800)), int(rng.integers(0, len(data)))]
    for place in ends:
        data[place] ^= int(rng.integers(1, 256))
    file.write_bytes(data)
    try:
        frames = list(open_source(folder))
    except SourceError as error:
        assert "\n" not in str(error).split("; its topics:")[0]
    else:
        assert len(frames) <= COUNT
