"""Map files: safetensors with a JSON header, a version and a checksum; written at once or not at all."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ff3r_model.core.errors import UserError
from ff3r_model.core.files import remove_leftovers, replaced, tensor_bytes, tensors_digest

FORMAT_VERSION = 2
"""Of the files that we write: 2 has the voxels' anchors and extras of the caller's."""
READABLE = (1, 2)
_KEY = "ff3r_map"
_TYPES = {
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16",
}  # fmt: skip


class MapFileError(UserError):
    """A map file that cannot be written or read."""


def write_map(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to `path`, through a temporary file beside it.

    Raises MapFileError, for instance on a full disk; what was at `path` before is then still there, whole, as it is
    whenever the process is killed on the way.
    """
    data = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if strange := [f"{tensor.dtype} of {name}" for name, tensor in data.items() if tensor.dtype not in _TYPES]:
        raise MapFileError(f"map files cannot hold {', '.join(strange)}; they hold {', '.join(map(str, _TYPES))}")
    record = {"version": FORMAT_VERSION, "checksum": tensors_digest(data), **header}
    try:
        remove_leftovers(path)
        with replaced(path) as temporary, temporary.open("wb") as file:
            file.write(_header_bytes(data, record))
            for tensor in data.values():
                file.write(tensor_bytes(tensor))
    except OSError as error:
        raise MapFileError(
            f"cannot save the map to {path}: {error.strerror or error}; nothing there was changed"
        ) from error


def read_map(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and tensors of a map file.

    Raises MapFileError for a file that is missing, cut short, damaged, of another kind or of a newer version.
    """
    if path.exists() and not path.is_file():
        raise MapFileError(f"{path} is a folder, a pipe or a device: give a map file")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            record = _record(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise MapFileError(f"cannot read the map {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise MapFileError(f"{path} is not a map file, or is cut short or damaged: {error}") from error
    if tensors_digest(tensors) != record["checksum"]:
        raise MapFileError(f"{path} is damaged: its content does not match its checksum")
    return record, tensors


def _record(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The header of our own files."""
    try:
        record = json.loads(metadata[_KEY])
        version, _ = record["version"], record["checksum"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise MapFileError(f"{path} is a safetensors file, but holds no map") from error
    if version not in READABLE:
        raise MapFileError(f"{path} has map format {version}; this program reads {READABLE}: use a matching release")
    return record


def _header_bytes(data: Mapping[str, Tensor], record: Mapping[str, Any]) -> bytes:
    """The head of a safetensors file, padded to eight bytes."""
    head: dict[str, Any] = {"__metadata__": {_KEY: json.dumps(record)}}
    offset = 0
    for name, tensor in data.items():
        end = offset + tensor.nbytes
        head[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
