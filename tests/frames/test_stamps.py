"""A lone wrong stamp is refused; a clock that really jumps is followed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff3r_model.frames.stamps import StampGate, is_time, nanoseconds_from_time

AHEAD, BEHIND = 100, 10


@pytest.mark.parametrize(
    ("stamps", "verdicts"),
    [
        ((0, 1, 100, 95), ("near", "near", "near", "near")),
        ((0, 10_000, 1, 2), ("near", "stray", "near", "near")),  # one wrong stamp
        ((10_000, 0, 1, 2), ("near", "stray", "jump", "near")),  # the first was the wrong one
        ((0, 10_000, 10_001, 10_002), ("near", "stray", "jump", "near")),  # the clock was set
        ((50, 0, 1, 2), ("near", "stray", "jump", "near")),  # a recording that loops
        ((0, 10_000, 1, 10_000, 2, 10_000), ("near", "stray", "near", "stray", "near", "stray")),  # two clocks
        ((0, 200, 400, 600), ("near", "stray", "jump", "stray")),  # a slow stream: half of it is used
    ],
)
def test_strays_and_jumps(stamps: tuple[int, ...], verdicts: tuple[str, ...]) -> None:
    gate = StampGate(AHEAD, BEHIND)
    assert tuple(map(gate.judge, stamps)) == verdicts


@pytest.mark.fuzz
@given(st.lists(st.integers(-(2**63), 2**63)), st.integers(-(2**62), 2**62))
def test_whatever_came_before_a_steady_clock_is_believed_at_the_second_stamp(before: list[int], start: int) -> None:
    gate = StampGate(AHEAD, BEHIND)
    for stamp in before:
        gate.judge(stamp)
    verdicts = [gate.judge(start + step) for step in range(4)]
    assert "stray" not in verdicts[2:]


def test_what_is_a_time() -> None:
    good, negative, much = ((5, 999_999_999), (-1, 0), (1, 10**9))
    for (sec, nanosec), answer in ((good, True), (negative, False), (much, False)):
        assert is_time(SimpleNamespace(sec=sec, nanosec=nanosec)) is answer
    assert nanoseconds_from_time(SimpleNamespace(sec=5, nanosec=999_999_999)) == 5_999_999_999
