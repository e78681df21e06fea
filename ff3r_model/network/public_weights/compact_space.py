"""Compact space: the few orthonormal directions of a text's space that hold most of the words' embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.network.public_weights.sources import ConvertError
from ff3r_model.network.text_embedder import TextEmbedder


@dataclass(frozen=True)
class Basis:
    """An orthonormal basis of the compact space, and how well it holds the words that it was fitted to."""

    vectors: Float[Tensor, "text channels"]
    mean_cosine: float
    worst_cosine: float
    words: int

    @property
    def cosines(self) -> tuple[float, float]:
        """That words keep: on average, and at worst."""
        return self.mean_cosine, self.worst_cosine


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
