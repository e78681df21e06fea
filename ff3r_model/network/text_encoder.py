"""Text encoder: open_clip's tokenizer and text transformer, at CLIP's size or at `nano`'s."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn

from ff3r_model.core.ranges import Range, check_range
from ff3r_model.network.text_embedder import TextEmbedder, check_template, means_something, normalize_text

log = logging.getLogger(__name__)

CLIP_VOCABULARY = 49408
SHOWN = 5
"""Tensors that an error names."""
INITIAL_SPREAD = 0.02
"""Standard deviation of a factorised table's numbers before training."""
LONGEST_UNTRAINED = 1.5
"""Times their expected length, which no token's numbers reach before training; nearly all trained ones do."""


class TextWeightsError(ValueError):
    """Tensors that do not make the text tower asked for."""


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a text tower. The defaults are `nano`'s; the paper uses CLIP's (`TextConfig.clip_vitb32`)."""

    dim: int = 64
    """Width of the text space, the D that the semantic features decode to."""
    width: int = 128
    heads: int = 4
    layers: int = 3
    context_length: int = 16
    """Tokens with start and end; longer texts are cut with a warning."""
    vocabulary_rank: int | None = 40
    """The vocabulary table is (49408 × rank)(rank × width), a third of the full one's bytes; None keeps it whole."""
    causal: bool = False
    """CLIP's mask: a token sees only those before it. Without it, padding is masked instead."""
    quick_gelu: bool = False
    prompt: str = "{}"
    """The sentence a query is put into. LSeg's labels and `nano`'s phrases stand alone."""
    cache_size: int = 1024
    """Embeddings kept, the least recently used go first."""

    def __post_init__(self) -> None:
        check_range(self, Range(1, 2**16), "dim", "width", "vocabulary_rank")
        check_range(self, Range(1, 256), "layers")
        check_range(self, Range(2, 4096), "context_length")
        check_range(self, Range(0, 2**20), "cache_size")
        if not (1 <= self.heads <= self.width and self.width % self.heads == 0):
            raise ValueError(f"heads must divide the width {self.width} evenly, not {self.heads}")
        check_template("prompt", self.prompt)

    @classmethod
    def nano(cls) -> TextConfig:
        """The tower in `nano`'s checkpoint, under 6 MB in half precision."""
        return cls()

    @classmethod
    def clip_vitb32(cls) -> TextConfig:
        """CLIP ViT-B/32's, as open_clip's `ViT-B-32-quickgelu` has it; OpenAI's weights need QuickGELU."""
        return cls(
            dim=512,
            width=512,
            heads=8,
            layers=12,
            context_length=77,
            vocabulary_rank=None,
            causal=True,
            quick_gelu=True,
        )


class FactorisedEmbedding(nn.Module):
    """A vocabulary table as a product of two: token → rank → width."""

    def __init__(self, tokens: int, rank: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(tokens, rank)
        self.expand = nn.Linear(rank, width, bias=False)
        # Small, so that tokens which no training text holds say little.
        nn.init.normal_(self.table.weight, std=INITIAL_SPREAD)

    @property
    def trained(self) -> Bool[Tensor, " tokens"]:
        """Which tokens a training text has held: the others are as short as they were made."""
        longest = LONGEST_UNTRAINED * INITIAL_SPREAD * self.table.embedding_dim**0.5
        return torch.linalg.vector_norm(self.table.weight.detach().float(), dim=1) > longest

    def forward(self, tokens: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        return self.expand(self.table(tokens))


@lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


class _Tower(TextTransformer):
    """open_clip's, which also takes texts cut before their padding: its causal mask is made for whole contexts."""

    def _embeds(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        x, mask = super()._embeds(text)
        return x, None if mask is None else mask[..., : text.shape[1], : text.shape[1]]


def _build_tower(config: TextConfig) -> TextTransformer:
    tower = _Tower(
        context_length=config.context_length,
        # The whole table is built only where it stays.
        vocab_size=CLIP_VOCABULARY if config.vocabulary_rank is None else 1,
        width=config.width,
        heads=config.heads,
        layers=config.layers,
        output_dim=config.dim,
        no_causal_mask=not config.causal,
        use_pad_mask=not config.causal,
        act_layer=QuickGELU if config.quick_gelu else nn.GELU,
    )
    if config.vocabulary_rank is not None:
        tower.token_embedding = FactorisedEmbedding(CLIP_VOCABULARY, config.vocabulary_rank, config.width)
    return tower


class TextEncoder(TextEmbedder):
    """CLIP's text tower, or `nano`'s."""

    def __init__(self, config: TextConfig | None = None) -> None:
        self.config = config or TextConfig()
        super().__init__(self.config.dim, self.config.cache_size)
        self.tower = _build_tower(self.config)

    def tokenize(self, texts: list[str]) -> Int[Tensor, "n length"]:
        """Token ids, padded with zeros: to the context for a causal tower, else to the longest text."""
        length = self.config.context_length
        tokens = _tokenizer()([self.config.prompt.format(text) for text in texts], context_length=length + 1)
        cut = tokens[:, length] != 0
        for index in cut.nonzero().flatten().tolist():
            log.warning("query cut to %d tokens: %r", length, texts[index])
        tokens = tokens[:, :length]
        tokens[cut, -1] = _tokenizer().eot_token_id
        if not self.config.causal and len(texts):
            tokens = tokens[:, : int(tokens.argmax(1).max()) + 1]
        return tokens

    def config_record(self) -> dict[str, Any]:
        """The configuration's fields by name, as a checkpoint keeps them."""
        return asdict(self.config)

    def forward(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n dim"]:
        """Features of token ids, not normalised (the tower's own output)."""
        return self.tower(tokens)

    def unknown_words(self, text: str) -> list[str]:
        """Words of a text of which the tower has learned no token, so that what it makes of them means nothing.

        None where the vocabulary came whole (CLIP's), since it does not tell what it was trained on.
        """
        table = self.tower.token_embedding
        if not isinstance(table, FactorisedEmbedding):
            return []
        words = {word: _tokenizer().encode(word) for word in normalize_text(text).split() if means_something(word)}
        trained = table.trained
        return [word for word, tokens in words.items() if not trained[tokens].any()]

    def embed(self, texts: list[str]) -> Float[Tensor, "n dim"]:
        """Unit vectors of normalised texts, at least one, computed now."""
        tokens = self.tokenize(texts)
        longest = int(tokens.argmax(1).max()) + 1  # the end of text has the largest id; nothing after it is looked at
        return F.normalize(self(tokens[:, :longest].to(self.device)).float(), dim=-1)


def load_clip_text(state: dict[str, Tensor]) -> TextEncoder:
    """The text tower of CLIP ViT-B/32 from its tensors alone, under their published names (`tensor_names.text_tower`).

    Raises TextWeightsError naming some of the missing, unexpected and misshapen tensors.
    """
    encoder = TextEncoder(TextConfig.clip_vitb32())
    wanted = encoder.tower.state_dict()
    problems = _key_problems({name: tuple(t.shape) for name, t in wanted.items()}, state)
    if problems:
        raise TextWeightsError(
            "not the text tower of CLIP ViT-B/32 (expected OpenAI's names, as net.clip_pretrained.* in LSeg's file): "
            + "; ".join(problems[:SHOWN])
            + (f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else "")
        )
    encoder.tower.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    encoder.clear_cache()
    return encoder.eval()


def _key_problems(wanted: dict[str, tuple[int, ...]], given: dict[str, Any]) -> list[str]:
    shared = sorted(wanted.keys() & given.keys())
    return [
        *(f"missing {name}" for name in sorted(wanted.keys() - given.keys())),
        *(f"unexpected {name}" for name in sorted(given.keys() - wanted.keys())),
        *(
            f"{name} has shape {tuple(given[name].shape)}, not {wanted[name]}"
            for name in shared
            if tuple(given[name].shape) != wanted[name]
        ),
    ]
