"""Intrinsics as users state them and as EXIF tells them, against known cameras."""

from __future__ import annotations

import io
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ff3r_model.core.types import Frame
from ff3r_model.frames.intrinsics import IntrinsicsError, StatedSource, exif_intrinsics, stated_camera

FRAME = Frame(torch.zeros(480, 640, 3, dtype=torch.uint8), 0)
CALIBRATION = """\
image_width: 640
image_height: 480
camera_name: head
camera_matrix: {rows: 3, cols: 3, data: [500, 0, 319.5, 0, 510, 239.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.2, 0.05, 0, 0, 0]}
"""


@pytest.mark.parametrize(
    "text", ["500,510,320,240", "500 510 320 240", "# of the left one\n500 0 320\n0 510 240\n0 0 1\n"]
)
def test_four_numbers_or_a_matrix_are_a_camera(text: str, tmp_path: Path) -> None:
    (tmp_path / "k.txt").write_text(text)
    for given in (str(tmp_path / "k.txt"), text.replace("# of the left one\n", "")):
        camera = stated_camera(given, None)
        assert camera is not None
        assert camera.of(FRAME).intrinsics.tolist() == [[500, 0, 320], [0, 510, 240], [0, 0, 1]]  # type: ignore[union-attr]


def test_a_field_of_view_is_the_horizontal_one() -> None:
    camera = stated_camera(None, 90.0)
    assert camera is not None
    matrix = camera.of(FRAME).intrinsics
    assert matrix is not None and matrix.flatten().tolist() == pytest.approx([320, 0, 320, 0, 320, 240, 0, 0, 1])


def test_a_calibration_of_ros_straightens_the_images(tmp_path: Path) -> None:
    (tmp_path / "head.yaml").write_text(CALIBRATION)
    camera = stated_camera(str(tmp_path / "head.yaml"), None)
    assert camera is not None
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    frame = camera.of(Frame(torch.from_numpy(image), 0))
    matrix = np.array([[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])
    assert frame.intrinsics is not None
    straight = frame.intrinsics.double().numpy() - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    expected = cv2.undistort(image, matrix, np.array([-0.2, 0.05, 0, 0, 0]), newCameraMatrix=straight)
    assert np.abs(frame.image.numpy().astype(int) - expected)[8:-8, 8:-8].mean() < 1
    with pytest.raises(IntrinsicsError, match="the calibration file is for 640x480, images have 32x24"):
        camera.of(Frame(torch.zeros(24, 32, 3, dtype=torch.uint8), 0))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("500,500,320", "holds 3 numbers"),
        ("500,500,x,240", "neither a file nor"),
        ("nothing.txt", "neither a file nor"),
        ("-500,500,320,240", "no camera matrix"),
        ("nan,500,320,240", "neither a file nor"),
        ("", "are no numbers"),
        ("1,2,3,4,5,6,7,8,9", "no camera matrix"),
    ],
)
def test_what_is_no_camera_is_refused(text: str, told: str) -> None:
    with pytest.raises(IntrinsicsError, match=told):
        stated_camera(text, None)


def test_damaged_calibrations_and_contradictions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.yaml"
    for damage in (
        CALIBRATION.replace("500", "nan"),
        CALIBRATION.replace("image_width: 640\n", ""),
        "camera_matrix: [",
    ):
        path.write_text(damage)
        with pytest.raises(IntrinsicsError, match=r"head\.yaml is no calibration"):
            stated_camera(str(path), None)
    path.write_text(CALIBRATION.replace("plumb_bob", "kaleidoscope"))
    with pytest.raises(IntrinsicsError, match="kaleidoscope"):
        stated_camera(str(path), None)
    with pytest.raises(IntrinsicsError, match="give one of them"):
        stated_camera("1,1,1,1", 60.0)
    for fov in (0.0, 180.0, math.nan):
        with pytest.raises(IntrinsicsError, match="--fov must be 5 to 170"):
            stated_camera(None, fov)


def test_a_principal_point_outside_of_the_image_shows_that_the_size_is_another() -> None:
    camera = stated_camera("1000,1000,960,540", None)
    assert camera is not None
    with pytest.raises(IntrinsicsError, match="outside images of 640x480"):
        camera.of(FRAME)


def test_a_source_gives_all_its_frames_the_stated_camera() -> None:
    class Two:
        name, fps, count = "two", 10.0, 2

        def __iter__(self):
            return iter((FRAME, FRAME))

    camera = stated_camera("500,510,320,240", None)
    assert camera is not None
    source = StatedSource(Two(), camera)
    assert (source.name, source.fps, source.count) == ("two", 10.0, 2)
    assert [float(frame.intrinsics[0, 0]) for frame in source] == [500, 500]  # type: ignore[index]


def photo(width: int, height: int, orientation: int = 1, **tags: object) -> Image.Image:
    exif = Image.Exif()
    exif[274] = orientation
    numbers = {"taken_w": 40962, "taken_h": 40963, "mm": 37386, "f35": 41989, "per_unit": 41486, "unit": 41488}
    exif.get_ifd(0x8769).update({numbers[name]: value for name, value in tags.items()})
    data = io.BytesIO()
    Image.new("RGB", (width, height)).save(data, "JPEG", exif=exif)
    return Image.open(data)


def test_focal_lengths_of_photos() -> None:
    phone = exif_intrinsics(photo(400, 300, f35=26, taken_w=4000, taken_h=3000))
    assert phone is not None and float(phone[0, 0]) == pytest.approx(26 / 43.2666 * 500, rel=1e-4)
    # A full-frame sensor of 6000 pixels on 36 mm, 50 mm lens, reduced to 600: 50 / 36 × 600.
    reflex = exif_intrinsics(photo(600, 400, mm=50.0, per_unit=6000 / 3.6, unit=3, taken_w=6000, taken_h=4000))
    assert reflex is not None and float(reflex[0, 0]) == pytest.approx(50 / 36 * 600, rel=1e-3)
    upright = exif_intrinsics(photo(400, 300, orientation=6, f35=26))
    assert upright is not None and upright[:2, 2].tolist() == [150, 200]


def test_photos_that_tell_no_focal_length() -> None:
    assert exif_intrinsics(photo(400, 300)) is None
    assert exif_intrinsics(photo(400, 300, f35=0)) is None
    assert exif_intrinsics(photo(300, 300, f35=26, taken_w=4000, taken_h=3000)) is None  # cropped since
    assert exif_intrinsics(photo(400, 300, mm=float("nan"), per_unit=1.0, unit=2, taken_w=400, taken_h=300)) is None
