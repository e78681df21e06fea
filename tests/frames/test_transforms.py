"""The transform buffer against exact motions and SciPy's own arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import process_time

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.frames import transforms
from ff3r_model.frames.transforms import KEPT, MAX_POSES, TransformBuffer, TransformUnavailable
from tests.support.messages import Message, header, transform_message

SECOND = 10**9


def pose(rotvec: tuple[float, float, float], translation: tuple[float, float, float]) -> torch.Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(Rotation.from_rotvec(rotvec).as_matrix())
    matrix[:3, 3] = torch.tensor(translation)
    return matrix


MOUNT = pose((0.1, -0.7, 0.3), (0.2, 0.0, 0.9))


def robot(seconds: float) -> torch.Tensor:
    """odom_from_base of a robot that turns and drives at constant speed."""
    return pose((0, 0, 0.5 * seconds), (1.5 * seconds, -seconds, 0))


def tree(times: tuple[float, ...] = (1.0, 2.0, 3.0)) -> TransformBuffer:
    buffer = TransformBuffer()
    buffer.add([transform_message(0, "base_link", "camera", MOUNT)], static=True)
    for time in times:
        buffer.add([transform_message(int(time * SECOND), "odom", "base_link", robot(time))])
    return buffer


def test_chains_are_joined_and_moments_interpolated() -> None:
    for time in (1.0, 1.25, 2.9, 3.0):
        found = tree().lookup("odom", "camera", int(time * SECOND))
        assert torch.allclose(found, robot(time) @ MOUNT, atol=1e-9)
        back = tree().lookup("camera", "odom", int(time * SECOND))
        assert torch.allclose(back @ found, torch.eye(4, dtype=torch.float64), atol=1e-9)


def test_siblings_meet_at_their_common_frame() -> None:
    buffer = tree()
    other = pose((0, 0.4, 0), (0, 0.3, 0.1))
    buffer.add([transform_message(0, "base_link", "lidar", other)], static=True)
    expected = torch.linalg.inv(other) @ MOUNT
    assert torch.allclose(buffer.lookup("lidar", "camera", 0), expected, atol=1e-9)
    assert torch.allclose(buffer.lookup("lidar", "lidar", 0), torch.eye(4, dtype=torch.float64))


def test_order_of_arrival_does_not_matter() -> None:
    assert torch.allclose(tree((3.0, 1.0, 2.0)).lookup("odom", "base_link", int(1.5 * SECOND)), robot(1.5), atol=1e-9)


@pytest.mark.parametrize(("time", "words"), [(0.5, "0.500 s before the oldest"), (3.25, "0.250 s after the newest")])
def test_nothing_is_extrapolated(time: float, words: str) -> None:
    with pytest.raises(TransformUnavailable, match=words):
        tree().lookup("odom", "camera", int(time * SECOND))


def test_it_says_which_frame_is_missing() -> None:
    with pytest.raises(TransformUnavailable, match="nobody publishes gps"):
        tree().lookup("gps", "camera", SECOND)
    buffer = tree()
    buffer.add([transform_message(0, "earth", "gps", MOUNT)], static=True)
    with pytest.raises(TransformUnavailable, match="different trees"):
        buffer.lookup("gps", "camera", SECOND)


def test_memory_is_bounded_by_time() -> None:
    buffer = TransformBuffer()
    for index in range(5000):
        buffer.add([transform_message(index * SECOND // 100, "odom", "base_link", robot(0.0))])
    assert len(buffer._edges["base_link"].stamps) == KEPT // (SECOND // 100) + 1
    with pytest.raises(TransformUnavailable, match="before the oldest"):
        buffer.lookup("odom", "base_link", 0)


def test_a_new_parent_replaces_the_old_one_and_cycles_end() -> None:
    buffer = tree()
    buffer.add([transform_message(5 * SECOND, "map", "base_link", MOUNT)])
    assert buffer.parent("base_link") == "map"
    buffer.add([transform_message(5 * SECOND, "camera", "map", MOUNT)])
    with pytest.raises(TransformUnavailable):
        buffer.lookup("odom", "camera", 5 * SECOND)


def test_what_is_no_transform_is_counted() -> None:
    buffer = TransformBuffer()
    broken = transform_message(0, "a", "b", torch.eye(4))
    broken.transform.rotation.w = 0.0
    infinite = transform_message(0, "a", "b", pose((0, 0, 0), (np.inf, 0, 0)))
    own = transform_message(0, "a", "a", MOUNT)
    buffer.add([broken, infinite, own])
    reasons = {"quaternion of no or endless length", "impossible translation or rotation", "frame names"}
    assert buffer.rejected == dict.fromkeys(reasons, 1) and not buffer.frames


def test_clearing_keeps_what_is_mounted() -> None:
    buffer = tree()
    buffer.clear()
    assert torch.allclose(buffer.lookup("base_link", "camera", 77), MOUNT, atol=1e-12)
    with pytest.raises(TransformUnavailable):
        buffer.lookup("odom", "camera", SECOND)


def steady(seconds: float) -> Message:
    return transform_message(int(seconds * SECOND), "odom", "base_link", robot(seconds))


def copies(stamps: Iterable[int], parent: str = "odom", child: str = "base_link") -> list[Message]:
    """MOUNT at many times, quickly made."""
    pattern = transform_message(0, parent, child, MOUNT)
    return [Message(**{**vars(pattern), "header": header(stamp, parent)}) for stamp in stamps]


@pytest.mark.parametrize("wrong", [2**31 - 1, 0, 100_000])
def test_one_wrong_stamp_costs_nothing(wrong: int) -> None:
    buffer = tree((1000.0, 1001.0))
    buffer.add(copies([wrong * SECOND]))
    for second in range(1002, 1042):
        buffer.add([steady(second)])
        assert torch.allclose(buffer.lookup("odom", "base_link", second * SECOND), robot(second), atol=1e-9)
    assert buffer.rejected == {"stamp far from those before": 1}


def test_a_wrong_stamp_before_all_others_costs_one_more() -> None:
    buffer = tree((2.0**31 - 1, 1000.0, 1001.0, 1002.0))
    assert torch.allclose(buffer.lookup("odom", "base_link", int(1001.5 * SECOND)), robot(1001.5), atol=1e-9)


def test_a_clock_that_is_set_is_followed() -> None:
    buffer = tree((1.0, 2.0, 50_000.0, 50_001.0, 50_002.0))
    assert torch.allclose(buffer.lookup("odom", "base_link", int(50_001.5 * SECOND)), robot(50_001.5), atol=1e-9)


def test_a_hundred_thousand_in_reverse_order_are_bounded_in_time_and_memory() -> None:
    buffer = TransformBuffer()
    messages = copies(10**12 - 10**5 * index for index in range(100_000))
    start = process_time()
    buffer.add(messages)  # as one message
    for message in messages[:20_000]:
        buffer.add([message])
    assert process_time() - start < 3  # 18.8 s once
    assert buffer.rejected == {"too many transforms in one message": 90_000}
    assert len(buffer._edges["base_link"].stamps) == MAX_POSES
    assert torch.allclose(buffer.lookup("odom", "base_link", 10**12), MOUNT)


def test_frames_are_bounded_and_long_chains_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "MAX_FRAMES", 1000)
    buffer = TransformBuffer()
    for index in range(1005):
        buffer.add(copies([0], f"f{index}", f"f{index + 1}"), static=True)
    assert buffer.rejected == {"too many frames": 5}
    start = process_time()
    assert buffer.lookup("f0", "f1000", 0).isfinite().all()
    assert process_time() - start < 3


@pytest.mark.parametrize("length", [1e-170, 1e-7, 1e200, 1e308, math.nan, math.inf])
def test_quaternions_of_any_length(length: float) -> None:
    buffer = TransformBuffer()
    message = transform_message(0, "a", "b", torch.eye(4))
    message.transform.rotation.w = length
    buffer.add([message])
    assert sum(buffer.rejected.values()) == 1 and not buffer.frames


def test_names_and_stamps_that_are_none() -> None:
    buffer = TransformBuffer()
    negative, long = transform_message(-SECOND, "a", "b", MOUNT), transform_message(0, "a", "b" * 257, MOUNT)
    buffer.add([negative, long, transform_message(0, "a", "b", pose((0, 0, 0), (1e9, 0, 0)))])
    assert sum(buffer.rejected.values()) == 3 and not buffer.frames
