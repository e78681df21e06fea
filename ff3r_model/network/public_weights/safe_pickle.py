"""Safe unpickling: tensors out of pickled checkpoints, without running anything that the pickle asks for.

A pickle is a program: it may import and call any function. Here only what rebuilds tensors and plain containers is
called; every other object of the file (a trainer's callbacks, hyperparameters) becomes an inert placeholder.
"""

from __future__ import annotations

import collections
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ff3r_model.network.checkpoint import CheckpointError

CALLABLE: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
"""All that a file may call."""

HARMFUL = {
    "asyncio", "builtins", "code", "commands", "ctypes", "importlib", "io", "marshal", "multiprocessing", "nt", "os",
    "pickle", "pip", "platform", "posix", "pty", "runpy", "shutil", "site", "socket", "subprocess", "sys", "tempfile",
    "threading", "timeit", "urllib", "webbrowser", "__builtin__",
}  # fmt: skip
"""Modules that a file of weights has no reason to name, except for `HARMLESS`: such a file is refused outright."""
HARMLESS = {"set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes", "slice", "object"}


class Placeholder:
    """Stands for an object that is not needed: takes whatever a pickle does to it, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Placeholder:
        return self

    def append(self, _: Any) -> None:
        """A pickled list's item."""

    def extend(self, _: Any) -> None:
        """A pickled list's items."""

    def add(self, _: Any) -> None:
        """A pickled set's item."""


def _resolve(module: str, name: str) -> Any:
    if (module, name) in CALLABLE:
        return CALLABLE[module, name]
    if module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)):
        return getattr(torch, name)
    if module.split(".")[0] in HARMFUL and name not in HARMLESS:
        raise CheckpointError(
            f"it asks to call {module}.{name}, which no file of weights needs. Nothing was run; do not use it"
        )
    return Placeholder


class SafeUnpickler(pickle.Unpickler):
    """Calls only what `CALLABLE` lists."""

    def find_class(self, module: str, name: str) -> Any:
        """The object that a pickle names, or `Placeholder`."""
        return _resolve(module, name)


def _load(file: IO[bytes], **options: Any) -> Any:
    return SafeUnpickler(file, **options).load()


_PICKLE = ModuleType("safe_pickle", "What `torch.load` takes for the pickle module.")
vars(_PICKLE).update(Unpickler=SafeUnpickler, load=_load)


def read_tensors(path: str | os.PathLike[str], key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in a pickle of PyTorch's (under `key`, where it has one).

    Raises CheckpointError for files that are missing, truncated, of another kind, or try to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not there. Give the path of the downloaded checkpoint.")
    if path.suffix == ".safetensors":
        return _guarded(path, lambda: load_file(path))
    content = _guarded(path, lambda: _read_pickle(path))
    if key is not None and isinstance(content, dict) and isinstance(content.get(key), dict):
        content = content[key]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    if strange := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"{path}: {strange[0]!r} is no tensor" + (f"; are the weights under {key!r}?" if key else ".")
        )
    return content


def _read_pickle(path: Path) -> Any:
    # Not `weights_only`: that refuses whole files for one unknown object, which here becomes a placeholder.
    return torch.load(
        path, map_location="cpu", pickle_module=_PICKLE, weights_only=False, mmap=zipfile.is_zipfile(path)
    )


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except CheckpointError as error:
        raise CheckpointError(f"{path} is refused: {error}.") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {str(error)[:200]}). It may be truncated "
            "or of another kind: fetch it again."
        ) from error
