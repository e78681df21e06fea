"""Public weights → an FF3R checkpoint in lifting mode: geometry of VGGT or Depth Anything 3, LSeg's semantics."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.core.errors import UserError
from ff3r_model.core.output_folder import check_output_file
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ff3r_model.network.public_weights.da3 import LICENCES, da3_config, load_da3
from ff3r_model.network.public_weights.read_weights import read_tensors, weights_files
from ff3r_model.network.public_weights.tensor_names import (
    expect,
    load_lseg,
    load_vggt,
    split_lseg,
    text_tower,
)
from ff3r_model.network.text_encoder import TextEncoder, TextWeightsError, load_clip_text

log = logging.getLogger(__name__)


class ConvertError(UserError):
    """Options that do not go together; the message says which values do."""


@dataclass(frozen=True)
class Basis:
    """An orthonormal basis of the compact space, and how well it holds the words that it was fitted to."""

    vectors: Float[Tensor, "text channels"]
    mean_cosine: float
    worst_cosine: float
    words: int


def convert(
    vggt: str | os.PathLike[str] | None,
    lseg: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    da3: str | os.PathLike[str] | None = None,
    clip: str | os.PathLike[str] | None = None,
    channels: int = 64,
    words: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    config: FF3RConfig | None = None,
) -> Basis:
    """Write a lifting-mode checkpoint from VGGT-1B's file and LSeg's Lightning file, which holds CLIP's text tower.

    `da3` is a file of Depth Anything 3, in place of `vggt`: its tensors tell which size it is. `clip` is another file
    to take the text tower from, under OpenAI's names. `channels` is the width of the compact features; the text's own
    width (512) loses nothing. `dtype` stores the weights narrower. Raises CheckpointError naming every tensor that does
    not fit, and ConvertError for a width that cannot be.
    """
    if (vggt is None) == (da3 is None):
        raise ConvertError("geometry comes from one file: VGGT's or Depth Anything 3's")
    geometry = da3 if vggt is None else vggt
    assert geometry is not None
    check_files([geometry, lseg, *([] if clip is None else [clip])], output)
    # Depth Anything 3's file says which network it is of.
    tensors = None
    if da3 is not None:
        log.info("reading %s", da3)
        tensors = read_tensors(da3)
        config = config or da3_config(tensors, str(da3))
    base = config or FF3RConfig.full()
    if not 1 <= channels <= base.text_width:
        raise ConvertError(f"compact features have 1 to {base.text_width} channels, not {channels}")
    # Read and check everything before anything is computed.
    log.info("reading %s", lseg)
    image_side, text_side = split_lseg(read_tensors(lseg, "state_dict"), str(lseg))
    text = _text(text_side if clip is None else _clip(clip), clip or lseg)
    with torch.device("meta"):
        network = FF3R(replace(base, decode_gaussians=False, feature_channels=channels)).to(dtype or torch.float32)
    load_lseg(network, image_side, str(lseg))
    if tensors is None:
        log.info("reading %s", geometry)
        load_vggt(network, read_tensors(geometry), str(geometry))
    else:
        load_da3(network, tensors, str(geometry))
    # The compact space, from words.
    log.info("fitting %d channels to words", channels)
    basis = fit_basis(text, words if words is not None else shipped_words(), channels)
    log.info("%d words keep a cosine of %.3f on average, %.3f at worst", basis.words, *_cosines(basis))
    network.feature_decoder.weight = nn.Parameter(basis.vectors.to(dtype))
    card = {
        "made_from": {"vggt" if da3 is None else "da3": Path(geometry).name, "lseg": Path(lseg).name},
        "compact_features": {"channels": channels, "words": basis.words, "cosine_kept": _cosines(basis)},
        "terms": f"{geometry_terms(base)} LSeg's and CLIP's have terms of their own.",
    }
    log.info("writing %s", output)
    save_checkpoint(output, network, text, mode="lifting", card=card, dtype=dtype)
    return basis


def geometry_terms(config: FF3RConfig) -> str:
    """The licence of a geometry backbone's published weights, as a sentence."""
    if config.da3 is None:
        return "VGGT-1B's weights are for non-commercial use."
    return f"The weights of {config.name} are published under {LICENCES.get(config.name, 'terms of their own')}."


def check_files(sources: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> None:
    """Before anything is read: whether the given files are there, and the new one is none of them and can be written.

    Raises CheckpointError, ConvertError and OutputError.
    """
    files = [file for source in sources for file in weights_files(source)]
    target = Path(output).expanduser().resolve()
    for file in files:
        if target.exists() and target.samefile(file):
            raise ConvertError(f"{output} is one of the files to convert: give another name for the new one")
    check_output_file(target)


def convert_own(
    source: str | os.PathLike[str], output: str | os.PathLike[str], *, dtype: torch.dtype | None = None
) -> None:
    """Check an FF3R checkpoint and write it again, narrower if asked. Raises as `check_files` and `load_checkpoint`."""
    check_files([source], output)
    log.info("reading %s", source)
    checkpoint = load_checkpoint(source)
    log.info("writing %s", output)
    save_checkpoint(
        output, checkpoint.network, checkpoint.text_encoder, mode=checkpoint.mode, card=checkpoint.card, dtype=dtype
    )


def fit_basis(text: TextEncoder, words: Sequence[str], channels: int) -> Basis:
    """The `channels` orthonormal directions that hold most of the words' embeddings."""
    if channels == text.dim:
        return Basis(torch.eye(channels), 1.0, 1.0, len(words))
    if len(words) < channels:
        raise ConvertError(f"{channels} directions need at least as many words to fit, not {len(words)}")
    embeddings = text.encode(list(words)).double()
    vectors = torch.linalg.svd(embeddings, full_matrices=False).Vh[:channels].T
    kept = (embeddings @ vectors).norm(dim=1)
    return Basis(vectors.float().contiguous(), float(kept.mean()), float(kept.min()), len(words))


def shipped_words() -> list[str]:
    """Names of things indoors, for fitting a compact space; without repetitions."""
    text = resources.files(__package__).joinpath("objects.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return list(dict.fromkeys(word.strip() for line in lines for word in line.split(",") if word.strip()))


def _clip(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    tensors = read_tensors(path, "state_dict")
    expect("CLIP's", "--clip", tensors, f"{path} (ViT-B/32 under OpenAI's names is wanted)")
    return text_tower(tensors)


def _text(tensors: dict[str, Tensor], source: str | os.PathLike[str]) -> TextEncoder:
    try:
        return load_clip_text(tensors)
    except TextWeightsError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _cosines(basis: Basis) -> tuple[float, float]:
    return basis.mean_cosine, basis.worst_cosine
