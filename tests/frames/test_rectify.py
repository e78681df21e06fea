"""Cameras that exist are believed; what no camera has is refused by name, before memory is taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from ff3r_model.frames.rectify import ImpossibleCameraError, Rectifier

REAL = {
    "EuRoC": (752, 480, 458.654, 457.296, 367.215, 248.375, "plumb_bob", [-0.2834, 0.07396, 0.00019, 1.76e-05, 0.0]),
    "TUM fr1": (640, 480, 517.3, 516.5, 318.6, 255.3, "plumb_bob", [0.2624, -0.9531, -0.0054, 0.0026, 1.1633]),
    "KITTI raw": (1392, 512, 984.2, 980.8, 690.0, 233.2, "plumb_bob", [-0.3729, 0.2037, 0.0022, 0.0014, -0.0723]),
    "GoPro": (1920, 1080, 870.0, 870.0, 960.0, 540.0, "plumb_bob", [-0.2526, 0.0826, -0.0004, 0.0003, -0.0115]),
    "RealSense D455": (1280, 720, 640.0, 640.0, 640.0, 360.0, "plumb_bob", [-0.055, 0.065, 0.0, 0.0, -0.021]),
    "Azure Kinect": (
        1280, 720, 605.3, 605.1, 637.9, 366.4, "rational_polynomial",
        [0.4593, -2.7134, 0.00099, -0.00009, 1.6126, 0.337, -2.5298, 1.5344],
    ),
    "Azure Kinect depth": (
        1024, 1024, 252.0, 252.0, 512.0, 512.0, "rational_polynomial",
        [5.03, 3.26, 0.00006, -0.00004, 0.169, 5.367, 4.91, 0.88],
    ),
    "TUM-VI": (512, 512, 190.978, 190.973, 254.93, 256.9, "equidistant", [0.00348, 0.000715, -0.00205, 0.0002]),
    "RealSense T265": (848, 800, 286.2, 286.1, 418.9, 402.5, "equidistant", [-0.0083, 0.0461, -0.0438, 0.0084]),
    "fisheye of 200°": (1080, 1080, 300.0, 300.0, 540.0, 540.0, "equidistant", [0.05, -0.01, 0.002, 0.0]),
}  # fmt: skip
"""Calibrations as they are published or typical: width, height, fx, fy, cx, cy, model, coefficients."""


@pytest.mark.parametrize("camera", REAL.values(), ids=list(REAL))
def test_cameras_that_exist(camera: tuple) -> None:
    width, height, fx, fy, cx, cy, model, distortion = camera
    rectifier = Rectifier(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), distortion, model, (width, height))
    assert rectifier.intrinsics[0, 0] > 0 and "_maps" not in vars(rectifier)  # made with the first image


GOOD = [[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]


@pytest.mark.parametrize(
    ("size", "matrix", "distortion", "reason"),
    [
        ((2**32 - 1, 2**32 - 1), GOOD, [], "impossible size"),
        ((20_000, 20_000), GOOD, [-0.3, 0.1, 0.0, 0.0, 0.0], "impossible size"),
        ((33_000, 1), GOOD, [], "impossible size"),
        ((640, 480), [[np.nan, 0, 320], [0, 500, 240], [0, 0, 1]], [], "impossible camera matrix"),
        ((640, 480), [[500, 0, 320], [0, 500, 240], [0, 0, 2]], [], "impossible camera matrix"),
        ((640, 480), [[500, 300, 320], [0, 500, 240], [0, 0, 1]], [], "impossible camera matrix"),
        ((640, 480), [[1e-3, 0, 320], [0, 500, 240], [0, 0, 1]], [], "impossible focal length"),
        ((640, 480), [[500, 0, 320], [0, 1e9, 240], [0, 0, 1]], [], "impossible focal length"),
        ((640, 480), [[500, 0, 32_000], [0, 500, 240], [0, 0, 1]], [], "impossible principal point"),
        ((640, 480), GOOD, [1e300, 0.0, 0.0, 0.0, 0.0], "impossible distortion"),
        ((640, 480), GOOD, [0.0, 0.0, 50.0, 0.0, 0.0], "impossible distortion"),
        ((640, 480), GOOD, [-30.0, 200.0, 0.0, 0.0, 0.0], "impossible distortion"),
    ],
)
def test_what_no_camera_has(
    size: tuple[int, int], matrix: list[list[float]], distortion: list[float], reason: str
) -> None:
    with pytest.raises(ImpossibleCameraError, match=reason) as refusal:
        Rectifier(np.array(matrix, float), distortion, "plumb_bob", size)
    assert refusal.value.reason == reason and len(str(refusal.value)) < 200
