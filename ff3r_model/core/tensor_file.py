"""Safetensors files: the header is checked against the file before anything is allocated, tensors are never mapped.

Memory that is mapped from a file changes, or ends the process, when somebody writes to the file or cuts it; so each
tensor is read into memory of its own.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ff3r_model.core.checked import json_value
from ff3r_model.core.errors import shown
from ff3r_model.core.files import regular_file

DTYPES = {
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 8 * 2**20
"""Bytes; the full network's header has a twentieth of it."""
_METADATA = "__metadata__"


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: what it is, and where its bytes lie after the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file, and in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorFile:
    """An open safetensors file. What its header says has been compared with the bytes that are there."""

    def __init__(self, path: Path) -> None:
        """Raises OSError for what cannot be opened or is no regular file, ValueError for what is no such file."""
        self.path = path
        self._file = regular_file(path)
        try:
            self._status = os.fstat(self._file.fileno())
            self._begin, header = self._header()
            metadata = header.pop(_METADATA, {})
            if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
                raise ValueError(f"its metadata is {shown(metadata)}, and should hold texts")
            self.metadata: dict[str, str] = metadata
            self.entries = _entries(header, self._status.st_size - self._begin)
            """By name, in the order of their bytes."""
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own. Raises ValueError where the file has become shorter since."""
        entry = self.entries[name]
        tensor = torch.empty(entry.shape, dtype=entry.dtype)
        if entry.nbytes:
            self._file.seek(self._begin + entry.start)
            memory = tensor.view(-1).view(torch.uint8).numpy().data
            if self._file.readinto(memory) != entry.nbytes:
                raise ValueError(f"it was cut short while {name} was read")
        if entry.dtype is torch.bool and entry.nbytes and int(tensor.view(torch.uint8).max()) > 1:
            raise ValueError(f"{name} has truth values other than 0 and 1")
        return tensor

    def check_unchanged(self) -> None:
        """Raise ValueError where somebody has written to the file since it was opened."""
        now = os.fstat(self._file.fileno())
        if (now.st_mtime_ns, now.st_size) != (self._status.st_mtime_ns, self._status.st_size):
            raise ValueError("it was written to while it was read")

    def _header(self) -> tuple[int, dict[str, Any]]:
        """Where the tensors begin, and what the header says."""
        size = self._status.st_size
        start = self._file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_HEADER):
            raise ValueError(f"its first bytes promise a header of {length} bytes, the file has {size}")
        header = json_value(self._file.read(length))
        if not isinstance(header, dict):
            raise ValueError(f"its header is {shown(header)}, and should be an object")
        return 8 + length, header


def _entries(header: Mapping[str, Any], size: int) -> dict[str, Entry]:
    """What the header says of tensors, if it and the `size` bytes after it say the same."""
    made = {name: _entry(name, said) for name, said in header.items()}
    ordered = dict(sorted(made.items(), key=lambda item: (item[1].start, item[1].nbytes)))
    end = 0
    for name, entry in ordered.items():
        if entry.start != end:
            raise ValueError(f"{name} begins at byte {entry.start}, and should at {end}, where the one before ends")
        end += entry.nbytes
    if end != size:
        raise ValueError(f"its tensors take {end} bytes, and {size} are there")
    return ordered


def _entry(name: str, said: Any) -> Entry:
    """One tensor of the header, by itself."""
    if not name.isprintable():
        raise ValueError(f"its header has the name {shown(name)}")
    if not isinstance(said, dict) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"of {shown(name)} its header says {shown(said)}, and not dtype, shape and data_offsets")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name} is of type {shown(dtype)}; known are {', '.join(DTYPES)}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
            raise ValueError(f"{name} has {shown(numbers)} where whole numbers from 0 should be")
    entry = Entry(DTYPES[dtype], tuple(shape), offsets[0] if len(offsets) == 2 else -1)
    # Empty tensors, too: their other sides are bounded as any tensor's.
    if len(shape) > 8 or math.prod(side or 1 for side in shape) >= 2**62:
        raise ValueError(f"{name} is {shown(shape)}, more than any memory")
    if len(offsets) != 2 or offsets[1] - offsets[0] != entry.nbytes:
        raise ValueError(f"{name} is {dtype} {shape}, {entry.nbytes} bytes, and lies at {shown(offsets)}")
    return entry


def header_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The head of a safetensors file whose tensors follow one by one, padded to eight bytes."""
    head: dict[str, Any] = {_METADATA: dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        head[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
