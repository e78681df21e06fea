"""The full-size network computes what the published code computes, under stand-in weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.network.cost import available_bytes
from benchmarks.network.parity import LIMIT, Models, compare, relative_error

REFERENCE = Path(__file__).parents[1] / "reference"
NEEDED = 9e9
"""Bytes: the full-size weights, and room to make them."""


@pytest.fixture(scope="module")
def models() -> Models:
    if available_bytes() < NEEDED:
        pytest.skip(f"needs {NEEDED / 1e9:.0f} GB of free memory, {available_bytes() / 1e9:.1f} are left")
    return Models()


@pytest.mark.parametrize(
    ("name", "outputs"), [("clip_text_4", 2), ("lseg_1x96x128", 1), ("vggt_2x56x84", 4)], ids=lambda x: str(x)
)
def test_parity(models: Models, name: str, outputs: int) -> None:
    errors = compare(REFERENCE / f"{name}.npz", models)
    assert len(errors) == outputs
    assert max(errors.values()) <= LIMIT, errors


def test_relative_error_is_none_too_kind() -> None:
    reference = torch.ones(4, 5).numpy()
    assert relative_error(torch.ones(4, 5) * 1.01, reference) == pytest.approx(0.01)
    assert relative_error(torch.ones(5, 4), reference) == float("inf")
    assert not relative_error(torch.full((4, 5), float("nan")), reference) <= LIMIT
