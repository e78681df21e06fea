"""Files that are replaced whole or not at all, through exceptions and kills; digests that stored files rely on."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from ff3r_model.core.files import (
    LEFTOVER_SECONDS,
    remove_leftovers,
    replaced,
    replaced_folder,
)
from ff3r_model.core.tensor_digest import tensor_bytes, tensors_digest
from ff3r_model.engine.onnx.manifest import weights_hash
from ff3r_model.training.target_cache import fingerprint


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("before", [b"", b"old"])
def test_the_new_file_takes_the_old_ones_place(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "file.bin"
    if before:
        path.write_bytes(before)
    with replaced(path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"new")
        assert path.exists() == bool(before) and (not before or path.read_bytes() == before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()])
def test_a_body_that_raises_leaves_the_old_file_alone(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), replaced(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_a_writer_that_replaces_its_own_temporary_file_is_followed(tmp_path: Path) -> None:
    with replaced(tmp_path / "file.bin") as temporary:
        (tmp_path / "other").write_bytes(b"new")
        (tmp_path / "other").rename(temporary)
    assert (tmp_path / "file.bin").read_bytes() == b"new"


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "missing" / "file.bin"):
        raise AssertionError("the body does not run")


KILLED = """
import os, signal, sys
from pathlib import Path
from ff3r_model.core import files
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = Path.rename = killed
writer = getattr(files, sys.argv[1])
with writer(Path(sys.argv[2])) as temporary:
    (temporary / "inner" if temporary.is_dir() else temporary).write_bytes(b"new")
sys.exit("not killed")
"""


def kill_before_rename(writer: str, path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", KILLED, writer, str(path)], capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    kill_before_rename("replaced", path)
    assert path.read_bytes() == b"old"
    left = [name for name in names(tmp_path) if name != "file.bin"]
    assert len(left) == 1 and left[0].startswith(".file.bin.")
    assert (tmp_path / left[0]).read_bytes() == b"new", "the kill came after the write"


def test_a_kill_between_write_and_rename_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inner").write_bytes(b"old")
    kill_before_rename("replaced_folder", folder)
    assert (folder / "inner").read_bytes() == b"old"


def test_what_killed_writers_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    path, folder = tmp_path / "file[1].bin", tmp_path / "folder"
    folder.mkdir()
    kill_before_rename("replaced", path)
    kill_before_rename("replaced_folder", folder)
    left = [name for name in names(tmp_path) if name != "folder"]
    assert len(left) == 2
    for each in (path, folder):
        remove_leftovers(each)
    assert {*left} < {*names(tmp_path)}, "a young one may be another writer's, at work"
    past = time.time() - LEFTOVER_SECONDS - 10
    for name in left:
        os.utime(tmp_path / name, (past, past))
    remove_leftovers(path)
    assert len(names(tmp_path)) == 2, "of this file alone"
    remove_leftovers(folder)
    assert names(tmp_path) == ["folder"]


def test_a_folder_takes_the_old_ones_place_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for content in ("first", "second"):
        with replaced_folder(folder) as new:
            assert list(new.iterdir()) == []
            (new / content).write_text(content)
            (new / "deep").mkdir()
            (new / "deep" / "file").write_text(content)
        assert names(folder) == ["deep", content]
        assert (folder / "deep" / "file").read_text() == content
    assert names(tmp_path) == ["folder"]


def test_a_body_that_raises_leaves_the_old_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inner").write_text("old")
    with pytest.raises(ValueError, match="no"), replaced_folder(folder) as new:
        (new / "inner").write_text("half")
        raise ValueError("no")
    assert (folder / "inner").read_text() == "old"
    assert names(tmp_path) == ["folder"]


def test_a_file_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(NotADirectoryError), replaced_folder(tmp_path / "file") as new:
        (new / "inner").write_text("new")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def tensors() -> dict[str, torch.Tensor]:
    return {
        "b.weight": torch.arange(6, dtype=torch.float32).view(2, 3).T,
        "a": torch.tensor(7, dtype=torch.int64),
        "c": torch.zeros(0, 4, dtype=torch.float16),
        "d": torch.tensor([True, False]),
    }


@pytest.mark.parametrize("heading", ["{name}:{dtype}:{shape};", "{name} {dtype} {shape}", "{name}{dtype}{shape}"])
def test_a_digest_is_of_headings_and_bytes_in_the_order_of_the_names(heading: str) -> None:
    """Put together by hand, with NumPy's bytes."""
    given, joined = tensors(), b""
    for name, kind, shape in (
        ("a", "torch.int64", "()"),
        ("b.weight", "torch.float32", "(3, 2)"),
        ("c", "torch.float16", "(0, 4)"),
        ("d", "torch.bool", "(2,)"),
    ):
        joined += heading.replace("{name}", name).replace("{dtype}", kind).replace("{shape}", shape).encode()
        joined += given[name].numpy().tobytes()
    assert tensors_digest(given, heading) == hashlib.sha256(joined).hexdigest()
    assert tensors_digest(dict(reversed(given.items())), heading) == tensors_digest(given, heading)


def test_digests_that_lie_in_files_stay_what_they_were() -> None:
    """Of map files, plans' keys and names of cached targets, as version 0.1 wrote them."""
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -1.0]]))
        layer.bias.fill_(2.0)
    assert tensors_digest(layer.state_dict()) == "93d97706f26d19cbf50954c054405ed7080bb27dafb0d161933695b1491713f4"
    assert weights_hash(layer) == "3019850d4509b5c44d85e47782f7740df1feb3b4964885f942d27ce16db56ede"
    assert fingerprint(layer.state_dict()) == "d995022367cad038"


def test_bytes_of_a_tensor_are_its_memory() -> None:
    tensor = torch.arange(4, dtype=torch.int32)
    view = tensor_bytes(tensor)
    tensor[0] = 9
    assert bytes(view) == tensor.numpy().tobytes()
    assert bytes(tensor_bytes(torch.ones(2, 3, requires_grad=True))) == torch.ones(6).numpy().tobytes()


@pytest.mark.parametrize("change", ["value", "name", "shape", "dtype"])
def test_a_digest_sees_every_change(change: str) -> None:
    changed = tensors()
    if change == "value":
        changed["b.weight"] = changed["b.weight"] + torch.eye(3, 2) * 1e-6
    elif change == "name":
        changed["e"] = changed.pop("d")
    elif change == "shape":
        changed["b.weight"] = changed["b.weight"].reshape(2, 3)
    else:
        changed["a"] = changed["a"].int()
    assert tensors_digest(changed) != tensors_digest(tensors())
