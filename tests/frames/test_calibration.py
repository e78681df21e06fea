"""The camera_info reader takes ROS 1's messages as it takes ROS 2's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ff3r_model.core.types import Frame
from ff3r_model.frames.calibration import calibration_from_info, calibration_identity
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
