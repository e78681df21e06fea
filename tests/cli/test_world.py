"""`ff3r world`: fetching the furniture and looking at a room."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from ff3r_model.cli import main
from ff3r_model.synthetic.furnished import fetch, models
from tests.support.furniture import ARCHIVE, BOXES, write_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (models, fetch):
        monkeypatch.setattr(module, "ARCHIVES", (ARCHIVE,))
    return write_world(tmp_path / "world")


def test_what_is_there_is_counted_and_credited(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["world", "fetch", "--folder", str(world)]) == 0
    assert f"{len(BOXES)} models in {world}" in capsys.readouterr().out
    assert "Nobody, CC0-1.0" in (world / "CREDITS.md").read_text()


def test_a_room_is_drawn(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("embreex", reason="rays are traced by embree")
    picture = tmp_path / "room.png"
    assert main(["world", "show", "-o", str(picture), "--folder", str(world), "--views", "2", "--seed", "1"]) == 0
    drawn = cv2.imread(str(picture))
    assert drawn is not None and drawn.std() > 20
    assert "wall" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["show", "-o", "room.png"], "get it with `ff3r world fetch`"),
        (["show", "-o", "room.png", "--views", "0"], "--views must be 1 to 16, not 0"),
        (["show", "-o", "room.txt"], "room.txt"),
        (["fetch", "furniture.zip"], "neither a .deb nor an .sh3f"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    options: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FF3R_WORLD", str(tmp_path / "nothing"))
    assert main(["world", *options]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1
