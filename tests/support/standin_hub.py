"""Stand-ins of public weights on a stand-in of the hub: the name `apache`, with a quick conversion or a real one.

As a program (`python -m tests.support.standin_hub ARGUMENTS`) it is `ff3r` to which `apache` means these.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from torch import Tensor

from benchmarks.network.standin import tiny, write_published
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import CheckpointError, save_checkpoint
from ff3r_model.network.named_weights import install
from ff3r_model.network.named_weights.install import Conversion
from ff3r_model.network.named_weights.licences import APACHE
from ff3r_model.network.named_weights.recipes import RECIPES, Part, Recipe, Source
from ff3r_model.network.public_weights.read_weights import read_tensors
from ff3r_model.network.text_encoder import TextConfig, TextEncoder

GEOMETRY, WORDS = "depth-anything/DA3-BASE/model.safetensors", "google/tipsv2-b14/model.safetensors"
"""Addresses of the two large files."""
TOKENIZER = "google/tipsv2-b14/tokenizer.model"


def standin_recipe() -> Recipe:
    """The recipe `apache`, whose files are of other kinds."""
    geometry = (Source("vggt", "depth-anything/DA3-BASE", "model.safetensors", APACHE),)
    words = (
        Source("lseg", "google/tipsv2-b14", "model.safetensors", APACHE),
        Source("tokenizer", "google/tipsv2-b14", "tokenizer.model", APACHE),
    )
    sizes = dict(trunk=1, rest=1, width=16, detail=8)
    return Recipe("apache", "tests", Part("vggt", "a", geometry, **sizes), Part("lseg", "b", words, **sizes))


def small_files() -> dict[str, bytes]:
    """What the hub has of them, for `quick_conversion`: tensors that say which file they are of."""
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    return {GEOMETRY: save({"geometry": noise}), WORDS: save({"words": noise[:50_000]}), TOKENIZER: b"stand-in"}


def published_files(folder: Path) -> dict[str, bytes]:
    """The same for the real conversion: VGGT's and LSeg's names, tiny, with CLIP's whole text tower."""
    vggt, lseg = write_published(folder, tiny())
    tensors = {GEOMETRY: torch.load(vggt), WORDS: torch.load(lseg)["state_dict"]}
    saved = {address: save({name: x.contiguous() for name, x in state.items()}) for address, state in tensors.items()}
    return saved | {TOKENIZER: b"stand-in"}


def quick_conversion(recipe: Recipe, files: Mapping[str, Path], output: Path, conversion: Conversion) -> None:
    """In place of `convert_files`: reads the files as that does, and writes an untrained nano in a second."""
    for key, name in (("vggt", "geometry"), ("lseg", "words")):
        expect_names(read_tensors(files[key]), name, files[key])
    torch.manual_seed(0)
    network, text = FF3R(FF3RConfig.nano()), TextEncoder(TextConfig.nano())
    save_checkpoint(output, network, text, mode="trained", card={}, dtype=conversion.dtype)


def expect_names(tensors: Mapping[str, Tensor], name: str, path: Path) -> None:
    if list(tensors) != [name]:
        raise CheckpointError(f"{path} holds {list(tensors)}, not {name}")


def install_standin(patch: pytest.MonkeyPatch, quick: bool = True) -> None:
    """Let `apache` mean the stand-in, and the full size the tiny one."""
    patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**14)  # what an interruption loses
    patch.setitem(RECIPES, "apache", standin_recipe())
    if quick:
        patch.setattr(install, "convert_files", quick_conversion)
    patch.setattr(FF3RConfig, "full", staticmethod(tiny))


if __name__ == "__main__":
    from ff3r_model.cli import main

    with pytest.MonkeyPatch.context() as _patch:
        install_standin(_patch)
        sys.exit(main(sys.argv[1:]))
