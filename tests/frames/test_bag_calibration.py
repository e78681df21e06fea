"""A bag's images are rectified by the camera_info that holds at their time; what cannot be used is said and counted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ff3r_model.frames import calibration
from ff3r_model.frames.calibration_history import CalibrationHistory
from ff3r_model.frames.open_source import open_source
from tests.frames.test_bag_sensors import STAMP, STEP, depth, write
from tests.frames.test_sources import SIZE, TYPES, header, info, picture, raw

COUNT = 5
LATE = 5_000_000
"""Nanoseconds by which a camera_info is recorded after the image that it comes with."""
LENS = [-0.3, 0.1, 0.001, -0.001, 0.0]


def stamped_info(index: int, focal: float = 50.0, **fields: Any) -> Any:
    """The camera_info of the image of that index."""
    message = info(fields.pop("d", []), size=fields.pop("size", SIZE))
    message.header = header(STAMP + index * STEP)
    message.k = np.array([focal, 0, 31, 0, focal, 25, 0, 0, 1.0])
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def recorded(infos: dict[int, Any], images: list[Any] | None = None) -> list[tuple[int, str, Any]]:
    images = images or [raw(index) for index in range(COUNT)]
    calibrations = [(STAMP + i * STEP + LATE, "/cam/camera_info", message) for i, message in infos.items()]
    return [*((STAMP + i * STEP, "/cam/image_raw", image) for i, image in enumerate(images)), *calibrations]


def focal_lengths(path: Path) -> list[float | None]:
    return [None if frame.intrinsics is None else float(frame.intrinsics[0, 0]) for frame in open_source(path)]


def test_a_zoom_lens(tmp_path: Path) -> None:
    """The camera_info of the image's own stamp counts, not the last one that was recorded before it."""
    infos = {index: stamped_info(index, 50.0 if index < 3 else 80.0) for index in range(COUNT)}
    assert focal_lengths(write(tmp_path / "bag", recorded(infos))) == [50, 50, 50, 80, 80]


def test_a_camera_info_that_comes_late_holds_from_the_beginning(tmp_path: Path) -> None:
    assert focal_lengths(write(tmp_path / "bag", recorded({3: stamped_info(3, 60.0)}))) == [60] * COUNT


def test_camera_info_without_stamps_holds_from_its_recording(tmp_path: Path) -> None:
    infos = {index: stamped_info(index, 50.0 + index) for index in (0, 2)}
    for message in infos.values():
        message.header = header(0)
    assert focal_lengths(write(tmp_path / "bag", recorded(infos))) == [50, 50, 50, 52, 52]


def test_another_resolution_in_the_midst(tmp_path: Path) -> None:
    """Each half has a camera_info of its size, and is used with it."""
    small = [raw(index) for index in range(COUNT)]
    for image in small[2:]:
        image.height, image.width, image.step = SIZE[0] // 2, SIZE[1] // 2, 3 * SIZE[1] // 2
        image.data = np.ascontiguousarray(picture(1)[::2, ::2]).ravel()
    infos = {0: stamped_info(0), 2: stamped_info(2, 25.0, size=(SIZE[0] // 2, SIZE[1] // 2))}
    assert focal_lengths(write(tmp_path / "bag", recorded(infos, small))) == [50, 50, 25, 25, 25]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d": [np.nan] * 5}, "camera_info not used: camera_info with values that are not finite"),
        ({"d": [0.1, 0.2]}, "takes 4 or 5 or 8 or 12 or 14 coefficients, not 2"),
        ({"k": np.zeros(9)}, "is not calibrated (K is zero)"),
        ({"k": np.full(9, np.nan)}, "not finite"),
        ({"width": 0}, "camera_info of size 0x48"),
    ],
)
def test_a_damaged_camera_info_costs_only_its_own_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], words: str
) -> None:
    changes = {name: np.array(value) if name == "d" else value for name, value in changes.items()}
    infos = {index: stamped_info(index, **(changes if index in (0, 2) else {})) for index in range(COUNT)}
    for index in (0, 2):
        infos[index].d = changes.get("d", infos[index].d)
    path = write(tmp_path / "bag", recorded(infos))
    with caplog.at_level(logging.WARNING):
        assert focal_lengths(path) == [None, 50, None, 50, 50]
        assert all(torch.equal(frame.image, torch.from_numpy(picture(i))) for i, frame in enumerate(open_source(path)))
    assert words in caplog.text and "2 images on /cam/image_raw: their camera_info cannot be used" in caplog.text


def test_binned_and_cropped_images(tmp_path: Path) -> None:
    """K is of the full sensor: a point's pixel in the image follows from its pixel there."""
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](x_offset=20, y_offset=8, height=96, width=128, do_rectify=False)
    full = stamped_info(0, 200.0, size=(120, 160), binning_x=2, binning_y=2, roi=region)
    (frame, *_) = open_source(write(tmp_path / "bag", recorded({0: full})))
    assert frame.intrinsics is not None
    point = np.array([0.1, -0.05, 1.0])
    sensor = np.array([200 * 0.1 + 31.5, 200 * -0.05 + 25.5])  # pixel centres at integer + 0.5
    np.testing.assert_allclose((frame.intrinsics.numpy() @ point)[:2], (sensor - [20, 8]) / 2, atol=1e-4)


def test_depth_is_straightened_by_the_calibration_of_its_image(tmp_path: Path) -> None:
    """It waits for its frame in the synchroniser, and the lens changes meanwhile."""
    far = [(STAMP + index * STEP + LATE, "/depth", depth(STAMP + index * STEP, 1000)) for index in range(COUNT)]
    for index, (_, _, message) in enumerate(far):
        message.data = np.tile(np.arange(SIZE[1], dtype=np.uint16) + 1000 * index, SIZE[0]).view(np.uint8)
    infos = {index: stamped_info(index, d=LENS if index < 3 else []) for index in range(COUNT)}
    frames = list(open_source(write(tmp_path / "bag", [*recorded(infos), *far]), depth="/depth"))
    unchanged = torch.arange(SIZE[1]).expand(SIZE) / 1000
    for index, frame in enumerate(frames):
        assert frame.depth is not None
        assert torch.allclose(frame.depth - index, unchanged, atol=1e-5) == (index >= 3)


def test_rectifiers_are_made_only_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    original = calibration.Rectifier
    monkeypatch.setattr(calibration, "Rectifier", lambda *a: made.append(a) or original(*a))
    history = CalibrationHistory(False, made.append)
    for index in range(1000):
        history.add(stamped_info(index, 50.0 + index // 500), index)
    assert len(history) == 2 and not made
    for index in (*range(0, 1000, 10), 3):
        found = history.at(STAMP + index * STEP)
        assert found is not None and found.intrinsics is not None and found.intrinsics[0, 0] == 50 + index // 500
    assert len(made) == 3
    assert CalibrationHistory(False, made.append).at(STAMP) is None


def test_camera_infos_out_of_order() -> None:
    history = CalibrationHistory(False, lambda text: None)
    for index in (4, 0, 2):
        history.add(stamped_info(index, 50.0 + index), index)
    found = [history.at(STAMP + index * STEP) for index in range(-1, 6)]
    assert [float(item.intrinsics[0, 0]) - 50 for item in found if item and item.intrinsics is not None] == [
        0, 0, 0, 2, 2, 4, 4,
    ]  # fmt: skip
