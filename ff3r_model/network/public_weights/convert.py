"""Public weights → an FF3R checkpoint in lifting mode: any geometry with any semantic encoder, no FF3R training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ff3r_model.core.output_folder import check_output_file
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import load_checkpoint, save_checkpoint
from ff3r_model.network.public_weights.compact_space import Basis, fit_basis, shipped_words
from ff3r_model.network.public_weights.geometry import GEOMETRY
from ff3r_model.network.public_weights.read_weights import read_tensors, weights_files
from ff3r_model.network.public_weights.semantics import read_semantics
from ff3r_model.network.public_weights.sources import ConvertError, SourcePath, Sources

log = logging.getLogger(__name__)


def convert(
    sources: Sources,
    output: SourcePath,
    *,
    channels: int = 64,
    words: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    config: FF3RConfig | None = None,
) -> Basis:
    """Write a lifting-mode checkpoint from a public geometry and a public semantic encoder.

    `channels` is the width of the compact features; the text's own width loses nothing. `dtype` stores the weights
    narrower. `config` is the geometry's configuration, if not the published one. Raises CheckpointError naming every
    tensor that does not fit, and ConvertError for a width that cannot be.
    """
    check_files(list(sources.given.values()), output)
    # Read and check everything before anything is computed.
    semantics = read_semantics(sources)
    if not 1 <= channels <= semantics.text.dim:
        raise ConvertError(f"compact features have 1 to {semantics.text.dim} channels, not {channels}")
    name, file = sources.geometry
    log.info("reading %s", file)
    state, geometry = read_tensors(file), GEOMETRY[name]
    config = config or geometry.config(state, str(file))
    lifting = replace(semantics.fit(config), decode_gaussians=False, feature_channels=channels)
    with torch.device("meta"):
        network = FF3R(lifting).to(dtype or torch.float32)
    semantics.load(network)
    geometry.load(network, state, str(file))
    # The compact space, from words.
    log.info("fitting %d channels to words", channels)
    basis = fit_basis(semantics.text, words if words is not None else shipped_words(), channels)
    log.info("%d words keep a cosine of %.3f on average, %.3f at worst", basis.words, *basis.cosines)
    network.feature_decoder.weight = nn.Parameter(basis.vectors.to(dtype))
    card = {
        "made_from": {name: Path(path).name for name, path in sources.given.items()},
        "compact_features": {"channels": channels, "words": basis.words, "cosine_kept": basis.cosines},
        "terms": f"{geometry.terms(config)} {semantics.terms}",
    }
    log.info("writing %s", output)
    save_checkpoint(output, network, semantics.text, mode="lifting", card=card, dtype=dtype)
    return basis


def check_files(sources: Sequence[SourcePath], output: SourcePath) -> None:
    """Before anything is read: whether the given files are there, and the new one is none of them and can be written.

    Raises CheckpointError, ConvertError and OutputError.
    """
    files = [file for source in sources for file in weights_files(source)]
    target = Path(output).expanduser().resolve()
    for file in files:
        if target.exists() and target.samefile(file):
            raise ConvertError(f"{output} is one of the files to convert: give another name for the new one")
    check_output_file(target)


def convert_own(source: SourcePath, output: SourcePath, *, dtype: torch.dtype | None = None) -> None:
    """Check an FF3R checkpoint and write it again, narrower if asked. Raises as `check_files` and `load_checkpoint`."""
    check_files([source], output)
    log.info("reading %s", source)
    checkpoint = load_checkpoint(source)
    log.info("writing %s", output)
    save_checkpoint(
        output, checkpoint.network, checkpoint.text_encoder, mode=checkpoint.mode, card=checkpoint.card, dtype=dtype
    )
