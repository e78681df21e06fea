"""Windows: which frames become keyframes, and how windows overlap."""

from __future__ import annotations

import pytest
import torch

from ff3r_model.types import Frame, Window
from ff3r_model.window import FrameRejected, WindowBuilder, WindowConfig

CONFIG = WindowConfig(views=4, overlap=2, long_side=56, patch=14, max_pending=8, min_motion=0.0)


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
