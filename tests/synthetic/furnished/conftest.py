"""A library of made-up furniture."""

from __future__ import annotations

from pathlib import Path

import pytest

from ff3r_model.synthetic.furnished import fetch, models
from ff3r_model.synthetic.furnished.library import Library, open_library
from tests.support.furniture import ARCHIVE, write_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a catalogue of boxes."""
    monkeypatch.setattr(models, "ARCHIVES", (ARCHIVE,))
    monkeypatch.setattr(fetch, "ARCHIVES", (ARCHIVE,))
    return write_world(tmp_path / "world")


@pytest.fixture
def library(world: Path) -> Library:
    """Its models for training."""
    pytest.importorskip("trimesh", reason="furniture is read by trimesh")
    return open_library(held_out=False, folder=world)
