"""Which topics of a bag are used is decided by many of their messages, and said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.source import SourceError
from tests.frames.test_bag_sensors import STAMP, STEP, depth, transforms, write
from tests.frames.test_sources import SIZE, compressed, header, info, raw, write_bag

GREY = np.full((*SIZE, 3), 128, np.uint8)
BLACK = np.zeros((*SIZE, 3), np.uint8)


@pytest.mark.parametrize("start", [GREY, BLACK])
def test_a_topic_that_begins_grey_is_in_colour(tmp_path: Path, start: np.ndarray) -> None:
    """A camera adapts to the light, or fades in from black."""
    colour = [raw(index, data=start if index < 8 else None) for index in range(20)]
    path = write_bag(tmp_path / "bag", {"/color": colour, "/other": [raw(index) for index in range(5)]})
    assert open_source(path).count == 20


def test_damaged_first_images_do_not_condemn_a_topic(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [raw(index) for index in range(20)]
    for image in images[:3]:
        image.data = image.data[:1000]
    path = write_bag(tmp_path / "bag", {"/color": images, "/other": [raw(index) for index in range(5)]})
    with caplog.at_level(logging.WARNING):
        assert len(list(open_source(path))) == 17
    assert "3 of 20 images on /color left out: short data" in caplog.text


def test_one_good_image_behind_many_damaged_ones_is_found(tmp_path: Path) -> None:
    images = [raw(index) for index in range(40)]
    for index, image in enumerate(images):
        image.data = image.data if index == 23 else image.data[:1000]
    assert len(list(open_source(write_bag(tmp_path / "bag", {"/color": images})))) == 1


def test_topics_of_no_use_are_refused_once_with_all_of_them(tmp_path: Path) -> None:
    far = [depth(STAMP + index * STEP, 1000) for index in range(2)]
    other = [compressed(index, kind="h264") for index in range(3)]
    for message in other:
        message.data = np.frombuffer(b"\0\0\0\1 no picture", np.uint8)
    path = write_bag(tmp_path / "bag", {"/depth": far, "/video": other})
    with pytest.raises(SourceError) as refusal:
        open_source(path)
    words = str(refusal.value)
    assert "/depth: depth image: encoding '16UC1' holds depth, not colour" in words
    assert "/video: undecodable image: 15 bytes of format 'h264'" in words
    assert "\n  /depth  sensor_msgs/msg/Image  2 messages" in words
    assert "\n  /video  sensor_msgs/msg/CompressedImage  3 messages" in words


def test_damaged_first_depth_images_do_not_condemn_a_topic(tmp_path: Path) -> None:
    far = [depth(STAMP + index * STEP, 1000) for index in range(5)]
    far[0].data = far[0].data[:10]
    path = write_bag(tmp_path / "bag", {"/color": [raw(index) for index in range(5)], "/depth": far})
    assert [frame.depth is not None for frame in open_source(path, depth="/depth")] == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("lens", "options", "words"),
    [
        ("/left/camera_info", {}, "calibration: /left/camera_info; depth: not asked for; odometry: not asked for"),
        ("/camera_info", {}, "calibration: none, as there is no /left/camera_info but /camera_info; "),
        (
            "",
            {"depth": "/depth", "odom_frame": "odom"},
            "calibration: none, as there is no /left/camera_info; depth: /depth; odometry: odom",
        ),
    ],
)
def test_what_was_found_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lens: str, options: dict[str, str], words: str
) -> None:
    messages: list[tuple[int, str, Any]] = [(STAMP + i * STEP, "/left/image", raw(i)) for i in range(3)]
    messages += [(STAMP, "/front", raw(0)), (STAMP, "/depth", depth(STAMP, 1000))]
    pose = Rotation.identity(), np.zeros(3)
    messages += [(STAMP, "/tf", transforms(STAMP, "odom", "optical", pose))]
    messages += [(STAMP, lens, info([]))] if lens else []
    path = write(tmp_path / "bag", messages)
    with caplog.at_level(logging.INFO, "ff3r_model.frames"):
        open_source(path, **options)
    assert f"{path}: images of /left/image (3), not of /front (1); {words}" in caplog.text


# Time


def stamps(path: Path, **options: str) -> list[int]:
    return [(frame.stamp - STAMP) // STEP for frame in open_source(path, **options)]


def restamped(times: list[int]) -> list[tuple[int, str, Any]]:
    """Images recorded a step apart, of which the headers say these times (ns)."""
    messages = []
    for index, time in enumerate(times):
        message = raw(index)
        message.header = header(time)
        messages.append((STAMP + index * STEP, "/color", message))
    return messages


def test_images_without_stamps_have_the_time_of_their_recording(tmp_path: Path) -> None:
    """So have their depth images."""
    far = [(STAMP + index * STEP + 1, "/depth", depth(0, 1000 + index)) for index in range(4)]
    path = write(tmp_path / "bag", [*restamped([0] * 4), *far])
    assert stamps(path) == [0, 1, 2, 3]
    found = [frame.depth for frame in open_source(path, depth="/depth")]
    assert [None if item is None else round(float(item.max()), 3) for item in found] == [1.0, 1.001, 1.002, 1.003]


def test_an_image_without_a_stamp_among_others_with_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A simulation's clock and the recorder's are years apart: the frames after it would all be in the past."""
    times = [(index + 1) * STEP for index in range(6)]
    times[0] = times[3] = 0
    with caplog.at_level(logging.WARNING):
        found = [frame.stamp // STEP for frame in open_source(write(tmp_path / "bag", restamped(times)))]
    assert found == [2, 3, 5, 6] and "2 of 6 images on /color left out: no stamp" in caplog.text


@pytest.mark.parametrize("wrong", [2**31 * 10**9 - 1, 10**6])
@pytest.mark.parametrize("index", [0, 2])
def test_one_wrong_stamp_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: int, index: int) -> None:
    times = [STAMP * 100 + i * STEP for i in range(5)]
    times[index] = wrong
    with caplog.at_level(logging.WARNING):
        found = [frame.stamp for frame in open_source(write(tmp_path / "bag", restamped(times)))]
    early_first = index == 0 and wrong < times[1]  # nothing is before the first, and a pause after it is possible
    assert found == [time for time in times if time != wrong or early_first]
    assert ("impossible stamp" in caplog.text) != early_first


@pytest.mark.parametrize(
    "steps", [[0, 1, 2, 30, 31, 32], [0, 1, 3, 2, 4, 5], [50, 51, 52, 20, 21, 22], [0, 1, 2, 10**8, 10**8 + 1]]
)
def test_gaps_loops_and_small_disorder_are_not_judged_here(tmp_path: Path, steps: list[int]) -> None:
    times = [STAMP + step * STEP for step in steps]
    assert stamps(write(tmp_path / "bag", restamped(times))) == steps


def test_negative_stamps_and_impossible_transforms_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = restamped([STAMP + index * STEP for index in range(4)])
    images[1][2].header.stamp.sec = -5
    mount = transforms(0, "odom", "optical", (Rotation.identity(), np.zeros(3)))
    wrong = transforms(0, "odom", "optical", (Rotation.identity(), np.full(3, np.nan)))
    path = write(tmp_path / "bag", [*images, (STAMP, "/tf_static", mount), (STAMP + 1, "/tf", wrong)])
    with caplog.at_level(logging.WARNING):
        frames = list(open_source(path, odom_frame="odom"))
    assert [frame.odom_from_camera is not None for frame in frames] == [True] * 3
    assert "1 of 4 images on /color left out: impossible stamp: -5 s" in caplog.text
    assert "1 transforms not used: impossible translation or rotation" in caplog.text
