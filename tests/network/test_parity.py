"""The full-size network computes what the published code computes, under stand-in weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.network.cost import available_bytes
from benchmarks.network.parity import Models, agrees, compare, relative_error

REFERENCE = Path(__file__).parents[1] / "reference"
NEEDED = 9e9
"""Bytes: the full-size weights, and room to make them."""
NEEDED_BY_TIPSV2 = 3e9


@pytest.fixture(scope="module")
def models() -> Models:
    if available_bytes() < NEEDED:
        pytest.skip(f"needs {NEEDED / 1e9:.0f} GB of free memory, {available_bytes() / 1e9:.1f} are left")
    return Models()


@pytest.fixture(scope="module")
def tipsv2() -> Models:
    if available_bytes() < NEEDED_BY_TIPSV2:
        pytest.skip(f"needs {NEEDED_BY_TIPSV2 / 1e9:.0f} GB of free memory, {available_bytes() / 1e9:.1f} are left")
    return Models()


@pytest.mark.parametrize(
    ("name", "outputs"), [("clip_text_4", 2), ("lseg_1x96x128", 1), ("vggt_2x56x84", 4)], ids=lambda x: str(x)
)
def test_parity(models: Models, name: str, outputs: int) -> None:
    errors = compare(REFERENCE / f"{name}.npz", models)
    assert len(errors) == outputs
    assert all(agrees(*each) for each in errors.items()), errors


@pytest.mark.parametrize(("name", "outputs"), [("tipsv2_b14_1x56x84", 4), ("tipsv2_text_4", 2)])
def test_parity_of_tipsv2(tipsv2: Models, name: str, outputs: int) -> None:
    errors = compare(REFERENCE / f"{name}.npz", tipsv2)
    assert len(errors) == outputs
    assert all(agrees(*each) for each in errors.items()), errors
    for name in ("text_embeddings", "ensemble_embedding"):
        assert agrees(name, 9e-6) and not agrees(name, 2e-5)
    assert agrees("value_cosines", 9e-4) and not agrees("value_cosines", 2e-3)


def test_files_of_another_form_are_read_by_their_keys(tipsv2: Models, tmp_path: Path) -> None:
    """Every second token, and words of the file's own."""
    image, text = (dict(np.load(REFERENCE / f"{name}.npz")) for name in ("tipsv2_b14_1x56x84", "tipsv2_text_4"))
    own = image["value_cosines"][:, :2]
    np.savez(
        tmp_path / "other.npz",
        images=image["images"],
        value_tokens_every2nd=image["value_tokens"][:, ::2],
        value_cosines=own,
        token_ids=text["token_ids"][:2, :8],
        text_embeddings=text["text_embeddings"][:2],
    )
    errors = compare(tmp_path / "other.npz", tipsv2)
    assert set(errors) == {"value_tokens_every2nd", "value_cosines", "text_embeddings"}
    assert max(errors.values()) < 1e-5


def test_relative_error_is_none_too_kind() -> None:
    reference = torch.ones(4, 5).numpy()
    assert relative_error(torch.ones(4, 5) * 1.01, reference) == pytest.approx(0.01)
    assert relative_error(torch.ones(5, 4), reference) == float("inf")
    assert not agrees("depth", relative_error(torch.full((4, 5), float("nan")), reference))
