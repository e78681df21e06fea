"""Descriptions of records and tables: what fits them comes through, what does not is named with its value."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import torch

from ff3r_model.core.checked import json_value, record
from ff3r_model.core.checked_tables import Column, check_table
from ff3r_model.core.errors import shown
from ff3r_model.core.ranges import POSITIVE, SHARE, Range, check_range


@dataclass(frozen=True)
class Point:
    """A part."""

    place: tuple[float, float]
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, POSITIVE, "weight")


@dataclass(frozen=True)
class Record:
    """Everything that a field can be."""

    kind: Literal["a", "b"]
    count: int
    points: tuple[Point, ...] = ()
    named: dict[str, Point] = field(default_factory=dict)
    note: str | None = None


GOOD: dict[str, Any] = {
    "kind": "a", "count": 3, "points": [{"place": [0, 1.5]}], "named": {"x": {"place": [1, 2], "weight": 2}},
    "note": None,
}  # fmt: skip


def test_a_record_that_fits_comes_through() -> None:
    made = record(Record, json.loads(json.dumps(GOOD)), "it")
    assert made == Record("a", 3, (Point((0.0, 1.5)),), {"x": Point((1.0, 2.0), 2.0)})
    assert record(Record, {"kind": "b", "count": 0}, "it") == Record("b", 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "c"}, "it.kind = 'c': allowed are a, b"),
        ({"kind": ["a"]}, "it.kind = ['a']: allowed are a, b"),
        ({"count": 1.0}, "it.count = 1.0: expected a whole number"),
        ({"count": True}, "it.count = True: expected a whole number"),
        ({"count": None}, "it.count = None: expected a whole number"),
        ({"points": None}, "it.points = None: expected a list"),
        ({"points": [3]}, "it.points[0] is 3, and should be an object"),
        ({"points": [{"place": [1]}]}, "it.points[0].place has 1 values, and should have 2"),
        ({"points": [{"place": [1, "x"]}]}, "it.points[0].place[1] = 'x': expected a number"),
        ({"points": [{}]}, "it.points[0] lacks fields: 1 required positional argument: 'place'"),
        ({"named": []}, "it.named is [], and should be an object"),
        ({"named": {"x": {"place": [1, 2], "weight": float("nan")}}}, "it.named.x.weight must be positive, not nan"),
        ({"named": {"x": {"place": [1, 2], "weight": float("inf")}}}, "it.named.x.weight must be positive, not inf"),
        ({"named": {"x": {"place": [1, 2], "weight": 10**400}}}, "it.named.x.weight is beyond any number"),
        ({"more": 1}, "it has the unknown fields more; known are count, kind, named, note, points"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^it") as caught:
        record(Record, GOOD | change, "it")
    assert said in str(caught.value)


def test_json_that_breaks_parsers_is_a_value_error() -> None:
    for text in ("[" * 100_000, "9" * 6000, "", b"\xff", "{"):
        with pytest.raises(ValueError, match=r"."):
            json_value(text)


def test_values_of_any_size_are_shown_short() -> None:
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep, deep]  # 2⁵⁰ lists as text
    for value in (deep, "x" * 10**6, 10**10_000, {str(i): i for i in range(10**5)}, float("nan")):
        assert 0 < len(shown(value)) <= 121


TABLE = {
    "ids": Column(torch.int64, ("rows",), None),
    "places": Column(torch.float32, ("rows", 3)),
    "shares": Column(torch.float16, ("rows", "width"), SHARE),
    "old": Column(torch.float32, ("rows",), optional=True),
}


def tensors() -> dict[str, torch.Tensor]:
    return {"ids": torch.arange(4), "places": torch.zeros(4, 3), "shares": torch.full((4, 2), 0.5).half()}


def test_a_table_that_fits_gives_its_sizes() -> None:
    assert check_table(TABLE, tensors()) == {"rows": 4, "width": 2}
    empty = {name: tensor[:0] for name, tensor in tensors().items()}
    assert check_table(TABLE, empty) == {"rows": 0, "width": 2}
    assert check_table(TABLE, tensors() | {"old": torch.zeros(4), "unknown": torch.zeros(9)})


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("ids", None, "its.ids is missing"),
        ("ids", torch.zeros(4), "its.ids is of type torch.float32, and should be torch.int64"),
        ("places", torch.zeros(3, 3), "its.places is [3, 3], and should be [4, 3]"),
        ("places", torch.zeros(4), "its.places is [4], and should be [4, 3]"),
        ("places", torch.zeros(4, 3, 1), "its.places is [4, 3, 1], and should be [4, 3]"),
        ("places", torch.tensor(1.0), "its.places is [], and should be [4, 3]"),
        (
            "places",
            torch.tensor([[1.0, 2, 3]] * 3 + [[4, torch.nan, 5]]),
            "its.places must be -1e+12 to 1e+12, not nan",
        ),
        ("places", torch.full((4, 3), 3e38), "its.places must be -1e+12 to 1e+12, not 3"),
        ("places", torch.full((4, 3), -torch.inf), "its.places must be -1e+12 to 1e+12, not -inf (value 0)"),
        ("shares", torch.zeros(4, 0).half(), "its.shares is [4, 0], and should be [4, width]"),
        ("shares", torch.tensor([[0, 0.5]] * 3 + [[1, 2]]).half(), "its.shares must be 0 to 1, not 2.0 (value 7)"),
        ("old", torch.zeros(3), "its.old is [3], and should be [4]"),
    ],
)
def test_what_does_not_fit_a_table_is_named(name: str, tensor: torch.Tensor | None, said: str) -> None:
    changed = tensors() | ({} if tensor is None else {name: tensor})
    if tensor is None:
        del changed[name]
    with pytest.raises(ValueError, match="its") as caught:
        check_table(TABLE, changed, "its.")
    assert said in str(caught.value)


def test_ranges_hold_finite_numbers_alone() -> None:
    for value in (float("nan"), float("inf"), -float("inf"), 10**400, 2**63):
        assert value not in POSITIVE and value not in Range() and value not in Range(0)
