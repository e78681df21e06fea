"""Safetensors files are read as the library reads them, never mapped, and refused before anything is allocated."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load, save, save_file

from ff3r_model.core import memory
from ff3r_model.core.files import regular_file, replaced
from ff3r_model.core.tensor_file import DTYPES, TensorFile

TENSORS = {
    f"{dtype}".removeprefix("torch."): (torch.arange(6) - 1).to(dtype).view(2, 3) for dtype in DTYPES.values()
} | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "hollow": torch.zeros(3, 0)}


def read(path: Path) -> dict[str, torch.Tensor]:
    with TensorFile(path) as file:
        return {name: file.read(name) for name in file.entries}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "some.safetensors"
    save_file(TENSORS, path, {"word": "ä"})
    return path


def test_what_the_library_wrote_is_read_as_the_library_reads_it(saved: Path) -> None:
    expected, found = load(saved.read_bytes()), read(saved)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype is tensor.dtype and torch.equal(found[name], tensor)
    with TensorFile(saved) as file:
        assert file.metadata == {"word": "ä"}


def test_a_file_that_is_cut_or_overwritten_later_changes_nothing(saved: Path) -> None:
    found = read(saved)
    with saved.open("r+b") as file:
        file.write(bytes(saved.stat().st_size))
        file.truncate(1)
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)


def test_a_file_that_is_written_to_meanwhile_is_noticed(tmp_path: Path) -> None:
    saved = tmp_path / "large"
    save_file({"large": torch.zeros(100_000)}, saved)
    with TensorFile(saved) as file:
        os.truncate(saved, saved.stat().st_size - 1)
        with pytest.raises(ValueError, match="cut short while"):
            for name in file.entries:
                file.read(name)
        with pytest.raises(ValueError, match="written to while it was read"):
            file.check_unchanged()


DATA = save(TENSORS)


@pytest.mark.fuzz
@given(bit=st.integers(0, 8 * len(DATA) - 1))
@example(bit=0)
@example(bit=8 * 7)
def test_a_flipped_bit_gives_other_values_or_a_value_error(tmp_path: Path, bit: int) -> None:
    changed = bytearray(DATA)
    changed[bit // 8] ^= 1 << bit % 8
    path = tmp_path / "flipped"
    path.write_bytes(changed)
    try:
        found = read(path)
    except ValueError as error:
        assert len(str(error)) < 1000
    else:
        assert sum(tensor.nbytes for tensor in found.values()) == sum(tensor.nbytes for tensor in TENSORS.values())


@pytest.mark.fuzz
@given(size=st.integers(0, len(DATA) - 1))
def test_a_file_cut_anywhere_is_a_value_error(tmp_path: Path, size: int) -> None:
    (tmp_path / "cut").write_bytes(DATA[:size])
    with pytest.raises(ValueError, match=r"."):
        read(tmp_path / "cut")


@pytest.mark.fuzz
@given(text=st.binary(max_size=200))
@example(text=b"[" * 100_000)
@example(text=b'{"x": ' + b"9" * 6000 + b"}")
def test_any_header_is_read_or_a_value_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "any").write_bytes(struct.pack("<Q", len(text)) + text)
    try:
        read(tmp_path / "any")
    except ValueError as error:
        assert len(str(error)) < 1000


def test_more_than_the_file_holds_is_not_allocated(tmp_path: Path) -> None:
    for shape, end in (([2**40], 2**42), ([2**62, 0], 0), ([2**31, 2**31, 4], 2**66)):
        header = f'{{"x": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, {end}]}}}}'.encode()
        (tmp_path / "big").write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(ValueError, match=r"tensors take|more than any memory|whole numbers"):
            read(tmp_path / "big")


def test_more_than_is_free_is_not_allocated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2097152 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    memory.check_memory(2**31)
    with pytest.raises(MemoryError, match=r"takes 3\.0 GiB of memory, and 2\.0 GiB are free"):
        memory.check_memory(3 * 2**30)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    memory.check_memory(2**60)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    start = time.perf_counter()
    for path, what in (
        (tmp_path / "pipe", "a named pipe"),
        (tmp_path / "link", "a named pipe"),
        (tmp_path / "folder", "a folder"),
        (Path("/dev/zero"), "a device"),
    ):
        with pytest.raises(OSError, match=f"it is {what}; only regular files"):
            regular_file(path)
        with pytest.raises(OSError, match=f"it is {what}"), replaced(path):
            raise AssertionError("the body does not run")
    assert time.perf_counter() - start < 1


def test_links_are_followed_only_where_that_is_meant(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(saved)
    with regular_file(tmp_path / "link") as file:
        assert file.read() == saved.read_bytes()
    with pytest.raises(OSError, match="a symbolic link"):
        regular_file(tmp_path / "link", follow_links=False)
