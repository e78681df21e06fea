"""The shipped nano, measured again on a few of the benchmark's rooms: docs/evaluation.md keeps what it promises."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ff3r_model.evaluation.held_out_rooms import windows
from ff3r_model.evaluation.subject import CheckpointUnderTest
from ff3r_model.evaluation.vocabulary import of_rooms
from ff3r_model.network.checkpoint import NANO_WEIGHTS

ROOMS = range(0, 4)


@cache
def documented() -> dict[str, Any]:
    return json.loads((Path(__file__).parents[2] / "docs/evaluation/synthetic_8.json").read_text())


@cache
def measured() -> dict[str, Any]:
    *_, figures = CheckpointUnderTest(device="cpu").measure(windows(8, ROOMS), of_rooms())
    return figures


def test_the_page_is_about_the_shipped_file() -> None:
    assert documented()["views"] == 8 and documented()["seeds"].startswith("0:") and documented()["windows"] >= 10
    found = hashlib.sha256(NANO_WEIGHTS.read_bytes()).hexdigest()
    assert documented()["sha256"] == found, "measure again: the first command of docs/evaluation.md, then its report"


def test_the_page_says_that_nano_beats_the_constant_predictor() -> None:
    page = documented()
    assert page["classes"] >= 20
    assert page["depth_rel"] < 0.7 * page["constant_depth_rel"]
    for name in ("auc30", "auc30_refined", "miou", "miou_attributes", "accuracy", "psnr", "depth_tau"):
        assert page[name] > 1.1 * page["constant_" + name.removesuffix("_refined")], name


@pytest.mark.parametrize(
    ("name", "least_share"),
    [
        ("auc30", 0.4),
        ("auc30_refined", 0.5),
        ("miou", 0.5),
        ("miou_attributes", 0.4),
        ("accuracy", 0.8),
        ("psnr", 0.85),
    ],
)
def test_a_few_rooms_come_near_the_page(name: str, least_share: float) -> None:
    """Rooms differ, so the bounds are wide: a broken nano is far below them."""
    assert measured()[name] > least_share * documented()[name]


def test_depth_of_a_few_rooms_comes_near_the_page() -> None:
    assert measured()["depth_rel"] < 1.5 * documented()["depth_rel"]
    assert measured()["depth_rel"] < 0.75 * measured()["constant_depth_rel"]
