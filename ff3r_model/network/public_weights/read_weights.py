"""State dicts of public checkpoints: safetensors, or PyTorch's own files without running what is in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from ff3r_model.network.checkpoint import CheckpointError
from ff3r_model.network.public_weights.torch_file import StoredTensor, TorchFileError, read_torch_file

WRAPPERS = ("state_dict", "model")
"""Keys under which trainers put a state dict."""


def read_tensors(path: str | os.PathLike[str], key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, in a PyTorch file (under `key`, or as trainers wrap it) or TorchScript.

    The tensors lie in memory, not in the file. Raises CheckpointError for files that are missing, truncated, of another
    kind, or try to run code; nothing in them is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not there. Give the path of the downloaded checkpoint.")
    if path.suffix == ".safetensors":
        return _guarded(path, lambda: load(path.read_bytes()))
    content = _guarded(path, lambda: read_torch_file(path))
    for wrapper in (key, *WRAPPERS):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    if strange := [name for name, value in content.items() if not isinstance(value, StoredTensor)]:
        raise CheckpointError(
            f"{path}: {strange[0]!r} is no tensor" + (f"; are the weights under {key!r}?" if key else ".")
        )
    return _guarded(path, lambda: {name: stored.load() for name, stored in content.items()})


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
