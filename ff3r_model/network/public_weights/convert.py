"""Public weights → an FF3R checkpoint in lifting mode: any geometry with any semantic encoder, no FF3R training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.core.errors import UserError
from ff3r_model.core.output_folder import check_output_file
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import load_checkpoint, save_checkpoint
from ff3r_model.network.public_weights.geometry import GEOMETRY
from ff3r_model.network.public_weights.read_weights import read_tensors, weights_files
from ff3r_model.network.public_weights.semantics import (
    TOKENIZER,
    SourcePath,
    lseg_part,
    tipsv2_part,
    tokenizer_file,
)
from ff3r_model.network.text_embedder import TextEmbedder

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
    output: SourcePath,
    *,
    vggt: SourcePath | None = None,
    da3: SourcePath | None = None,
    lseg: SourcePath | None = None,
    clip: SourcePath | None = None,
    tipsv2: SourcePath | None = None,
    tokenizer: SourcePath | None = None,
    channels: int = 64,
    words: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    config: FF3RConfig | None = None,
) -> Basis:
    """Write a lifting-mode checkpoint from one geometry (`vggt`, `da3`) and one semantic encoder (`lseg`, `tipsv2`).

    `da3` is a file of Depth Anything 3: its tensors tell which size it is.
    `lseg` is LSeg's Lightning file, which holds CLIP's text tower; `clip` is another file to take that from. `tipsv2`
    and `tokenizer` are the hub's model.safetensors and tokenizer.model. `channels` is the width of the compact
    features; the text's own width loses nothing. `dtype` stores the weights narrower; `config` is the geometry's
    configuration, if not the published one. Raises CheckpointError naming every tensor that does not fit, and
    ConvertError for options that do not go together.
    """
    geometry, geometry_file = _geometry({"vggt": vggt, "da3": da3})
    _check_semantics(lseg, clip, tipsv2, tokenizer)
    others = [path for path in (lseg, clip, tipsv2) if path is not None]
    check_files([geometry_file, *others, *([] if tokenizer is None else [tokenizer_file(tokenizer)])], output)
    # Read and check everything before anything is computed.
    semantics = lseg_part(lseg, clip) if lseg is not None else tipsv2_part(_given(tipsv2), _given(tokenizer))
    if not 1 <= channels <= semantics.text.dim:
        raise ConvertError(f"compact features have 1 to {semantics.text.dim} channels, not {channels}")
    log.info("reading %s", geometry_file)
    state, kind = read_tensors(geometry_file), GEOMETRY[geometry]
    base = semantics.fit(config or kind.config(state, str(geometry_file)))
    with torch.device("meta"):
        network = FF3R(replace(base, decode_gaussians=False, feature_channels=channels)).to(dtype or torch.float32)
    semantics.load(network)
    kind.load(network, state, str(geometry_file))
    del state
    # The compact space, from words.
    log.info("fitting %d channels to words", channels)
    basis = fit_basis(semantics.text, words if words is not None else shipped_words(), channels)
    log.info("%d words keep a cosine of %.3f on average, %.3f at worst", basis.words, *_cosines(basis))
    network.feature_decoder.weight = nn.Parameter(basis.vectors.to(dtype))
    sources = {geometry: geometry_file, "lseg": lseg, "clip": clip, "tipsv2": tipsv2, "tokenizer": tokenizer}
    card = {
        "made_from": {name: Path(path).name for name, path in sources.items() if path is not None},
        "compact_features": {"channels": channels, "words": basis.words, "cosine_kept": _cosines(basis)},
        "terms": f"{kind.terms(base)}. {semantics.terms}.",
    }
    log.info("writing %s", output)
    save_checkpoint(output, network, semantics.text, mode="lifting", card=card, dtype=dtype)
    return basis


def _geometry(files: Mapping[str, SourcePath | None]) -> tuple[str, SourcePath]:
    """The one file that is given, with its kind. Raises ConvertError."""
    given = {kind: path for kind, path in files.items() if path is not None}
    if len(given) != 1:
        known = " or ".join(f"--{kind}" for kind in files)
        found = " and ".join(f"--{kind}" for kind in given) or "none"
        raise ConvertError(f"give one file for cameras and depth, {known}, not {found}; --ff3r is for FF3R's own")
    return next(iter(given.items()))


def _check_semantics(
    lseg: SourcePath | None, clip: SourcePath | None, tipsv2: SourcePath | None, tokenizer: SourcePath | None
) -> None:
    """Raises ConvertError unless exactly one semantic encoder is given, with what it needs."""
    if (lseg is None) == (tipsv2 is None):
        found = "none" if lseg is None else "both"
        raise ConvertError(f"give one semantic encoder, --lseg, or --tipsv2 with --tokenizer, not {found}")
    if tipsv2 is not None and tokenizer is None:
        raise ConvertError(f"--tipsv2 needs --tokenizer, the {TOKENIZER} that lies beside it on the hub")
    if lseg is not None and tokenizer is not None:
        raise ConvertError("--tokenizer is TIPSv2's: give it with --tipsv2, not with --lseg")
    if tipsv2 is not None and clip is not None:
        raise ConvertError("--clip is LSeg's text tower: give it with --lseg, not with --tipsv2")


def _given(path: SourcePath | None) -> SourcePath:
    assert path is not None
    return path


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


def fit_basis(text: TextEmbedder, words: Sequence[str], channels: int) -> Basis:
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


def _cosines(basis: Basis) -> tuple[float, float]:
    return basis.mean_cosine, basis.worst_cosine
