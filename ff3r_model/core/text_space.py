"""Text space: cosines between compact features and embedded texts, without ever decoding a feature."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

TEMPERATURE = 0.04
"""Of a softmax over cosines, where a text encoder knows none that suits its space better."""
_CHUNK = 2**15
"""Voxels per step: so many that calls do not cost more than work, so few that a step's numbers stay in the cache."""


class TextSpace:
    """The linear decoder W from compact features to the text's space, seen through its Gram matrix WᵀW.

    cos(W f, t) = f · (Wᵀ t) / (|W f| · |t|), and |W f| = |Lᵀ f| where L Lᵀ = WᵀW. Both products have the compact width,
    so nothing of the text's width is computed per voxel, and nothing is approximated.
    """

    def __init__(self, decoder: Float[Tensor, "text channels"]) -> None:
        self.decoder = decoder.detach().float()
        gram = decoder.detach().double().T @ decoder.detach().double()
        values, vectors = torch.linalg.eigh(gram)
        self._root = (values.clamp_min(0).sqrt()[:, None] * vectors.T).float()

    @property
    def channels(self) -> int:
        """Width of a compact feature."""
        return self.decoder.shape[1]

    @property
    def width(self) -> int:
        """Width of a text's embedding."""
        return self.decoder.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.decoder.nbytes + self._root.nbytes

    def norms(self, features: Float[Tensor, "n channels"]) -> Float[Tensor, " n"]:
        """|W f|, the length that each feature would have in the text's space."""
        root = self._root.to(features.device)
        parts = [torch.linalg.vector_norm(chunk.float() @ root.T, dim=1) for chunk in features.split(_CHUNK)]
        return torch.cat(parts) if parts else features.new_zeros(0)

    def similarity(
        self,
        features: Float[Tensor, "n channels"],
        texts: Float[Tensor, "q text"],
        norms: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n q"]:
        """The cosine of each decoded feature and each text; 0 where either is zero. `norms` as from `self.norms`.

        A text's cosines lie together in memory.
        """
        lengths = self.norms(features) if norms is None else norms
        cosines = torch.empty(len(texts), len(features), device=features.device)
        for rows, products in self.products(features, texts):
            cosines[:, rows] = products
        return cosines.div_(lengths.clamp_min(torch.finfo(torch.float32).tiny)).clamp_(-1, 1).T

    def products(
        self, features: Float[Tensor, "n channels"], texts: Float[Tensor, "q text"]
    ) -> Iterator[tuple[slice, Float[Tensor, "q chunk"]]]:
        """|W f| · cosine for each text, some features at a time."""
        compact = torch.nn.functional.normalize(texts.float(), dim=1).to(features.device)
        compact = compact @ self.decoder.to(features.device)
        room = features.new_empty(min(_CHUNK, len(features)), features.shape[1], dtype=torch.float32)
        for start in range(0, len(features), _CHUNK):
            rows = slice(start, min(start + _CHUNK, len(features)))
            chunk = room[: rows.stop - rows.start].copy_(features[rows])
            yield rows, compact @ chunk.T
