"""Windows: which frames become keyframes, and how windows overlap."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import suppress
from math import inf

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import rigid
from ff3r_model.core.types import Frame, Window
from ff3r_model.frames.windows import FrameRejected, WindowBuilder, WindowConfig
from ff3r_model.synthetic import make_room, make_trajectory, pinhole, render

CONFIG = WindowConfig(views=4, overlap=2, long_side=56, patch=14, max_pending=8, min_motion=0.0, max_keyframe_rate=inf)


def frame(stamp: int, seed: int | None = None, size: tuple[int, int] = (42, 56)) -> Frame:
    generator = torch.Generator().manual_seed(stamp if seed is None else seed)
    return Frame(torch.randint(0, 255, (*size, 3), generator=generator, dtype=torch.uint8), stamp)


def filled(count: int) -> WindowBuilder:
    builder = WindowBuilder(CONFIG)
    for stamp in range(1, count + 1):
        builder.add(frame(stamp))
    return builder


def test_first_window_waits_for_all_its_views() -> None:
    builder = filled(3)
    assert not builder.ready and builder.take() is None
    builder.add(frame(4))
    window = builder.take()
    assert window is not None and window.stamps == (1, 2, 3, 4)
    assert window.images.shape == (4, 3, 42, 56)


def test_windows_share_the_last_keyframes_however_many_frames_came_between() -> None:
    builder = filled(4)
    first = builder.take()
    for stamp in range(5, 11):
        builder.add(frame(stamp))
    second = builder.take()
    assert first is not None and second is not None
    assert second.keyframes[:2] == first.keyframes[-2:]
    assert torch.equal(second.images[:2], first.images[-2:])
    assert second.stamps == (3, 4, 7, 10), "new keyframes spread evenly and include the newest"
    assert builder.dropped["backlog"] == 4


def test_pending_frames_are_bounded_and_the_oldest_go_first() -> None:
    builder = filled(12)
    assert builder.pending == 8 and builder.dropped["backlog"] == 4
    window = builder.take()
    assert window is not None and min(window.stamps) >= 5 and window.stamps[-1] == 12


def test_flush_makes_a_short_window_of_what_is_there() -> None:
    builder = filled(4)
    builder.take()
    builder.add(frame(5))
    assert builder.take() is None
    window = builder.take(flush=True)
    assert window is not None and window.stamps == (3, 4, 5)
    assert builder.take(flush=True) is None, "shared frames alone are no window"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (frame(9, seed=1), "identical image"),
        (frame(0), "time went backwards"),
        (Frame(torch.zeros(42, 56, 3, dtype=torch.uint8), 9), "featureless image"),
        (Frame(torch.zeros(0, 56, 3, dtype=torch.uint8), 9), "empty image"),
        (frame(9, size=(56, 42)), "aspect ratio changed"),
        (frame(9, size=(10, 400)), "unusable size"),
    ],
)
def test_bad_frames_are_refused_and_counted_and_leave_the_rest_alone(bad: Frame, reason: str) -> None:
    builder = WindowBuilder(CONFIG)
    builder.add(frame(1))
    with pytest.raises(FrameRejected) as caught:
        builder.add(bad)
    assert caught.value.reason == reason and builder.dropped[reason] == 1
    assert builder.pending == 1


def test_same_aspect_at_another_resolution_goes_on() -> None:
    builder = WindowBuilder(CONFIG)
    builder.add(frame(1))
    builder.add(frame(2, size=(84, 112)))
    assert builder.pending == 2


def test_a_standing_camera_adds_nothing_even_right_after_a_window() -> None:
    builder = filled(4)
    builder.take()
    with pytest.raises(FrameRejected, match="identical"):
        builder.add(frame(5, seed=4))


def test_restarted_clock_accepts_earlier_times_and_keeps_the_overlap() -> None:
    builder = filled(5)
    first = builder.take()
    builder.restart_clock()
    for stamp in (1, 2):
        builder.add(frame(stamp, seed=stamp + 50))
    second = builder.take()
    assert first is not None and second is not None
    assert second.keyframes[:2] == first.keyframes[-2:] and second.stamps[2:] == (1, 2)


def test_reset_starts_over_without_overlap() -> None:
    builder = filled(4)
    builder.take()
    builder.reset()
    builder.add(frame(5, size=(56, 42)))
    assert builder.take(flush=True) is None


@pytest.mark.parametrize("views", [1, 65])
def test_window_size_limits(views: int) -> None:
    with pytest.raises(ValueError, match="2 to 64"):
        WindowConfig(views=views)
    with pytest.raises(ValueError, match="2 to 64"):
        Window(torch.zeros(views, 3, 14, 14), tuple(range(views)), tuple(range(views)))


@pytest.mark.parametrize("overlap", [0, 4])
def test_overlap_must_leave_room_for_new_views(overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        WindowConfig(views=4, overlap=overlap)


def test_intrinsics_are_used_only_when_all_views_have_them() -> None:
    known = torch.tensor([[50.0, 0, 28], [0, 50, 21], [0, 0, 1]])
    builder = WindowBuilder(CONFIG)
    for stamp in range(1, 5):
        image = frame(stamp).image
        builder.add(Frame(image, stamp, known if stamp != 3 else None))
    window = builder.take()
    assert window is not None and window.intrinsics is None


def test_rolling_back_shares_views_with_the_window_before() -> None:
    builder = filled(4)
    first = builder.take()
    for stamp in (5, 6):
        builder.add(frame(stamp))
    builder.take()
    builder.roll_back()
    for stamp in (7, 8):
        builder.add(frame(stamp))
    third = builder.take()
    assert first is not None and third is not None
    assert third.keyframes == (*first.keyframes[-2:], 6, 7)


@pytest.fixture(scope="module")
def room_views() -> torch.Tensor:
    """A robot's first steps through a room, then a turn on the spot: uint8 pictures of 56 × 42."""
    room, intrinsics = make_room(3), pinhole(42, 56)
    steps = make_trajectory(room, 0, 31, "robot", 0.05)
    turns = [torch.tensor(Rotation.from_euler("y", 1.5 * k, degrees=True).as_matrix()).float() for k in range(1, 31)]
    poses = torch.cat([steps, torch.stack([steps[-1] @ rigid(turn, torch.zeros(3)) for turn in turns])])
    return render(room, poses, intrinsics.expand(len(poses), 3, 3), 42, 56).images


def chooser(**changes: float) -> WindowBuilder:
    return WindowBuilder(WindowConfig(views=8, overlap=4, long_side=56, **changes))  # type: ignore[arg-type]


def offer(builder: WindowBuilder, pictures: Iterable[torch.Tensor], start: int = 0, rate: float = 10.0) -> list[int]:
    """Which of the pictures became keyframes."""
    kept = []
    for index, picture in enumerate(pictures):
        with suppress(FrameRejected):
            builder.add(Frame(picture, start + round(index / rate * 1e9)))
            kept.append(index)
    return kept


def test_a_standing_robot_adds_nothing_in_noise_and_flickering_light(room_views: torch.Tensor) -> None:
    builder, rng = chooser(), np.random.default_rng(0)
    picture = room_views[0].numpy().astype(np.float32)

    def camera(count: int) -> Iterable[torch.Tensor]:
        for index in range(count):
            light = (1.0, 0.7, 1.25)[index // 7 % 3]
            noisy = picture * light + rng.normal(0, 6, picture.shape).astype(np.float32)
            yield torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))

    assert offer(builder, camera(300)) == [0]
    assert builder.pending == 1
    assert builder.dropped["little motion"] == 299


def test_a_dark_room_is_noise_and_shows_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = (torch.from_numpy(rng.normal(8, 5, (42, 56, 3)).clip(0, 255).astype(np.uint8)) for _ in range(20))
    builder = chooser()
    assert offer(builder, noise) == []
    assert builder.dropped["featureless image"] == 20


def test_a_step_counts_for_more_than_a_turn_and_both_are_followed(room_views: torch.Tensor) -> None:
    steps, turns = offer(chooser(), room_views[:31]), offer(chooser(), room_views[30:])
    assert 4 <= len(steps) <= 16
    gaps = np.diff(turns) * 1.5
    assert len(turns) >= 4
    assert gaps.min() >= 4, "degrees; a picture is 70 wide"
    assert gaps.max() <= 14, "neighbours overlap by four fifths"


@pytest.mark.parametrize("step", [1.5, 6.0])
def test_a_camera_that_only_turns_before_pale_walls_is_followed(step: float) -> None:
    """Hardly any texture: a fiftieth of the patterns' contrast is left."""
    room, intrinsics = make_room(3), pinhole(84, 112)
    paints = room.primitives.material.clone()
    paints[:, 3:6] = paints[:, :3] + (paints[:, 3:6] - paints[:, :3]) / 50
    pale = dataclasses.replace(room, primitives=dataclasses.replace(room.primitives, material=paints))
    start = make_trajectory(room, 0, 1, "robot")[0]
    angles = np.arange(0, 120, step)
    turns = torch.from_numpy(Rotation.from_euler("y", angles[:, None], degrees=True).as_matrix()).float()
    poses = start @ rigid(turns, torch.zeros(len(turns), 3))
    pictures = render(pale, poses, intrinsics.expand(len(poses), 3, 3), 84, 112).images
    kept = offer(WindowBuilder(WindowConfig(long_side=112)), pictures)
    assert np.diff(kept).max() * step <= 18, "degrees; a picture is 70 wide"


def test_odometry_tells_of_motion_that_the_picture_hides() -> None:
    """Before a wall of noise that says nothing, and for a robot that stands: by odometry, where there is one."""
    grey = (128 + 20 * torch.randn(42, 56, 3, generator=torch.Generator().manual_seed(0))).byte()
    angles, steps = np.radians(3.0 * np.arange(20)), 0.101 * np.arange(20)
    turning = rigid(torch.from_numpy(Rotation.from_euler("z", angles[:, None]).as_matrix()).float(), torch.zeros(20, 3))
    walking = rigid(torch.eye(3).expand(20, 3, 3), torch.tensor(np.outer(steps, [1.0, 0, 0])).float())
    poses = {"turning": turning, "walking": walking, "standing": walking[:1].expand(20, 4, 4)}
    kept = {}
    for name, odometry in poses.items():
        builder = chooser(min_difference=0.0)
        for number, pose in enumerate(odometry):
            with suppress(FrameRejected):
                builder.add(Frame(grey, number * 10**9, odom_from_camera=pose))
                kept.setdefault(name, []).append(number)
    assert kept["turning"] == [0, 4, 8, 12, 16], "every 12 degrees: 0.06 / 0.4 of the long side, 0.8 of which is f"
    assert kept["walking"] == [0, 3, 6, 9, 12, 15, 18], "0.3 m"
    assert kept["standing"] == [0]


def test_keyframes_come_no_faster_than_they_may(room_views: torch.Tensor) -> None:
    builder = chooser(min_motion=0.0, max_keyframe_rate=2.0)
    assert offer(builder, room_views[:30], rate=10.0) == list(range(0, 30, 5))
    assert builder.dropped["too soon"] == 24
    with pytest.raises(ValueError, match="max_keyframe_rate"):
        chooser(max_keyframe_rate=0.0)


def test_a_cut_to_another_scene_is_due_at_once(room_views: torch.Tensor) -> None:
    assert offer(chooser(min_motion=0.9), [room_views[0], room_views[1], 255 - room_views[0]]) == [0, 2]


def test_measured_depth_odometry_and_up_reach_the_window() -> None:
    builder = WindowBuilder(CONFIG)
    depth = torch.arange(84 * 112, dtype=torch.float32).view(84, 112)
    for stamp in range(1, 5):
        image = frame(stamp, size=(84, 112)).image
        full = Frame(image, stamp, depth=depth, odom_from_camera=torch.eye(4) * stamp, up=torch.tensor([0.0, -1, 0]))
        builder.add(full if stamp != 3 else Frame(image, stamp))
    window = builder.take()
    assert window is not None
    assert window.depth is not None and window.odom_from_camera is not None and window.up is not None
    assert window.depth.shape == (4, 42, 56)
    assert torch.equal(window.depth[0], depth[1::2, 1::2])
    assert not window.depth[2].any()
    assert window.odom_from_camera[:, 0, 0].tolist()[::3] == [1, 4]
    assert window.odom_from_camera[2].isnan().all() and window.up[2].isnan().all()
    other = frame(9)
    object.__setattr__(other, "depth", torch.zeros(10, 10))
    with pytest.raises(FrameRejected, match="align it to colour"):
        builder.add(other)
    assert filled(4).take().depth is None  # type: ignore[union-attr]


@pytest.mark.parametrize(("views", "shared"), [(2, 1), (3, 1), (4, 2), (8, 4), (64, 32)])
def test_windows_share_half_of_their_views_unless_told(views: int, shared: int) -> None:
    assert WindowConfig(views=views).shared == shared
    assert WindowConfig(views=views, overlap=1).shared == 1


@pytest.mark.parametrize("value", [float("nan"), -0.1])
def test_motion_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="min_motion must be at least 0"):
        WindowConfig(min_motion=value)
