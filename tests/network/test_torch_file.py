"""Checkpoint files against torch.load, and files that were made to do harm."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ff3r_model.network.checkpoint import CheckpointError
from ff3r_model.network.public_weights.read_weights import read_tensors
from ff3r_model.network.public_weights.torch_file import Placeholder, TorchFileError, read_torch_file

GENERATOR = torch.Generator().manual_seed(0)


def content() -> dict[str, Any]:
    """Tensors of every kind: types, views of one storage, turned and empty ones, single numbers, parameters."""
    base = torch.randn(6, 4, generator=GENERATOR)
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8)
    tensors: dict[str, Any] = {str(kind): (10 * base).abs().to(kind) for kind in kinds}
    tensors |= {"bool": base > 0, "view": base[1:3, 2:], "turned": base.T, "empty": torch.zeros(0, 3)}
    return tensors | {"number": torch.tensor(7), "parameter": nn.Parameter(base), "tied": base}


def loaded(found: dict[str, Any]) -> dict[str, Tensor]:
    return {name: stored.load() for name, stored in found.items()}


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_reads(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save(content(), path, _use_new_zipfile_serialization=zipped)
    ours, theirs = loaded(read_torch_file(path)), torch.load(path, weights_only=True)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor.detach()), name
        assert ours[name].stride() == tensor.stride()


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_outlive_their_file(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save({"x": torch.ones(10_000)}, path, _use_new_zipfile_serialization=zipped)
    tensors = read_tensors(path)
    with path.open("r+b") as file:
        file.truncate(10)
    assert torch.equal(tensors["x"], torch.ones(10_000))


class Scripted(nn.Module):
    """A module with code that runs when torch.jit.load sets it up."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker
        self.weight = nn.Parameter(torch.randn(2, 2))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.marker, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.marker, self.weight, self.training = state[0], state[1], state[2]
        torch.save(torch.ones(1), state[0])

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Plain(nn.Module):
    """A module with parts and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.weight = nn.Parameter(torch.randn(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_torchscript_gives_its_tensors_and_runs_nothing(tmp_path: Path) -> None:
    module, path, marker = Plain().eval(), tmp_path / "clip.pt", tmp_path / "ran"
    torch.jit.script(module).save(path)
    ours, theirs = read_tensors(path), module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    torch.jit.script(Scripted(str(marker))).save(path)
    with pytest.raises(CheckpointError, match="without tensors"):
        read_tensors(path)
    assert not marker.exists()
    torch.jit.load(path)
    assert marker.exists(), "the trap is one"


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "call", [Call(os.system, "true"), Call(eval, "1"), Call(getattr, 1, "real"), Call(__import__, "os")]
)
def test_code_is_refused_by_name(tmp_path: Path, zipped: bool, call: Call) -> None:
    path = tmp_path / "x.pt"
    torch.save({"x": torch.ones(1), "y": call}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(TorchFileError, match=rf"\.{call.call[0].__name__}, which no file of weights needs"):
        read_torch_file(path)


def test_other_objects_are_inert(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"odd": Call(struct.pack, "<I", 7), "x": torch.ones(1)}, path)
    assert isinstance(read_torch_file(path)["odd"], Placeholder)


def rebuilt(tmp_path: Path, count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Path:
    """A zip whose tensor claims this of a storage that holds four numbers."""
    path, pickled = tmp_path / "crafted.pt", io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if value is STORAGE else None

    Pickler(pickled, protocol=2).dump({"x": Call(torch._utils._rebuild_tensor_v2, STORAGE, offset, shape, strides)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/data/0", bytes(16))
    return path


STORAGE = object()


@pytest.mark.parametrize(
    ("count", "shape", "strides", "offset"),
    [
        (4, (2**40,), (0,), 0), (4, (5,), (1,), 0), (4, (2,), (3,), 1), (4, (2,), (-1,), 3), (4, (-2,), (1,), 0),
        (4, (2,), (1, 1), 0), (4, (1.5,), (1,), 0), (5, (5,), (1,), 0), (2**40, (1,), (1,), 0), (-1, (1,), (1,), 0),
    ],
)  # fmt: skip
def test_tensors_that_cannot_be(tmp_path: Path, count: int, shape: Any, strides: Any, offset: int) -> None:
    with pytest.raises(CheckpointError, match="refused"):
        read_tensors(rebuilt(tmp_path, count, shape, strides, offset))


def test_the_crafted_file_is_read_where_its_claims_are_true(tmp_path: Path) -> None:
    assert torch.equal(read_tensors(rebuilt(tmp_path, 4, (2, 2), (2, 1)))["x"], torch.zeros(2, 2))


def test_a_tar_is_refused_before_its_parts_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.FIFOTYPE  # a pipe, at which a reader waits for ever
            tar.addfile(entry)
    with pytest.raises(CheckpointError, match="is a tar"):
        read_tensors(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_end_in_one_kind_of_error(tmp_path: Path, zipped: bool) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "cut.pt"
    torch.save({"x": torch.randn(40, generator=GENERATOR)}, whole, _use_new_zipfile_serialization=zipped)
    raw = whole.read_bytes()
    for end in range(0, len(raw), 7):
        path.write_bytes(raw[:end])
        with pytest.raises(CheckpointError):
            read_tensors(path)
    for place in range(0, len(raw), 5):  # any bit may flip: an error, or numbers, and never anything else
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
        try:
            read_tensors(path)
        except CheckpointError:
            continue
