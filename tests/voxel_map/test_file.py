"""Map files through crashes: a process that is killed while it saves leaves the old file or the new one, whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ff3r_model.core.files import LEFTOVER_SECONDS
from ff3r_model.voxel_map.file import MapFileError, read_map, write_map

MOMENTS = 10
ELEMENTS = 2_000_000
"""8 MB: long enough to be hit on the way."""

SAVER = """
import sys, torch
from pathlib import Path
from ff3r_model.voxel_map.file import write_map
path, elements = Path(sys.argv[1]), int(sys.argv[2])
tensors = {"number": torch.zeros(1), "data": torch.zeros(elements)}
print("ready", flush=True)
number = 0
while True:
    number += 1
    sys.stdin.readline()
    for tensor in tensors.values():
        tensor.fill_(number)
    print("saving", number, flush=True)
    write_map(path, tensors, {"number": number})
    print("saved", number, flush=True)
"""


class Saver:
    """A process that saves file after file to one path, each with another number all over it, when told to."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", SAVER, str(path), str(ELEMENTS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect("ready")

    def expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(word)

    def start(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.expect("saving")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def number_in(path: Path) -> int:
    """Of the file, if it is whole: one number everywhere."""
    header, tensors = read_map(path)
    assert bool((tensors["data"] == header["number"]).all())
    assert len(tensors["data"]) == ELEMENTS
    return int(header["number"])


def test_killed_at_ten_moments_the_old_file_or_the_new_one_is_there(tmp_path: Path) -> None:
    """The moments are spread over the time that a whole save takes, a random one in each tenth."""
    path = tmp_path / "map.ff3r"
    saver = Saver(path)
    start = time.perf_counter()
    saver.start()
    saver.expect("saved")
    whole = time.perf_counter() - start
    assert number_in(path) == 1
    saver.kill()
    kept_old = 0
    generator = random.Random(0)
    for moment in range(MOMENTS):
        write_map(path, {"number": torch.zeros(1), "data": torch.full((ELEMENTS,), 77.0)}, {"number": 77})
        saver = Saver(path)
        saver.start()
        time.sleep(whole * (moment + generator.random()) / MOMENTS)
        saver.kill()
        number = number_in(path)
        assert number in (77, 1)
        kept_old += number == 77
    assert kept_old > 0, "no process was killed before it was through: the moments prove nothing"


def test_the_next_save_removes_old_leftovers_and_no_young_ones(tmp_path: Path) -> None:
    path = tmp_path / "map[1].ff3r"
    old, young, foreign = (tmp_path / f".map[1].ff3r.{name}" for name in ("a.part", "b.part", "c"))
    for file in (old, young, foreign):
        file.write_bytes(b"half")
    past = time.time() - LEFTOVER_SECONDS - 10
    os.utime(old, (past, past))
    os.utime(foreign, (past, past))
    write_map(path, {"x": torch.zeros(3)}, {})
    assert {file.name for file in tmp_path.iterdir()} == {path.name, young.name, foreign.name}


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(3),
        torch.tensor([True, False]),
        torch.rand(2, 3).half(),
        torch.rand(2, 0, 3),
        torch.tensor(1.5, dtype=torch.float64),
        torch.arange(4, dtype=torch.uint8),
        torch.rand(4, 4).T,
    ],
)
def test_tensors_of_every_kind_come_back(tmp_path: Path, tensor: torch.Tensor) -> None:
    write_map(tmp_path / "map", {"x": tensor}, {"word": "ä", "list": [1, {"a": None}]})
    header, tensors = read_map(tmp_path / "map")
    assert torch.equal(tensors["x"], tensor)
    assert tensors["x"].dtype == tensor.dtype
    assert (header["word"], header["list"]) == ("ä", [1, {"a": None}])


def test_a_kind_that_files_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MapFileError, match=r"complex64.*phase"):
        write_map(tmp_path / "map", {"phase": torch.zeros(2, dtype=torch.complex64)}, {})
    assert list(tmp_path.iterdir()) == []
