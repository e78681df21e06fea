"""Output folders: what a command has not written is neither overwritten nor removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ff3r_model.core.output_folder import LIST, OutputError, OutputFolder, check_output_file


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_is_written_and_written_again(tmp_path: Path) -> None:
    for text in ("one", "two"):
        folder = OutputFolder(tmp_path / "a/b", "reconstruct")
        folder.file("map.txt").write_text(text)
        assert (tmp_path / "a/b/map.txt").read_text() == text
    with OutputFolder(tmp_path / "a/b", "reconstruct").whole("other.txt") as fresh:
        (fresh / "other.txt").write_text("three")
    assert set(contents(tmp_path / "a/b")) == {"other.txt", LIST}


@pytest.mark.parametrize("name", ["map.txt", "notes.txt", ".hidden", "photos/cat.jpg"])
def test_foreign_files_are_named_and_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=f"holds {name.split('/')[0]}, which `ff3r export` has not written"):
        OutputFolder(tmp_path, "export")
    assert contents(tmp_path) == before


def test_another_commands_files_are_foreign(tmp_path: Path) -> None:
    OutputFolder(tmp_path, "reconstruct").file("map.txt").write_text("map")
    with pytest.raises(OutputError, match=r"holds map\.txt"):
        OutputFolder(tmp_path, "export")
    assert (tmp_path / "map.txt").read_text() == "map"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"command": "export"}', '{"command": "export", "files": 7}', "[" * 9999]
)
def test_a_damaged_list_protects_everything(tmp_path: Path, text: str) -> None:
    (tmp_path / LIST).write_text(text)
    (tmp_path / "x").touch()
    with pytest.raises(OutputError, match="holds x"):
        OutputFolder(tmp_path, "export")


def test_a_failed_write_leaves_the_file_of_before(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out", "reconstruct")
    folder.file("map.txt").write_text("whole")
    with pytest.raises(RuntimeError, match="disk full"), folder.whole("map.txt"):
        raise RuntimeError("disk full")
    assert (tmp_path / "out/map.txt").read_text() == "whole"
    assert [each.name for each in tmp_path.iterdir()] == ["out"], "nothing half made beside it"


def test_unwritable_places_are_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        with pytest.raises(OutputError, match=r"is a file|cannot be written"):
            OutputFolder(tmp_path / place, "export")
    with pytest.raises(OutputError, match="cannot be written"):
        OutputFolder(Path("/proc/out"), "export")


def test_the_present_folder_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    OutputFolder(Path("."), "export").file("x").write_text("x")
    assert os.listdir(tmp_path) and (tmp_path / "x").read_text() == "x"


def test_files_written_as_one_leave_the_folder_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the shell's present folder, or a mount, neither of which may be put elsewhere."""
    monkeypatch.chdir(tmp_path)
    inode = tmp_path.stat().st_ino
    for name in ("a.onnx", "b.onnx"):
        with OutputFolder(Path("."), "export").whole("manifest.json") as fresh:
            for each in (name, "manifest.json"):
                (fresh / each).write_text(name)
    assert tmp_path.stat().st_ino == inode
    assert {name: path for name, path in contents(tmp_path).items() if name != LIST} == {
        "b.onnx": b"b.onnx",
        "manifest.json": b"b.onnx",
    }


def test_a_seal_is_never_beside_files_of_another_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that dies between two moves leaves no manifest; the next one goes on in the same folder."""

    def dies_at_second(self: Path, target: Path) -> Path:
        if self.name == "b.onnx" and target.parent == tmp_path:
            raise OSError("killed")
        return replace(self, target)

    def write(text: str) -> None:
        with OutputFolder(tmp_path, "export").whole("manifest.json") as fresh:
            for each in ("a.onnx", "b.onnx", "manifest.json"):
                (fresh / each).write_text(text)

    write("one")
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", dies_at_second)
    with pytest.raises(OSError, match="killed"):
        write("two")
    assert contents(tmp_path).keys() == {"a.onnx", LIST}
    monkeypatch.undo()
    write("three")
    assert {(tmp_path / name).read_text() for name in ("a.onnx", "b.onnx", "manifest.json")} == {"three"}


def test_what_a_killed_writer_left_is_not_foreign(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, "train")
    folder.file("state.pt").write_text("whole")
    (tmp_path / ".state.pt.abc.part").write_text("half")
    (tmp_path / f".{LIST}.abc.part").mkdir()
    OutputFolder(tmp_path, "train")
    (tmp_path / ".other.pt.abc.part").write_text("half")
    with pytest.raises(OutputError, match=r"holds \.other\.pt\.abc\.part"):
        OutputFolder(tmp_path, "train")


def test_files_that_cannot_be_written_are_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    for name in ("old", "deep/new"):
        check_output_file(tmp_path / name)
    assert contents(tmp_path) == {"old": b"old"} and (tmp_path / "deep").is_dir()
    for path, reason in (
        (tmp_path, "is a folder"),
        (tmp_path / "old/below", "cannot be"),
        (Path("/proc/x"), "cannot be"),
    ):
        with pytest.raises(OutputError, match=reason):
            check_output_file(path)
    check_output_file(Path("/dev/null"))


def test_what_a_run_has_not_written_again_can_go(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out", "reconstruct")
    for name in ("a", "b"):
        folder.file(name).write_text(name)
    (tmp_path / "outside").write_text("mine")
    text = (tmp_path / "out" / LIST).read_text().replace('"b"', '"b", "../outside"')
    (tmp_path / "out" / LIST).write_text(text)
    again = OutputFolder(tmp_path / "out", "reconstruct")
    again.file("a")
    again.keep_only({"a"})
    assert set(contents(tmp_path)) == {"outside", "out/a", f"out/{LIST}"}
    OutputFolder(tmp_path / "out", "reconstruct")
