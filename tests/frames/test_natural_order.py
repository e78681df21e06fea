"""Natural order: numbers in names compare as numbers, and the order is total."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff3r_model.frames.natural_order import natural_key, natural_order

ORDERED = [
    ["9", "10", "a", "a2", "a2b", "a10", "b1"],
    ["frame_-10.png", "frame_-1.png", "frame_0.05.png", "frame_0.1.png", "frame_1.25.png", "frame_1.5.png"],
    ["-2.jpg", "-1.jpg", "0.jpg", "1.jpg"],
    ["frame-1.png", "frame-2.png", "frame-10.png"],
    ["2024-01-02.jpg", "2024-01-10.jpg", "2024-02-01.jpg"],
    ["IMG (2).jpg", "IMG (10).jpg"],
    ["camera0.8.png", "camera0.9.png", "camera0.10.png", "camera0.11.png"],
    ["1.2.9.png", "1.2.10.png"],
    ["1305031102.1753.png", "1305031102.2113.png", "1305031103.0.png"],
    ["0.0.png", "0.25.png", "0.5.png", "1.0.png"],
    ["a001.png", "a01.png", "a1.png", "a2.png"],
    ["DSC_1.jpg", "dsc_2.jpg", "IMG_1.jpg"],
]


@pytest.mark.parametrize("names", ORDERED)
def test_order(names: list[str]) -> None:
    for given_order in itertools.islice(itertools.permutations(names), 120):
        assert [path.name for path in natural_order(map(Path, given_order))] == names


NUMBERS = st.integers(-(10**18), 10**18) | st.decimals(-1000, 1000, places=3)


@pytest.mark.fuzz
@given(st.lists(NUMBERS, min_size=2, max_size=6, unique=True), st.sampled_from(["", "frame_", "x=", "IMG ("]))
def test_names_of_one_pattern_are_in_the_order_of_their_numbers(numbers: list, start: str) -> None:
    names = {format(number, "f") if not isinstance(number, int) else str(number): number for number in numbers}
    ordered = sorted(names, key=lambda name: natural_key(f"{start}{name}.png"))
    assert [names[name] for name in ordered] == sorted(names.values())


@pytest.mark.fuzz
@given(st.lists(st.text(st.sampled_from("aB19٣²0.-_ (=é"), max_size=12), min_size=3, max_size=3))
def test_order_is_total(names: list[str]) -> None:
    a, b, c = sorted(names, key=natural_key)
    assert natural_key(a) <= natural_key(b) <= natural_key(c) and natural_key(a) <= natural_key(c)
    assert (natural_key(a) == natural_key(b)) == (a == b)
