"""Tensors out of PyTorch checkpoint files (.pt, .pth, .ckpt), read without torch.load: nothing in a file is executed.

A pickle is a program: it may import and call any function. Here only what rebuilds tensors and plain containers is
called; every other object of the file (a trainer's callbacks, hyperparameters, a TorchScript module) becomes an inert
placeholder. Three containers are in use: the zip of PyTorch 1.6 and later, TorchScript's zip (OpenAI's CLIP), and the
legacy stream of pickles. Tensors are read when asked for, so that what is not needed takes no memory.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
"""What the legacy stream begins with."""
MAX_PICKLE = 256 * 2**20
"""Bytes of a checkpoint's pickle: names and shapes, no weights."""

HARMFUL = {
    "asyncio", "builtins", "code", "commands", "ctypes", "importlib", "io", "marshal", "multiprocessing", "nt", "os",
    "pickle", "pip", "platform", "posix", "pty", "runpy", "shutil", "site", "socket", "subprocess", "sys", "tempfile",
    "threading", "timeit", "urllib", "webbrowser", "__builtin__",
}  # fmt: skip
"""Modules that a file of weights has no reason to name, except for `HARMLESS`: such a file is refused outright."""
HARMLESS = {"set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes", "slice", "object"}
_DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


class TorchFileError(Exception):
    """A file that is no checkpoint, is damaged, or asks for what no file of weights needs."""


class Placeholder:
    """Stands for an object that is not needed: takes whatever a pickle does to it, and does nothing but remember."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None
        """What the pickle gave it to set itself up with: a TorchScript module's attributes."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Placeholder:
        return self

    def append(self, _: Any) -> None:
        """A pickled list's item."""

    def extend(self, _: Any) -> None:
        """A pickled list's items."""

    def add(self, _: Any) -> None:
        """A pickled set's item."""


@dataclass
class Storage:
    """A stretch of numbers in the file."""

    dtype: torch.dtype
    count: int
    read: Callable[[Storage], Tensor]
    offset: int = 0
    """In the file's bytes, of legacy streams, which tell it only at their end."""
    tensor: Tensor | None = field(default=None, repr=False)

    def values(self) -> Tensor:
        """All numbers, read once."""
        if self.tensor is None:
            self.tensor = self.read(self)
        return self.tensor

    @property
    def nbytes(self) -> int:
        """Of all numbers."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def load(self) -> Tensor:
        """The tensor, with memory of its own kind: views of one storage share it."""
        return self.storage.values().as_strided(self.shape, self.strides, self.offset)


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """What a checkpoint holds, with `StoredTensor` in place of tensors and `Placeholder` in place of other objects.

    A TorchScript archive gives its module's parameters and buffers, by dotted name. Raises TorchFileError.
    """
    path = Path(path)
    if zipfile.is_zipfile(path):
        return _from_zip(path)
    if tarfile.is_tarfile(path):
        raise TorchFileError(
            "it is a tar of PyTorch before 0.1.10; load it with a PyTorch of its time and save it anew"
        )
    return _from_stream(path)


class Unpickler(pickle.Unpickler):
    """Builds tensors, containers and placeholders; `storage` answers for what lies outside the pickle."""

    def __init__(self, file: io.BufferedIOBase, storage: Callable[[tuple[Any, ...]], Storage] | None = None) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """The few callables that rebuild tensors; a placeholder for anything else. Nothing is imported."""
        if (module, name) in _CALLABLE:
            return _CALLABLE[module, name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.split(".")[0] in HARMFUL and name not in HARMLESS:
            raise TorchFileError(
                f"it asks to call {module}.{name}, which no file of weights needs. Nothing was run; do not use it"
            )
        return Placeholder

    def persistent_load(self, pid: Any) -> Storage:
        """A storage of the file."""
        known = isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and self._storage is not None
        if not known:
            raise TorchFileError(f"it refers to {str(pid)[:80]}, which is no storage")
        assert self._storage is not None
        dtype, count = pid[1], pid[4]
        if not isinstance(dtype, torch.dtype) or not isinstance(count, int) or count < 0:
            raise TorchFileError(f"a storage of {str(count)[:40]} numbers of {str(dtype)[:40]} cannot be")
        return self._storage(pid)


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    """A tensor that lies within its storage, no element twice."""
    numbers = [offset, *shape, *strides]
    if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > 32:
        raise TorchFileError("a tensor has no storage, or as many strides as it has sides")
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise TorchFileError(f"a tensor of shape {tuple(shape)}, strides {tuple(strides)}, offset {offset} cannot be")
    count = math.prod(shape)
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if count > storage.count or (count and last >= storage.count):
        raise TorchFileError(f"a tensor of shape {tuple(shape)} does not fit its storage of {storage.count} numbers")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(data: Any, *_: Any) -> Any:
    return data


_CALLABLE: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): lambda *_: {},
    ("torch", "Size"): lambda sides=(): tuple(sides),
    ("torch", "device"): lambda *_: None,
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
"""All that a file may call: every one of them ours, or a plain container."""


def _from_zip(path: Path) -> Any:
    archive = zipfile.ZipFile(path)
    names = {name: archive.getinfo(name) for name in archive.namelist()}
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise TorchFileError("it is a zip, but none that PyTorch writes (no data.pkl in it)")
    root = pickles[0].removesuffix("data.pkl")
    if names[pickles[0]].file_size > MAX_PICKLE:
        raise TorchFileError(f"its pickle has {names[pickles[0]].file_size:,} bytes, which no list of names needs")
    order = archive.read(f"{root}byteorder").strip() if f"{root}byteorder" in names else b"little"
    if order != b"little":
        raise TorchFileError("it was written by a big-endian machine: load and save it on one like this")
    known: dict[str, Storage] = {}

    def storage(pid: tuple[Any, ...]) -> Storage:
        key = str(pid[2])
        if key not in known:
            entry = names.get(f"{root}data/{key}") or names.get(f"{root}tensors/{key}")
            found = Storage(pid[1], pid[4], lambda each: _entry(archive, entry, each))
            if entry is None or entry.file_size < found.nbytes or entry.compress_type != zipfile.ZIP_STORED:
                raise TorchFileError(f"storage {key} is missing, compressed, or shorter than its {found.nbytes} bytes")
            known[key] = found
        return known[key]

    content = Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load()
    if f"{root}constants.pkl" in names:
        return _script_tensors(content)
    return content


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None, storage: Storage) -> Tensor:
    assert entry is not None
    with archive.open(entry) as file:
        return _numbers(file, storage)  # type: ignore[arg-type]  # the stub says IO[bytes]


def _numbers(file: io.BufferedIOBase, storage: Storage) -> Tensor:
    """The storage's numbers, in memory: a file that changes later changes nothing."""
    values = torch.empty(storage.count, dtype=storage.dtype)
    raw = values.view(torch.uint8).numpy()
    done = 0
    while done < storage.nbytes:
        chunk = file.read(min(storage.nbytes - done, 2**24))
        if not chunk:
            raise TorchFileError(f"it ends within a storage of {storage.nbytes} bytes")
        raw[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)
    return values


def _script_tensors(module: Any, prefix: str = "", depth: int = 0) -> dict[str, StoredTensor]:
    """Parameters and buffers of a TorchScript module and of those within it."""
    found: dict[str, StoredTensor] = {}
    state = module.state if isinstance(module, Placeholder) else None
    if not isinstance(state, dict) or depth > 64:
        return found
    for name, value in state.items():
        if isinstance(value, StoredTensor):
            found[f"{prefix}{name}"] = value
        else:
            found |= _script_tensors(value, f"{prefix}{name}.", depth + 1)
    return found


def _from_stream(path: Path) -> Any:
    """The legacy format: three pickles about the writer, the content, the storages' keys, then their numbers."""
    size, known = path.stat().st_size, dict[str, Storage]()

    def storage(pid: tuple[Any, ...]) -> Storage:
        key, view = str(pid[2]), pid[5] if len(pid) > 5 else None
        if view is not None:
            raise TorchFileError("it holds views of storages, as PyTorch before 0.4 wrote them; save it anew")
        if key not in known:
            known[key] = Storage(pid[1], pid[4], lambda each: _stretch(path, each))
            if known[key].nbytes > size:
                raise TorchFileError(f"storage {key} has {known[key].nbytes} bytes, the whole file {size}")
        return known[key]

    with path.open("rb") as file:
        head = [Unpickler(file).load() for _ in range(2)]
        if head != [MAGIC, PROTOCOL]:
            raise TorchFileError("it is no file that PyTorch has written")
        Unpickler(file).load()
        content = Unpickler(file, storage).load()
        keys = Unpickler(file).load()
        for key in keys:
            if str(key) not in known:
                raise TorchFileError(f"it lists a storage {str(key)[:40]} that nothing refers to")
            stored, count = known[str(key)], int.from_bytes(file.read(8), "little")
            stored.offset = file.tell()
            if count != stored.count or stored.offset + stored.nbytes > size:
                raise TorchFileError(f"storage {key} is shorter than its {stored.nbytes} bytes")
            file.seek(stored.nbytes, os.SEEK_CUR)
    return content


def _stretch(path: Path, storage: Storage) -> Tensor:
    with path.open("rb") as file:
        file.seek(storage.offset)
        return _numbers(file, storage)
