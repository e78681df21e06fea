"""TIPSv2's text side, a text encoder: SentencePiece tokenizer, text transformer, and prompts averaged for each text.

Cao et al., "TIPSv2: Advancing Vision-Language Pretraining with Enhanced Patch-Text Alignment", CVPR 2026. Names follow
the published checkpoint (`text_encoder.`).
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ff3r_model.core.ranges import Range, check_range
from ff3r_model.network.sentencepiece_model import MAX_BYTES, PADDING, SentencePieceModel
from ff3r_model.network.text_embedder import TextEmbedder, check_template, means_something, normalize_text

log = logging.getLogger(__name__)

TEMPLATES = (
    "itap of a {}.", "a bad photo of a {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.", "a photo of many {}.", "a photo of {}s.",
)  # fmt: skip
"""The sentences of the published evaluation, which are those of TCL."""
LONGEST_TEMPLATE = 200
"""Characters."""
BATCH = 256
"""Sentences that go through the tower at once."""


@dataclass(frozen=True)
class TIPSv2TextConfig:
    """TIPSv2's text tower and what goes with it. The defaults are B/14's."""

    tokenizer_bytes: int
    """Size of the SentencePiece model, which lies with the weights."""
    kind: Literal["tipsv2"] = "tipsv2"
    width: int = 768
    """Of the tower and of the text space."""
    heads: int = 12
    layers: int = 12
    vocabulary: int = 32000
    """Pieces of the tokenizer."""
    context_length: int = 64
    """Tokens; longer sentences are cut with a warning."""
    templates: tuple[str, ...] = TEMPLATES
    """Sentences that a text is put into; its vector is the mean of theirs."""
    temperature: float = 0.005065968260169029
    """Learned with the weights, for whole images: it makes probabilities of cosines. Which text is the best does not
    depend on it; a score of one half means, as in the published evaluation's argmax, nearer than every other text."""
    cache_size: int = 1024
    """Embeddings kept, the least recently used go first."""

    def __post_init__(self) -> None:
        check_range(self, Range(1, MAX_BYTES), "tokenizer_bytes")
        check_range(self, Range(4, 2**16), "width")
        check_range(self, Range(1, 256), "layers")
        check_range(self, Range(1, 2**20), "vocabulary")
        check_range(self, Range(1, 4096), "context_length")
        check_range(self, Range(1e-4, 100), "temperature")
        check_range(self, Range(0, 2**20), "cache_size")
        if not (1 <= self.heads <= self.width and self.width % self.heads == 0 and self.width % 2 == 0):
            raise ValueError(f"heads must divide the width {self.width}, an even number, evenly, not {self.heads}")
        if not 1 <= len(self.templates) <= 1000:
            raise ValueError(f"templates must be 1 to 1000 sentences, not {len(self.templates)}")
        for index, template in enumerate(self.templates):
            check_template(f"templates[{index}]", template)
            if len(template) > LONGEST_TEMPLATE:
                raise ValueError(f"templates[{index}] must have at most {LONGEST_TEMPLATE} characters")

    @property
    def dim(self) -> int:
        """Width of the text space."""
        return self.width

    @classmethod
    def b14(cls, tokenizer_bytes: int) -> TIPSv2TextConfig:
        """google/tipsv2-b14's: 110 M parameters."""
        return cls(tokenizer_bytes)

    @classmethod
    def l14(cls, tokenizer_bytes: int) -> TIPSv2TextConfig:
        """google/tipsv2-l14's: 184 M parameters."""
        return cls(tokenizer_bytes, width=1024, heads=16, temperature=0.004785141441971064)


class _Block(nn.Module):
    """A pre-norm transformer block with ReLU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, 4 * width), "relu": nn.ReLU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(
        self, x: Float[Tensor, "n length width"], ignored: Bool[Tensor, "n length"]
    ) -> Float[Tensor, "n length width"]:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, key_padding_mask=ignored, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class TextTower(nn.Module):
    """Tokens → the mean over a text's tokens of what a transformer without causal mask makes of them."""

    def __init__(self, config: TIPSv2TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        blocks = nn.ModuleList(_Block(config.width, config.heads) for _ in range(config.layers))
        self.transformer = nn.ModuleDict({"resblocks": blocks})  # the published name
        self.ln_final = nn.LayerNorm(config.width)

    def forward(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n width"]:
        """Of token ids; the zeros among them are padding, which changes nothing. A text without tokens gives zeros."""
        real = tokens != PADDING
        ignored = ~real
        ignored[:, 0] = False  # attention to nothing is no number; the mean leaves it out
        width = self.token_embedding.embedding_dim
        x = self.token_embedding(tokens) * math.sqrt(width) + sinusoids(tokens.shape[1], width, tokens.device)
        for block in self.transformer.get_submodule("resblocks").children():
            x = block(x, ignored)
        x = self.ln_final(x) * real[..., None]
        return x.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp_min(1)


def sinusoids(length: int, width: int, device: torch.device) -> Float[Tensor, "length width"]:
    """Fixed positions: sines, then cosines, of position · 10000^(−i / (width/2 − 1)), i = 0 … width/2 − 1."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=device) * (-math.log(10000) / (half - 1)))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TIPSv2TextEncoder(TextEmbedder):
    """TIPSv2's text tower with its tokenizer, whose SentencePiece model lies in the state beside the weights."""

    tokenizer_model: Tensor

    def __init__(self, config: TIPSv2TextConfig) -> None:
        super().__init__(config.dim, config.cache_size)
        self.config, self.temperature = config, config.temperature
        self.tower = TextTower(config)
        self.register_buffer("tokenizer_model", torch.zeros(config.tokenizer_bytes, dtype=torch.uint8))
        self._tokenizer: SentencePieceModel | None = None
        self.register_load_state_dict_post_hook(lambda module, _: module.read_tokenizer())

    def read_tokenizer(self) -> None:
        """Take the tokenizer from the state. Raises TokenizerError where that is none, or none of this vocabulary."""
        self._tokenizer = SentencePieceModel(self.tokenizer_model.cpu().numpy().tobytes(), self.config.vocabulary)

    def set_tokenizer(self, data: bytes) -> None:
        """Put a SentencePiece model of `tokenizer_bytes` into the state. Raises TokenizerError as `read_tokenizer`."""
        assert len(data) == self.config.tokenizer_bytes
        self.tokenizer_model = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(self.device)
        self.clear_cache()
        self.read_tokenizer()

    @property
    def tokenizer(self) -> SentencePieceModel:
        """The tokenizer that came with the weights."""
        assert self._tokenizer is not None, "the weights are not loaded yet"
        return self._tokenizer

    def tokenize(self, texts: list[str]) -> Int[Tensor, "n length"]:
        """Token ids of sentences as they are, zeros after the shorter ones; too long ones are cut with a warning."""
        ids = self._ids(texts)
        self._warn_of_cuts(texts, [len(each) for each in ids])
        return self._padded(ids)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [self.tokenizer.encode(normalize_text(text)) for text in texts]

    def _warn_of_cuts(self, texts: list[str], lengths: list[int]) -> None:
        for text, length in zip(texts, lengths, strict=True):
            if length > self.config.context_length:
                log.warning("query cut to %d tokens: %r", self.config.context_length, text)

    def _padded(self, ids: list[list[int]]) -> Int[Tensor, "n length"]:
        longest = min(max([1, *map(len, ids)]), self.config.context_length)
        padded = [each[:longest] + [PADDING] * (longest - len(each)) for each in ids]
        return torch.tensor(padded, dtype=torch.int64).reshape(len(ids), longest)

    def config_record(self) -> dict[str, Any]:
        """The configuration's fields by name, as a checkpoint keeps them."""
        return asdict(self.config)

    def forward(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n dim"]:
        """Features of token ids, not normalised (the tower's own output)."""
        return self.tower(tokens)

    def unknown_words(self, text: str) -> list[str]:
        """Words of a text that the vocabulary has no piece of: they are spelt in bytes, or not at all."""
        words = [word for word in normalize_text(text).split() if means_something(word)]
        return [word for word in words if not self.tokenizer.knows(word)]

    def embed(self, texts: list[str]) -> Float[Tensor, "n dim"]:
        """Unit vectors of normalised texts, at least one, computed now: of each the mean over the templates."""
        templates = self.config.templates
        ids = self._ids([template.format(text) for text in texts for template in templates])
        of_text = [ids[start : start + len(templates)] for start in range(0, len(ids), len(templates))]
        self._warn_of_cuts(texts, [max(map(len, each)) for each in of_text])
        parts = [self._padded(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
        features = torch.cat([self(part.to(self.device)).float() for part in parts])
        return ensemble(features.unflatten(0, (len(texts), -1)))


def ensemble(features: Float[Tensor, "*texts templates dim"]) -> Float[Tensor, "*texts dim"]:
    """One unit vector of each text from its features in several templates: the mean of unit vectors."""
    return F.normalize(F.normalize(features, dim=-1).mean(dim=-2), dim=-1)
