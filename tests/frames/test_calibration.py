"""The camera_info reader takes ROS 1's messages as it takes ROS 2's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ff3r_model.core.types import Frame
from ff3r_model.frames.calibration import (
    COEFFICIENTS,
    CalibrationRejected,
    calibration_from_info,
    calibration_identity,
)
from tests.support.messages import Message

K = np.array([250.0, 0, 155, 0, 255, 122, 0, 0, 1])


def info(ros1: bool, **changes: Any) -> Message:
    roi = Message(x_offset=0, y_offset=0, height=0, width=0)
    arrays = {"d": [-0.3, 0.1, 0.0, 0.0, 0.0], "k": K, "p": np.zeros(12)} | changes
    named = {name.upper() if ros1 else name: value for name, value in arrays.items()}
    sizes = {"width": 320, "height": 240, "binning_x": 0, "binning_y": 0, "roi": roi, "distortion_model": "plumb_bob"}
    return Message(**sizes, **named)


def test_ros_1_and_ros_2_mean_the_same() -> None:
    old, new = calibration_from_info(info(True)), calibration_from_info(info(False))
    assert old is not None and new is not None and old.intrinsics is not None and new.intrinsics is not None
    assert torch.equal(old.intrinsics, new.intrinsics)
    image = torch.randint(0, 255, (240, 320, 3), dtype=torch.uint8)
    assert torch.equal(old.rectify(image), new.rectify(image)) and not torch.equal(old.rectify(image), image)


@pytest.mark.parametrize("ros1", [False, True])
def test_identity_changes_with_what_matters(ros1: bool) -> None:
    same = calibration_identity(info(ros1))
    assert same == calibration_identity(info(ros1))
    assert same != calibration_identity(info(ros1, k=K + 1)) and same != calibration_identity(info(ros1, d=[0.0] * 5))


def test_a_frame_of_another_size_stays_as_it_is() -> None:
    calibration = calibration_from_info(info(False))
    assert calibration is not None
    frame = Frame(torch.zeros(120, 160, 3, dtype=torch.uint8), 5)
    assert calibration.apply(frame) is frame and "320x240, images have 160x120" in calibration.mismatch(frame)
    depth = torch.ones(120, 160)
    assert calibration.rectify_depth(depth) is depth


REGION = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d": [-0.3, 0.1]}, "plumb_bob takes 4 or 5 or 8 or 12 or 14 coefficients, not 2"),
        ({"d": [np.nan] * 5}, "not finite"),
        ({"k": np.where(K == 250, np.nan, K)}, "not finite"),
        ({"k": np.where(K == 250, 0, K)}, "must be positive"),
        ({"k": np.append(K[:8] / 320, 1)}, "impossible focal length"),
        ({"k": K * [1e9, 1, 1, 1, 1e9, 1, 1, 1, 1]}, "impossible focal length"),
        ({"k": K.reshape(3, 3).T.ravel()}, "impossible camera matrix"),
        ({"k": np.where(K == 155, 1e4, K)}, "impossible principal point"),
        ({"d": [1e30, -1e30, 0, 0, 0]}, "impossible distortion"),
        ({"d": [-30.0, 500, 0, 0, 0]}, "impossible distortion"),
        ({"width": 0}, "size 0x240"),
        ({"binning_y": 500}, "binning of 0x500 leaves nothing of 320x240"),
        ({"roi": Message(**REGION | {"x_offset": 200, "width": 160, "height": 10})}, r"160x10 at \(200, 0\), is not"),
    ],
)
def test_what_no_camera_has_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    arrays = {name: value for name, value in changes.items() if name in "dkp"}
    damaged = info(False, **arrays)
    for name, value in changes.items():
        setattr(damaged, name, value)
    with pytest.raises(CalibrationRejected, match=words):
        calibration_from_info(damaged)


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_a_small_window_at_the_corner_of_a_lens_is_used(model: str) -> None:
    """Its principal point lies far outside, and is right."""
    lens = info(False, d=[-0.05, 0.01, 0.0, 0.0])
    lens.distortion_model, lens.roi = model, Message(**REGION | {"x_offset": 250, "width": 32, "height": 24})
    calibration = calibration_from_info(lens)
    assert calibration is not None and calibration.intrinsics is not None
    assert (calibration.width, calibration.height) == (32, 24)
    assert -120 < float(calibration.intrinsics[0, 2]) < -70


finite = st.floats(-2, 2)
sizes = st.sampled_from([0, 1, 7, 240, 320, 641])


@pytest.mark.fuzz
@given(
    model=st.sampled_from([*COEFFICIENTS, "", "double_sphere"]),
    distortion=st.lists(finite | st.floats(width=32), max_size=14),
    matrix=st.lists(st.floats(-1e3, 1e3) | st.floats(width=32), min_size=9, max_size=9) | st.just(K.tolist()),
    numbers=st.lists(sizes, min_size=8, max_size=8),
)
def test_random_camera_info_gives_a_usable_camera_or_is_refused(
    model: str, distortion: list[float], matrix: list[float], numbers: list[int]
) -> None:
    width, height, binning_x, binning_y, *window = numbers
    message = info(False, d=distortion, k=matrix, p=np.hstack([np.reshape(matrix, (3, 3)), np.ones((3, 1))]).ravel())
    message.width, message.height, message.distortion_model = width, height, model
    message.binning_x, message.binning_y = binning_x % 5, binning_y % 5
    message.roi = Message(**dict(zip(REGION, window, strict=True)))
    calibration_identity(message)
    for rectified in (False, True):
        try:
            calibration = calibration_from_info(message, rectified)
        except CalibrationRejected:
            continue
        if calibration is None:
            continue
        image = torch.full((calibration.height, calibration.width, 3), 200, dtype=torch.uint8)
        straight = calibration.rectify(image)
        assert straight.shape == image.shape and (straight == 200).float().mean() > 0.4, "no black picture"
        if calibration.intrinsics is not None:
            assert calibration.intrinsics.isfinite().all() and (calibration.intrinsics.diagonal() > 0).all()
