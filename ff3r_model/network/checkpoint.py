"""Checkpoints: network and text encoder in one safetensors file, saved whole and loaded with strict checks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ff3r_model.core.errors import UserError
from ff3r_model.core.files import replaced
from ff3r_model.core.text_space import TextSpace
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.text_encoder import TextConfig, TextEncoder

NANO_WEIGHTS = Path(__file__).parent / "weights" / "nano.safetensors"
"""The small FF3R that comes with the package."""

Mode = Literal["trained", "lifting"]
VERSION = 1
METADATA_KEY = "ff3r"
NETWORK = "network."
TEXT = "text."
SHOWN = 8
"""Names in an error message, of each kind."""


class CheckpointError(UserError):
    """A weights file that cannot be used; the message gives the reason and the way out."""


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run, in eval mode."""

    network: FF3R
    text_encoder: TextEncoder
    mode: Mode
    """"trained", or "lifting": public weights without FF3R training, whose Gaussians are lifted pixels."""
    config: FF3RConfig
    card: dict[str, Any]
    """How it was made and what it measured."""

    @property
    def text_space(self) -> TextSpace:
        """Cosines between the network's compact features and the text encoder's embeddings."""
        return self.network.text_space


def save_checkpoint(
    path: str | os.PathLike[str],
    network: FF3R,
    text_encoder: TextEncoder,
    *,
    mode: Mode,
    card: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write both models and their configurations; the file appears whole or not at all.

    `dtype` stores floating-point tensors narrower (float16 halves the file); they load back as float32.
    """
    tensors = _with_prefix(NETWORK, network.state_dict()) | _with_prefix(TEXT, text_encoder.state_dict())
    tensors = {name: _stored(tensor, dtype) for name, tensor in tensors.items()}
    header = {
        "version": VERSION,
        "mode": mode,
        "config": json.loads(network.config.to_json()),
        "text_config": asdict(text_encoder.config),
        "card": dict(card),
    }
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            save_file(tensors, temporary, {METADATA_KEY: json.dumps(header)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} could not be written: {error}. Is the disk full or read-only?") from error


def load_checkpoint(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Checkpoint:
    """The model in `path`, as float32 on `device`. Raises CheckpointError for any file that is not exactly one."""
    path = Path(path)
    header, tensors = _read(path)
    config, text_config = _configs(header, path)
    with torch.device("meta"):
        network = FF3R(config)
    text_encoder = TextEncoder(text_config)
    assign(network, _without_prefix(NETWORK, tensors), f"{path} (network)")
    assign(text_encoder, _without_prefix(TEXT, tensors), f"{path} (text encoder)")
    if foreign := [name for name in tensors if not name.startswith((NETWORK, TEXT))]:
        raise CheckpointError(f"{path} holds tensors that belong to neither network nor text: {_list(foreign)}")
    return Checkpoint(
        network.to(device).eval(), text_encoder.to(device).eval(), header["mode"], config, header.get("card", {})
    )


def assign(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give `module` these tensors, which must be its own, name by name and shape by shape.

    Raises CheckpointError naming every missing, unexpected or misshapen tensor. Tensors are taken, not copied, so a
    module built on the meta device needs no memory before.
    """
    check({name: tensor.shape for name, tensor in module.state_dict().items()}, tensors, source)
    dtypes = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    module.load_state_dict({name: x.to(dtypes[name]) for name, x in tensors.items()}, strict=True, assign=True)


def check(expected: Mapping[str, Iterable[int]], tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises CheckpointError unless `tensors` has exactly the names and shapes of `expected`."""
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    misshapen = [
        f"{name} is {list(tensors[name].shape)} and should be {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    problems = [f"{len(names)} {kind}: {_list(names)}" for kind, names in kinds.items() if names]
    if problems:
        raise CheckpointError(
            f"{source} does not fit this network. {'; '.join(problems)}. "
            "Use the original file, or one made for this version and size."
        )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"{path} is not there. Give the path of a weights file (.safetensors).")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(METADATA_KEY)
            if header is None:
                raise CheckpointError(f"{path} is no FF3R checkpoint; make one of public weights with `ff3r convert`.")
            fields = json.loads(header)
            if not isinstance(fields, dict):
                raise ValueError(f"its header is {fields!r}")
            return fields, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a safetensors file ({error}). It may be truncated or of another kind: "
            "fetch it again, or convert public weights with `ff3r convert`."
        ) from error


def _configs(header: dict[str, Any], path: Path) -> tuple[FF3RConfig, TextConfig]:
    if header.get("version") != VERSION:
        raise CheckpointError(f"{path} has version {header.get('version')!r}; this program reads version {VERSION}.")
    if header.get("mode") not in get_args(Mode):
        raise CheckpointError(f"{path} has the mode {header.get('mode')!r}, which is none of {get_args(Mode)}.")
    try:
        return FF3RConfig.from_json(json.dumps(header["config"])), TextConfig(**header["text_config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} describes a network that this program does not know: {error}.") from error


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    narrow = dtype is not None and tensor.is_floating_point()
    return tensor.detach().to("cpu", dtype if narrow else tensor.dtype).contiguous()


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _list(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
