"""Public semantic encoders, each with the text encoder of its space: LSeg with CLIP, or TIPSv2 with its tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ff3r_model.core.files import regular_file
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import CheckpointError
from ff3r_model.network.config import TIPSv2Config
from ff3r_model.network.public_weights.read_weights import read_tensors
from ff3r_model.network.public_weights.sources import TOKENIZER, SourcePath, Sources, tokenizer_file
from ff3r_model.network.public_weights.tensor_names import (
    TIPSV2_TEXT,
    TIPSV2_VISION,
    expect,
    load_lseg,
    load_tipsv2,
    load_tipsv2_text,
    split_lseg,
    text_tower,
)
from ff3r_model.network.sentencepiece_model import MAX_BYTES, SentencePieceModel, TokenizerError
from ff3r_model.network.text_embedder import TextEmbedder
from ff3r_model.network.text_encoder import TextEncoder, TextWeightsError, load_clip_text
from ff3r_model.network.tipsv2_text import TIPSv2TextConfig, TIPSv2TextEncoder

log = logging.getLogger(__name__)

TIPSV2_SIZES: dict[str, tuple[TIPSv2Config, Callable[[int], TIPSv2TextConfig]]] = {
    "tipsv2-b14": (TIPSv2Config.b14(), TIPSv2TextConfig.b14),
    "tipsv2-l14": (TIPSv2Config.l14(), TIPSv2TextConfig.l14),
}
"""Image side, and text side by the size of its tokenizer."""
PUBLISHED_VOCABULARY = 32000
PUBLISHED_PIECES = {"hello": [5928], "this is a test": [1267, 512, 262, 3213]}
"""What TIPSv2's tokenizer makes of texts."""


@dataclass(frozen=True)
class SemanticPart:
    """A public semantic encoder, read and checked, before there is a network for it."""

    fit: Callable[[FF3RConfig], FF3RConfig]
    """A geometry's configuration with this encoder in it."""
    load: Callable[[FF3R], None]
    """Fill the network's semantic encoder. Raises CheckpointError naming what does not fit."""
    text: TextEmbedder
    terms: str
    """Licence of the weights."""


def read_semantics(sources: Sources) -> SemanticPart:
    """The semantic encoder that is given. Raises CheckpointError."""
    if sources.lseg is not None:
        return lseg_part(sources.lseg, sources.clip)
    assert sources.tipsv2 is not None and sources.tokenizer is not None
    return tipsv2_part(sources.tipsv2, sources.tokenizer)


def lseg_part(lseg: SourcePath, clip: SourcePath | None = None) -> SemanticPart:
    """From LSeg's Lightning file, which holds CLIP's text tower; `clip` is another file to take the tower from.

    Raises CheckpointError.
    """
    log.info("reading %s", lseg)
    image_side, text_side = split_lseg(read_tensors(lseg, "state_dict"), str(lseg))
    text = _clip_text(text_side if clip is None else _clip(clip), clip or lseg)
    return SemanticPart(
        fit=lambda config: config,
        load=lambda network: load_lseg(network, image_side, str(lseg)),
        text=text,
        terms="LSeg's and CLIP's have terms of their own.",
    )


def tipsv2_part(tipsv2: SourcePath, tokenizer: SourcePath) -> SemanticPart:
    """From the hub's model.safetensors and tokenizer.model of google/tipsv2-b14 or -l14. Raises CheckpointError."""
    data = _read_tokenizer(tokenizer_file(tokenizer))
    log.info("reading %s", tipsv2)
    state = read_tensors(tipsv2)
    size = tipsv2_size(state, str(tipsv2))
    image, text_config = TIPSV2_SIZES[size]
    text = _tipsv2_text(state, str(tipsv2), text_config(len(data)), data, tokenizer)

    def fit(config: FF3RConfig) -> FF3RConfig:
        name = f"{config.name}-{size}"
        return replace(config, name=name, lseg=None, tipsv2=image, text_width=text.dim)

    return SemanticPart(fit, lambda network: load_tipsv2(network, state, str(tipsv2)), text, "TIPSv2's are Apache-2.0.")


def tipsv2_size(state: Mapping[str, Tensor], source: str) -> str:
    """Which of the published sizes the tensors are of. Raises CheckpointError for any other."""
    expect("TIPSv2's", "--tipsv2", state, source)
    for prefix in (TIPSV2_VISION, TIPSV2_TEXT):
        if not any(name.startswith(prefix) for name in state):
            raise CheckpointError(
                f"{source} has no tensor under {prefix!r}: it is half of TIPSv2. Fetch model.safetensors of the whole."
            )
    known = " and ".join(f"google/{size}" for size in TIPSV2_SIZES)
    if any(".mlp.w12." in name for name in state):
        raise CheckpointError(f"{source} is TIPSv2 g/14, which has MLPs of another kind; {known} are supported.")
    token, blocks = state.get(f"{TIPSV2_VISION}cls_token"), f"{TIPSV2_VISION}blocks."
    width = 0 if token is None or not token.ndim else token.shape[-1]
    depth = len({name.removeprefix(blocks).partition(".")[0] for name in state if name.startswith(blocks)})
    for size, (config, _) in TIPSV2_SIZES.items():
        if (config.vit.width, config.vit.depth) == (width, depth):
            return size
    raise CheckpointError(f"{source} is TIPSv2 of width {width} with {depth} blocks; {known} are supported.")


def _read_tokenizer(path: Path) -> bytes:
    try:
        with regular_file(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not data:
        raise CheckpointError(f"{path} is empty: fetch TIPSv2's {TOKENIZER} again.")
    return data


def _tipsv2_text(
    state: Mapping[str, Tensor], source: str, config: TIPSv2TextConfig, data: bytes, tokenizer: SourcePath
) -> TIPSv2TextEncoder:
    """The text tower with its tokenizer. Raises CheckpointError for either."""
    try:
        _check_pieces(SentencePieceModel(data, config.vocabulary), tokenizer)
    except TokenizerError as error:
        raise CheckpointError(f"{tokenizer}: {error}. TIPSv2's own {TOKENIZER} is wanted.") from error
    with torch.device("meta"):
        encoder = TIPSv2TextEncoder(config)
    load_tipsv2_text(encoder, state, source)
    encoder.set_tokenizer(data)
    return encoder.eval()


def _check_pieces(model: SentencePieceModel, tokenizer: SourcePath) -> None:
    """Warn where a tokenizer of the published size does not split texts as the published one does."""
    if model.pieces != PUBLISHED_VOCABULARY:
        return
    for text, published in PUBLISHED_PIECES.items():
        if (found := model.encode(text)) != published:
            log.warning("%s: %r becomes %s, and %s in TIPSv2: is it TIPSv2's?", tokenizer, text, found, published)
            return


def _clip(path: SourcePath) -> dict[str, Tensor]:
    tensors = read_tensors(path, "state_dict")
    expect("CLIP's", "--clip", tensors, f"{path} (ViT-B/32 under OpenAI's names is wanted)")
    return text_tower(tensors)


def _clip_text(tensors: dict[str, Tensor], source: SourcePath) -> TextEncoder:
    try:
        return load_clip_text(tensors)
    except TextWeightsError as error:
        raise CheckpointError(f"{source}: {error}") from error
