"""Catalogues of furniture, licences, the split for evaluation, and getting the files."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ff3r_model.synthetic.furnished import fetch, models
from ff3r_model.synthetic.furnished.classes import CLASSES, classify
from ff3r_model.synthetic.furnished.fetch import FetchError
from ff3r_model.synthetic.furnished.models import CATALOGUE, MissingModels, load_catalogue, split, world_folder
from tests.support.furniture import ARCHIVE, BOXES, write_catalogue


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Office chair", "office chair"), ("Oak table", "table"), ("Bedside table lamp", "desk lamp"),
        ("Book shelf", "bookshelf"), ("Fridge", "refrigerator"), ("Toilet paper dispenser", "toilet paper"),
        ("Female", "person"), ("Upper cabinet", "cabinet"), ("Flat TV", "television"), ("TV stand", "tv stand"),
        ("Thing of no kind", "object"),
    ],
)  # fmt: skip
def test_names_are_classified(name: str, expected: str) -> None:
    assert classify(name) == expected and expected in CLASSES


def test_a_catalogue_is_read(world: Path) -> None:
    found = {model.name: model for model in load_catalogue(world)}
    assert set(found) == set(BOXES)
    table, chair = found["Table"], found["Chair"]
    assert table.size == (1.2, 0.8, 0.75) and table.top == 0.75 and chair.top is None
    assert table.path.is_file() and (table.creator, table.licence) == ("Nobody", "CC0-1.0")


def test_names_with_escapes_are_read(world: Path) -> None:
    root = world / "models" / ARCHIVE.name
    text = (root / CATALOGUE).read_text(encoding="latin-1").replace("name#1=Table", "name#1=Caf\\u00e9 table")
    (root / CATALOGUE).write_text(text, encoding="latin-1")
    assert "Café table" in {model.name for model in load_catalogue(world)}


@pytest.mark.parametrize(
    ("licence", "stays"),
    [
        ("Released under Creative Commons Attribution 3.0", True),
        ("<b>Creative Commons Zero (Public Domain)</b>", True),
        ("Creative Commons Attribution-NonCommercial 3.0", False),
        ("Creative Commons Attribution-ShareAlike 3.0", False),
        ("All rights reserved.", False),
    ],
)
def test_a_models_own_licence_decides(world: Path, licence: str, stays: bool) -> None:
    (world / "models" / ARCHIVE.name / "m1" / "88 - LICENSE.html").write_text(licence)
    assert ("Table" in {model.name for model in load_catalogue(world)}) is stays


def test_without_models_the_error_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(MissingModels, match="`ff3r world fetch`"):
        load_catalogue(tmp_path)


def test_held_out_models_are_never_trained_on(world: Path) -> None:
    found = load_catalogue(world)
    training, held_out = split(found, held_out=False), split(found, held_out=True)
    assert not {model.id for model in training} & {model.id for model in held_out}
    assert len(training) + len(held_out) == len(found)
    classes = [model.class_name for model in found]
    assert {model.class_name for model in held_out} == {name for name in classes if classes.count(name) > 1}
    assert {model.class_name for model in training} == set(classes)


def test_the_split_of_a_class_does_not_depend_on_the_other_classes(world: Path) -> None:
    found = load_catalogue(world)
    chairs = [model for model in found if model.class_name == "chair"]
    own = {model.id for model in split(found, held_out=True) if model.class_name == "chair"}
    assert {model.id for model in split(reversed(chairs), held_out=True)} == own


def test_the_folder_is_the_users_to_choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert world_folder() == tmp_path / "ff3r" / "world"
    monkeypatch.setenv("FF3R_WORLD", str(tmp_path / "mine"))
    assert world_folder() == tmp_path / "mine"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The catalogue of boxes as an .sh3f file of known digest."""
    write_catalogue(tmp_path / "made")
    path = tmp_path / f"{ARCHIVE.name}.sh3f"
    with zipfile.ZipFile(path, "w") as file:
        for each in sorted((tmp_path / "made").rglob("*")):
            file.write(each, each.relative_to(tmp_path / "made"))
    known = replace(ARCHIVE, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    for module in (models, fetch):
        monkeypatch.setattr(module, "ARCHIVES", (known,))
    return path


def test_archives_are_unpacked_and_credited(tmp_path: Path, archive: Path) -> None:
    assert fetch.fetch(tmp_path / "w", [archive]) == len(BOXES)
    credits = (tmp_path / "w" / fetch.CREDITS).read_text()
    assert "Nobody, CC0-1.0" in credits and all(f"Boxes#{name}" in credits for name in BOXES)
    assert fetch.fetch(tmp_path / "w") == len(BOXES)  # nothing is missing, so nothing is fetched


def test_another_file_of_that_name_is_refused(tmp_path: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("more.txt", "x")
    with pytest.raises(FetchError, match="is another file than the one whose licences"):
        fetch.fetch(tmp_path / "w", [archive])
    assert not list((tmp_path / "w" / "models").iterdir())


def test_what_is_no_archive_is_refused(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(FetchError, match=r"notes.txt is neither a \.deb nor an \.sh3f"):
        fetch.fetch(tmp_path / "w", [tmp_path / "notes.txt"])
    with pytest.raises(FetchError, match=r"Boxes\.sh3f is missing"):
        fetch.fetch(tmp_path / "w", [archive.rename(tmp_path / "Other.sh3f")])


def test_without_apt_get_the_error_says_what_to_do(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "INSTALLED", tmp_path / "nowhere")
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(FetchError, match=r"packages\.debian\.org"):
        fetch.fetch(tmp_path / "w")


def test_the_installed_package_is_used(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "INSTALLED", archive.parent)
    assert fetch.fetch(tmp_path / "w") == len(BOXES)
