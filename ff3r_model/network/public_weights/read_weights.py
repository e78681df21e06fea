"""State dicts of public checkpoints: safetensors, or PyTorch's own files without running what is in them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from ff3r_model.network.checkpoint import CheckpointError
from ff3r_model.network.public_weights.torch_file import StoredTensor, TorchFileError, read_torch_file

WRAPPERS = ("state_dict", "model")
"""Keys under which trainers put a state dict, the likeliest first."""
PREFIXES = ("module.", "model.", "_orig_mod.")
"""What data-parallel training, a trainer's class, and torch.compile put before every name."""
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "model.pt", "pytorch_model.bin")
"""Files of a folder as Hugging Face has it: the list of its shards, or all weights in one."""
DEPTH = 4
"""Wrappers around wrappers that are looked into."""
SHOWN = 3


def weights_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files to read: `path` itself; the shards that an index lists; of a folder, its shards or its one file.

    Raises CheckpointError where one is not there.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = next((path / name for name in (*INDEXES, *WHOLE) if (path / name).is_file()), None)
        if found is None:
            raise CheckpointError(
                f"{path} is a folder without {WHOLE[0]} or {INDEXES[0]}: give the file of weights in it."
            )
        path = found
    if not path.is_file():
        raise CheckpointError(f"{path} is not there. Give the path of the downloaded checkpoint.")
    return _shards(path) if path.name.endswith(".index.json") else [path]


def read_tensors(path: str | os.PathLike[str], key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, in a PyTorch file (under `key`, or as trainers wrap it) or TorchScript.

    A folder, or the index of one, gives the tensors of all its shards. What data-parallel training and the like put
    before every name is taken off. The tensors lie in memory, not in the file. Raises CheckpointError for files that
    are missing, truncated, of another kind, or try to run code; nothing in them is executed.
    """
    tensors: dict[str, Tensor] = {}
    for file in weights_files(path):
        tensors |= _read(file, key)
    return _without_prefixes(tensors)


def _shards(index: Path) -> list[Path]:
    """The files that an index names, all of them beside it. Raises CheckpointError."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if strange := [name for name in names if Path(name).name != name]:
            raise ValueError(f"{strange[0]!r} is no name of a file beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is no list of a checkpoint's shards: {type(error).__name__} {error}") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing or not names:
        raise CheckpointError(f"{index} lists {len(names)} shards, and {_some(missing)} is not there: fetch it.")
    return [index.parent / name for name in names]


def _read(path: Path, key: str | None) -> dict[str, Tensor]:
    if path.suffix == ".npz":
        raise CheckpointError(
            f"{path} holds NumPy's arrays, which are not read. Of TIPSv2 take model.safetensors from the hub instead."
        )
    if path.suffix == ".safetensors":
        return _guarded(path, lambda: load(path.read_bytes()))
    stored = _unwrapped(_guarded(path, lambda: read_torch_file(path)), path, key)
    return _guarded(path, lambda: {name: tensor.load() for name, tensor in stored.items()})


def _unwrapped(content: Any, path: Path, key: str | None) -> dict[str, StoredTensor]:
    """The dictionary that holds the tensors, however trainers have wrapped it. Raises CheckpointError."""
    for _ in range(DEPTH):
        if not isinstance(content, dict) or not content:
            raise CheckpointError(f"{path} holds a {type(content).__name__} without tensors, not a state dict.")
        others = [name for name, value in content.items() if not isinstance(value, StoredTensor)]
        if not others:
            return content
        inner = [name for name in others if isinstance(content[name], dict) and _has_tensors(content[name])]
        known = [name for name in (key, *WRAPPERS) if name in inner]
        if not inner or len(others) < len(content):
            raise CheckpointError(f"{path}: {_some(others)} is no tensor; save the state dict alone.")
        if not known and len(inner) > 1:
            raise CheckpointError(f"{path} holds several state dicts ({_some(inner)}): save the wanted one alone.")
        content = content[known[0] if known else inner[0]]
    raise CheckpointError(f"{path} wraps its tensors more than {DEPTH} times: save the state dict alone.")


def _has_tensors(value: dict[Any, Any], depth: int = DEPTH) -> bool:
    return any(
        isinstance(each, StoredTensor) or (depth > 0 and isinstance(each, dict) and _has_tensors(each, depth - 1))
        for each in value.values()
    )


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without what stands before all of their names, twice at most."""
    for prefix in PREFIXES * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(repr(name)[:80] for name in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except TorchFileError as error:
        raise CheckpointError(f"{path} is refused: {error}.") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {str(error)[:200]}). It may be truncated "
            "or of another kind: fetch it again."
        ) from error
