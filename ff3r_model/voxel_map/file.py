"""Map files: safetensors with a JSON header, a version and a checksum; written at once or not at all."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import struct
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ff3r_model.core.errors import UserError

FORMAT_VERSION = 2
"""Of the files that we write: 2 has the voxels' anchors and extras of the caller's."""
READABLE = (1, 2)
LEFTOVER_SECONDS = 3600
"""Age at which an unfinished file of a killed saver is removed by the next."""
_PART = ".part"
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
    record = {"version": FORMAT_VERSION, "checksum": _checksum(data), **header}
    temporary = None
    try:
        _remove_leftovers(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PART, dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(_header_bytes(data, record))
            for tensor in data.values():
                file.write(_bytes(tensor))
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise MapFileError(
            f"cannot save the map to {path}: {error.strerror or error}; nothing there was changed"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_map(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and tensors of a map file.

    Raises MapFileError for a file that is missing, cut short, damaged, of another kind or of a newer version.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            record = _record(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise MapFileError(f"cannot read the map {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise MapFileError(f"{path} is not a map file, or is cut short or damaged: {error}") from error
    if _checksum(tensors) != record["checksum"]:
        raise MapFileError(f"{path} is damaged: its content does not match its checksum")
    return record, tensors


def _remove_leftovers(path: Path) -> None:
    """Remove what savers of this file that were killed have left beside it; young ones may be at work still."""
    for rest in path.parent.glob(f".{glob.escape(path.name)}.*{_PART}"):
        if time.time() - rest.stat().st_mtime > LEFTOVER_SECONDS:
            rest.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let the new name outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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


def _checksum(data: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(data.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's memory."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data
