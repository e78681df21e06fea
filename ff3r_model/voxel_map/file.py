"""Map files: safetensors with a JSON header, a version and a checksum; written at once or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ff3r_model.core.checked import json_value
from ff3r_model.core.errors import UserError, shown
from ff3r_model.core.files import remove_leftovers, replaced
from ff3r_model.core.memory import check_memory
from ff3r_model.core.tensor_digest import tensor_bytes, tensors_digest
from ff3r_model.core.tensor_file import NAMES, TensorFile, header_bytes

FORMAT_VERSION = 2
"""Of the files that we write: 2 has the voxels' anchors and extras of the caller's."""
READABLE = (1, 2)
_KEY = "ff3r_map"
_OWN = "record_checksum"
"""Of the record itself; files from before have none."""


class MapFileError(UserError):
    """A map file that cannot be written or read."""


def write_map(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to `path`, through a temporary file beside it.

    Raises MapFileError, for instance on a full disk; what was at `path` before is then still there, whole, as it is
    whenever the process is killed on the way.
    """
    data = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if strange := [f"{tensor.dtype} of {name}" for name, tensor in data.items() if tensor.dtype not in NAMES]:
        raise MapFileError(f"map files cannot hold {', '.join(strange)}; they hold {', '.join(map(str, NAMES))}")
    record = {"version": FORMAT_VERSION, "checksum": tensors_digest(data), **header}
    record[_OWN] = _digest(record)
    try:
        remove_leftovers(path)
        with replaced(path) as temporary, temporary.open("wb") as file:
            file.write(header_bytes(data, {_KEY: json.dumps(record)}))
            for tensor in data.values():
                file.write(tensor_bytes(tensor))
    except OSError as error:
        raise MapFileError(
            f"cannot save the map to {path}: {error.strerror or error}; nothing there was changed"
        ) from error


def read_map(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and tensors of a map file. They are what was written; what they say has not been checked.

    Raises MapFileError for a file that is missing, cut short, damaged, of another kind or of a newer version, or that
    needs more memory than there is.
    """
    try:
        with TensorFile(path) as file:
            record = _record(path, file.metadata)
            check_memory(sum(entry.nbytes for entry in file.entries.values()))
            tensors = {name: file.read(name) for name in file.entries}
            file.check_unchanged()
        intact = tensors_digest(tensors) == record["checksum"]
    except OSError as error:
        raise MapFileError(f"cannot read the map {path}: {error.strerror or error}") from error
    except (ValueError, RuntimeError, MemoryError) as error:  # torch's allocator raises RuntimeError
        raise MapFileError(f"{path} is not a map file, or is cut short or damaged: {error}") from error
    if not intact:
        raise MapFileError(f"{path} is damaged: its content does not match its checksum")
    return record, tensors


def _record(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The header of our own files."""
    try:
        record = json_value(metadata[_KEY])
        if not isinstance(record, dict) or not {"version", "checksum"} <= record.keys():
            raise ValueError(f"its record is {shown(record)}, and should have version and checksum")
    except (KeyError, ValueError) as error:
        raise MapFileError(f"{path} is a safetensors file, but holds no map ({error})") from error
    if type(record["version"]) is not int or record["version"] not in READABLE:
        raise MapFileError(
            f"{path} has map format {shown(record['version'])}; this program reads {READABLE}: use a matching release"
        )
    if _OWN in record and record.pop(_OWN) != _digest(record):
        raise ValueError("its record does not match its checksum")
    return record


def _digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record, 64 hex digits."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
