"""Calibration against rendered geometry, and what becomes of images that do not fit it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from ff3r_model.core.types import Frame
from ff3r_model.frames.calibration import CalibrationRejected, calibration_from_info
from ff3r_model.frames.rectify import GRID
from ff3r_model.frames.sensor_sync import SensorSynchronizer, SyncConfig
from ff3r_model.frames.transforms import TransformBuffer
from ff3r_ros.perception.camera_input import CameraInput
from tests.support.messages import image_message as depth_message

WIDTH, HEIGHT = 320, 240
K = np.array([[250.0, 0, 155], [0, 255, 122], [0, 0, 1]])


def camera_info(model: str = "plumb_bob", distortion: tuple[float, ...] = (), **fields: object) -> CameraInfo:
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model=model, d=list(distortion), **fields)
    info.k = K.reshape(-1)
    info.p = np.hstack([np.diag([2, 2, 1]) @ K, np.zeros((3, 1))]).reshape(-1)
    return info


def image_message(width: int = WIDTH, height: int = HEIGHT, stamp: int = 5, value: int = 7) -> Image:
    message = Image(width=width, height=height, encoding="rgb8", step=3 * width)
    message.header.frame_id, message.header.stamp.nanosec = "optical", stamp
    message.data.frombytes(bytes([value]) * (3 * width * height))
    return message


def project_distorted(rays: np.ndarray, model: str, distortion: tuple[float, ...]) -> np.ndarray:
    """Pixels (centres at integers) of (x/z, y/z) directions, by the models' definitions in OpenCV's documentation."""
    x, y = rays.T
    r2 = x * x + y * y
    if model in ("equidistant", "fisheye"):
        r = np.sqrt(r2)
        theta = np.arctan(r)
        k1, k2, k3, k4 = distortion
        scale = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8) / np.maximum(r, 1e-12)
        u, v = x * scale, y * scale
    else:
        k1, k2, p1, p2, k3, k4, k5, k6 = (*distortion, 0, 0, 0, 0)[:8]
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([u * K[0, 0] + K[0, 2], v * K[1, 1] + K[1, 2]], axis=1)


MODELS = [
    ("plumb_bob", (-0.3, 0.1, 0.001, -0.002, 0.0)),
    ("rational_polynomial", (-0.25, 0.08, 0.001, -0.001, 0.01, 0.05, 0.01, 0.002)),
    ("equidistant", (-0.02, 0.01, 0.001, -0.001)),
    ("fisheye", (0.05, -0.01, 0.001, 0.0)),
]


@pytest.mark.parametrize(("model", "distortion"), MODELS)
def test_rectified_pixels_are_those_of_a_pinhole_camera(model: str, distortion: tuple[float, ...]) -> None:
    """Blobs drawn where the distorted camera sees known directions end up where the pinhole intrinsics say."""
    rays = np.array([[0.0, 0.0], [0.3, 0.2], [-0.35, 0.1], [0.2, -0.25], [-0.3, -0.2]])
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    drawn = np.zeros((HEIGHT, WIDTH))
    for x, y in project_distorted(rays, model, distortion):
        drawn += np.exp(-((u - x) ** 2 + (v - y) ** 2) / 8)
    image = torch.from_numpy((np.dstack([drawn] * 3) * 255).clip(0, 255).astype(np.uint8))
    calibration = calibration_from_info(camera_info(model, distortion))
    assert calibration is not None and calibration.warning == ""
    straight = calibration.rectify(image)[..., 0].double().numpy()
    for ray in rays:
        expected = (calibration.intrinsics.numpy() @ [*ray, 1.0])[:2]  # pixel centres at integer + 0.5
        near = np.hypot(u + 0.5 - expected[0], v + 0.5 - expected[1]) < 8
        weight = straight * near
        centroid = np.array([(weight * (u + 0.5)).sum(), (weight * (v + 0.5)).sum()]) / weight.sum()
        assert np.abs(centroid - expected).max() < 0.25


def test_no_distortion_leaves_the_image_alone() -> None:
    calibration = calibration_from_info(camera_info(distortion=(0.0,) * 5))
    assert calibration is not None
    image = torch.randint(0, 255, (HEIGHT, WIDTH, 3), dtype=torch.uint8)
    assert torch.equal(calibration.rectify(image), image)
    assert calibration.intrinsics[:2, 2].tolist() == [155.5, 122.5]


def test_rectified_topics_use_p() -> None:
    calibration = calibration_from_info(camera_info(distortion=(-0.3, 0.1, 0, 0, 0)), image_is_rectified=True)
    assert calibration is not None
    assert calibration.intrinsics[0, 0] == 500 and calibration.intrinsics[0, 2] == 310.5
    image = torch.randint(0, 255, (HEIGHT, WIDTH, 3), dtype=torch.uint8)
    assert torch.equal(calibration.rectify(image), image)


def test_region_of_interest_and_binning() -> None:
    """A point's pixel in the cropped, binned image follows from its pixel in the full one."""
    roi = RegionOfInterest(x_offset=20, y_offset=10, width=200, height=160)
    calibration = calibration_from_info(camera_info(roi=roi, binning_x=2, binning_y=4))
    assert calibration is not None and (calibration.height, calibration.width) == (40, 100)
    point = np.array([0.1, -0.2, 1.0])
    full = (K @ point)[:2] + 0.5
    expected = (full - [20, 10]) / [2, 4]
    assert np.allclose((calibration.intrinsics.double().numpy() @ point)[:2], expected, atol=1e-4)


def test_uncalibrated_camera() -> None:
    assert calibration_from_info(CameraInfo(width=4, height=4)) is None


def test_unknown_model_warns_and_keeps_the_image() -> None:
    calibration = calibration_from_info(camera_info("double_sphere", (0.1, 0.2)))
    assert calibration is not None and "'double_sphere'" in calibration.warning
    image = torch.randint(0, 255, (HEIGHT, WIDTH, 3), dtype=torch.uint8)
    assert torch.equal(calibration.rectify(image), image)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (camera_info("plumb_bob", (0.1, 0.2, 0.3)), "not 3"),
        (camera_info("equidistant", (0.1,) * 5), "takes 4 coefficients, not 5"),
        (camera_info("plumb_bob", (float("nan"),) * 5), "not finite"),
        (CameraInfo(width=0, height=0, k=K.reshape(-1)), "0x0"),
        (CameraInfo(width=4, height=4, k=(-K).reshape(-1)), "positive"),
    ],
)
def test_impossible_calibrations(info: CameraInfo, words: str) -> None:
    with pytest.raises(CalibrationRejected, match=words):
        calibration_from_info(info)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def camera(warnings: list[str]) -> CameraInput:
    return CameraInput(warnings.append, now=lambda: 99)


def test_frames_carry_what_the_message_says(camera: CameraInput) -> None:
    camera.take_info(camera_info())
    frame = camera.take_image(image_message(stamp=12))
    assert frame is not None and frame.stamp == 12 and frame.camera_name == "optical"
    assert frame.intrinsics is not None and frame.intrinsics[0, 0] == 250


def test_camera_info_of_another_size(camera: CameraInput, warnings: list[str]) -> None:
    camera.take_info(camera_info())
    for stamp in (1, 2):
        frame = camera.take_image(image_message(width=160, height=120, stamp=stamp))
        assert frame is not None and frame.intrinsics is None
    assert camera.uncalibrated == 2 and warnings == [camera.problem]
    assert "320x240" in camera.problem and "160x120" in camera.problem
    assert camera.take_image(image_message(stamp=3)).intrinsics is not None and camera.problem == ""  # type: ignore[union-attr]


def test_bad_image_is_counted_and_said_once(camera: CameraInput, warnings: list[str]) -> None:
    bad = image_message()
    bad.encoding = "rgb9"
    assert camera.take_image(bad) is None and camera.take_image(bad) is None
    assert camera.dropped == {"unknown encoding": 2} and len(warnings) == 1 and "'rgb9'" in camera.problem


def test_bad_camera_info_is_said_once(camera: CameraInput, warnings: list[str]) -> None:
    for _ in range(3):
        camera.take_info(camera_info("equidistant", (0.1,) * 5))
    assert len(warnings) == 1 and camera.take_image(image_message()).intrinsics is None  # type: ignore[union-attr]
    assert camera.uncalibrated == 1


def test_unknown_model_warns_once(camera: CameraInput, warnings: list[str]) -> None:
    for sequence in range(3):
        info = camera_info("double_sphere", (0.1, 0.2))
        info.header.stamp.sec = sequence
        camera.take_info(info)
    assert len(warnings) == 1


def test_maps_are_built_once(camera: CameraInput, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    original = cv2.initUndistortRectifyMap
    monkeypatch.setattr(cv2, "initUndistortRectifyMap", lambda *a: built.append(a[4]) or original(*a))
    for sequence in range(5):
        info = camera_info(*MODELS[0])
        info.header.stamp.sec = sequence
        camera.take_info(info)
        camera.take_image(image_message())
    assert built == [(GRID, GRID), (WIDTH, HEIGHT)]  # the first is a trial of the distortion


def test_images_without_stamp_use_the_clock(camera: CameraInput, warnings: list[str]) -> None:
    frame = camera.take_image(image_message(stamp=0))
    assert frame is not None and frame.stamp == 99 and "no stamp" in warnings[0]


def test_one_image_without_stamp_among_others_is_dropped(camera: CameraInput) -> None:
    """The clock of arrivals and a simulation's are years apart."""
    assert camera.take_image(image_message(stamp=5)) is not None
    assert camera.take_image(image_message(stamp=0)) is None and camera.dropped == {"no stamp": 1}


def test_depth_is_straightened_by_what_its_image_was_rectified_by(camera: CameraInput) -> None:
    """Its frame waits in the synchroniser while the calibration changes."""
    frames: list[Frame] = []
    sync = SensorSynchronizer(SyncConfig(True), TransformBuffer(), lambda frame, _: frames.append(frame), print)
    for stamp, distortion in ((5, MODELS[0][1]), (6 * 10**8, ())):
        camera.take_info(camera_info(distortion=distortion))
        frame = camera.take_image(image_message(stamp=stamp))
        assert frame is not None
        sync.take_frame(frame, 0.0, camera.calibration)
    ramp = np.tile(np.arange(WIDTH, dtype=np.uint16) + 1000, (HEIGHT, 1))
    for stamp in (5, 6 * 10**8):
        sync.take_depth(depth_message(stamp, "16UC1", ramp))
    sync.pump(0.1)
    straight, same = (frame.depth for frame in frames)
    expected = torch.from_numpy(ramp.astype(np.float32) / 1000)
    assert straight is not None and same is not None
    assert torch.allclose(same, expected) and not torch.allclose(straight, expected, atol=1e-3)
