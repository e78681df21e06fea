"""Checkpoints: network and text encoder in one safetensors file, saved whole and loaded with strict checks."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ff3r_model.core.checked import MALFORMED, json_value, record
from ff3r_model.core.errors import UserError, shown
from ff3r_model.core.files import replaced
from ff3r_model.core.memory import check_memory
from ff3r_model.core.tensor_file import Entry, TensorFile
from ff3r_model.core.text_space import TextSpace
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.named_weights.places import NANO_WEIGHTS as NANO_WEIGHTS
from ff3r_model.network.named_weights.places import find_weights
from ff3r_model.network.sentencepiece_model import TokenizerError
from ff3r_model.network.text_embedder import TextEmbedder
from ff3r_model.network.text_encoder import TextConfig, TextEncoder
from ff3r_model.network.tipsv2_text import TIPSv2TextConfig, TIPSv2TextEncoder

Held = TypeVar("Held")
Mode = Literal["trained", "lifting"]
AnyTextConfig = TextConfig | TIPSv2TextConfig
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
    text_encoder: TextEmbedder
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
    text_encoder: TextEmbedder,
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
        "text_config": text_encoder.config_record(),
        "card": dict(card),
    }
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            save_file(tensors, temporary, {METADATA_KEY: json.dumps(header)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} could not be written: {error}. Is the disk full or read-only?") from error


def load_checkpoint(weights: str | os.PathLike[str] | None, device: str | torch.device = "cpu") -> Checkpoint:
    """The model of a name or in a file, by the rule of `find_weights`, as float32 on `device`.

    Raises CheckpointError for any file that is not exactly one, WeightsError for a name that is not installed.
    """
    path = find_weights(weights)
    try:
        with TensorFile(path) as file:
            checkpoint = _load(path, file)
            file.check_unchanged()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is not there. Give the path of a weights file (.safetensors), or a name of `ff3r weights list`."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except CheckpointError:
        raise
    except TokenizerError as error:
        raise CheckpointError(f"{path} cannot be used: {error}. Convert the public weights again.") from error
    except (*MALFORMED, MemoryError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a safetensors file ({error}). It may be truncated or of another kind: "
            "fetch it again, or convert public weights with `ff3r convert`."
        ) from error
    network, text_encoder = checkpoint.network.to(device).eval(), checkpoint.text_encoder.to(device).eval()
    return replace(checkpoint, network=network, text_encoder=text_encoder)


def _load(path: Path, file: TensorFile) -> Checkpoint:
    """The models, built once the file is known to have their tensors."""
    header = _header(path, file)
    config, text_config = _configs(header, path)
    # On the meta device neither takes memory, whatever its configuration says
    with torch.device("meta"):
        network, expected_text = FF3R(config), _text_encoder(text_config)
    for prefix, module, what in ((NETWORK, network, "network"), (TEXT, expected_text, "text encoder")):
        check(_shapes(module), _without_prefix(prefix, file.entries), f"{path} ({what})")
    if foreign := [name for name in file.entries if not name.startswith((NETWORK, TEXT))]:
        raise CheckpointError(f"{path} holds tensors that belong to neither network nor text: {_list(foreign)}")
    check_memory(sum(_loaded_bytes(entry) for entry in file.entries.values()))
    # One by one: no tensor is in memory twice
    text_encoder = _text_encoder(text_config)
    for prefix, module in ((NETWORK, network), (TEXT, text_encoder)):
        dtypes = {name: tensor.dtype for name, tensor in module.state_dict().items()}
        tensors = {name: _finite(file, prefix + name, dtype) for name, dtype in dtypes.items()}
        module.load_state_dict(tensors, strict=True, assign=True)
    return Checkpoint(network, text_encoder, header["mode"], config, header.get("card", {}))


def _finite(file: TensorFile, name: str, dtype: torch.dtype) -> Tensor:
    """A tensor of weights. Raises CheckpointError for values that are no numbers."""
    tensor = file.read(name)
    if tensor.dtype != dtype and not (tensor.is_floating_point() and dtype.is_floating_point):
        raise CheckpointError(f"{file.path} has {name} as {tensor.dtype}, and the network needs {dtype}.")
    tensor = tensor.to(dtype)
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{file.path} has values in {name} that are no finite numbers: its training failed.")
    return tensor


def _loaded_bytes(entry: Entry) -> int:
    """In memory, where floating-point numbers are float32."""
    return math.prod(entry.shape) * 4 if entry.dtype.is_floating_point else entry.nbytes


def _shapes(module: nn.Module) -> dict[str, Iterable[int]]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def assign(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give `module` these tensors, which must be its own, name by name and shape by shape.

    Raises CheckpointError naming every missing, unexpected or misshapen tensor. Tensors are taken, not copied, so a
    module built on the meta device needs no memory before.
    """
    check(_shapes(module), tensors, source)
    dtypes = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    module.load_state_dict({name: x.to(dtypes[name]) for name, x in tensors.items()}, strict=True, assign=True)


def check(expected: Mapping[str, Iterable[int]], tensors: Mapping[str, Tensor | Entry], source: str) -> None:
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


def _header(path: Path, file: TensorFile) -> dict[str, Any]:
    """What the file says of its models, unchecked."""
    if METADATA_KEY not in file.metadata:
        raise CheckpointError(f"{path} is no FF3R checkpoint; make one of public weights with `ff3r convert`.")
    header = json_value(file.metadata[METADATA_KEY])
    if not isinstance(header, dict):
        raise ValueError(f"its header is {shown(header)}")
    return header


def _text_encoder(config: AnyTextConfig) -> TextEmbedder:
    return TextEncoder(config) if isinstance(config, TextConfig) else TIPSv2TextEncoder(config)


def _text_config(value: Any) -> AnyTextConfig:
    """Of the kind that the header says, or of CLIP's and nano's, which says none. Raises ValueError."""
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind is None:
        return record(TextConfig, value, "text_config")
    return record(TIPSv2TextConfig, value, "text_config")


def _configs(header: dict[str, Any], path: Path) -> tuple[FF3RConfig, AnyTextConfig]:
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {shown(header.get('version'))}; this program reads version {VERSION}."
        )
    if header.get("mode") not in get_args(Mode):
        raise CheckpointError(f"{path} has the mode {shown(header.get('mode'))}, which is none of {get_args(Mode)}.")
    try:
        config = record(FF3RConfig, header.get("config"), "config")
        text_config = _text_config(header.get("text_config"))
        if text_config.dim != config.text_width:
            raise ValueError(f"text_config.dim is {text_config.dim}, and config.text_width {config.text_width}")
        if not isinstance(header.get("card", {}), dict):
            raise ValueError(f"card is {shown(header['card'])}, and should be an object")
    except ValueError as error:
        raise CheckpointError(f"{path} describes a network that this program does not know: {error}.") from error
    return config, text_config


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    narrow = dtype is not None and tensor.is_floating_point()
    return tensor.detach().to("cpu", dtype if narrow else tensor.dtype).contiguous()


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: Mapping[str, Held]) -> dict[str, Held]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _list(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
