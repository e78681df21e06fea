"""Stand-ins of the files of `apache` on a stand-in of the hub, with a quick conversion or the real one.

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

from benchmarks.network.standin import tiny_da3, write_da3, write_tipsv2
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import CheckpointError, save_checkpoint
from ff3r_model.network.named_weights import install
from ff3r_model.network.named_weights.install import Conversion
from ff3r_model.network.named_weights.recipes import Recipe
from ff3r_model.network.public_weights import da3, semantics
from ff3r_model.network.public_weights.read_weights import read_tensors
from ff3r_model.network.text_encoder import TextConfig, TextEncoder
from tests.support import tiny_tipsv2

GEOMETRY, WORDS = "depth-anything/DA3-BASE/model.safetensors", "google/tipsv2-b14/model.safetensors"
"""Addresses of the two large files."""
TOKENIZER = "google/tipsv2-b14/tokenizer.model"


def small_files() -> dict[str, bytes]:
    """What the hub has of them, for `quick_conversion`: tensors that say which file they are of."""
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    return {GEOMETRY: save({"geometry": noise}), WORDS: save({"words": noise[:50_000]}), TOKENIZER: b"stand-in"}


def published_files(folder: Path) -> dict[str, bytes]:
    """The same for the real conversion: Depth Anything 3's and TIPSv2's names, tiny, and a tokenizer."""
    folder.mkdir(exist_ok=True)
    files = {
        GEOMETRY: write_da3(folder, tiny_da3()).read_bytes(),
        WORDS: write_tipsv2(folder, tiny_tipsv2.IMAGE, tiny_tipsv2.text_config()).read_bytes(),
    }
    return files | {TOKENIZER: tiny_tipsv2.tokenizer()}


def quick_conversion(recipe: Recipe, files: Mapping[str, Path], output: Path, conversion: Conversion) -> None:
    """In place of `convert_files`: reads the files as that does, and writes an untrained nano in a second."""
    for key, name in (("da3", "geometry"), ("tipsv2", "words")):
        expect_names(read_tensors(files[key]), name, files[key])
    torch.manual_seed(0)
    network, text = FF3R(FF3RConfig.nano()), TextEncoder(TextConfig.nano())
    save_checkpoint(output, network, text, mode="trained", card={}, dtype=conversion.dtype)


def expect_names(tensors: Mapping[str, Tensor], name: str, path: Path) -> None:
    if list(tensors) != [name]:
        raise CheckpointError(f"{path} holds {list(tensors)}, not {name}")


def install_standin(patch: pytest.MonkeyPatch, quick: bool = True) -> None:
    """Let `apache` be made by `quick_conversion`, or by the real one of tiny networks in the published ones' place."""
    patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**14)  # what an interruption loses
    if quick:
        patch.setattr(install, "convert_files", quick_conversion)
    patch.setattr(da3, "SIZES", (tiny_da3,))
    patch.setitem(semantics.TIPSV2_SIZES, "tipsv2-tiny", (tiny_tipsv2.IMAGE, tiny_tipsv2.text_config))


if __name__ == "__main__":
    from ff3r_model.cli import main

    with pytest.MonkeyPatch.context() as _patch:
        install_standin(_patch)
        sys.exit(main(sys.argv[1:]))
