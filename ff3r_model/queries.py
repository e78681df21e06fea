"""Text queries → scores per voxel → sparse masks."""

from __future__ import annotations

import itertools
import logging
import math
import unicodedata
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.text_space import TextSpace
from ff3r_model.voxel_map import VoxelMap

__all__ = ["Mask", "Query", "QueryConfig", "QueryRejected", "QuerySet", "Scores", "TextSpace"]

logger = logging.getLogger(__name__)

NO_QUERY = -1
_SLACK = 1e-3
"""Nats by which float32 may misjudge a voxel before it is scored in full."""


class QueryRejected(ValueError):
    """A query that is not taken, and why."""


@dataclass(frozen=True)
class QueryConfig:
    """How texts are compared with voxels. The paper leaves all of this open."""

    max_queries: int = 16
    max_length: int = 256
    """Characters of a text."""
    threshold: float = 0.5
    """Voxels whose score is at least this belong to a query's mask."""
    temperature: float = 0.04
    """Of the softmax over the cosines of a query and the negatives."""
    negatives: tuple[str, ...] = (
        "wall", "floor", "ceiling", "window", "door", "furniture", "object", "decoration",
    )  # fmt: skip
    """What each query competes with, alone, so that two words for one thing do not halve each other. These make nano's
    masks best in rooms of the training kind: IoU 0.41 for classes and 0.46 for colour and class, against 0.31 and
    0.18 with "object", "things", "stuff", "texture"."""


@dataclass(frozen=True)
class Query:
    """A text that the map is asked for."""

    id: int
    """Never used twice by one `QuerySet`."""
    text: str
    embedding: Float[Tensor, " text"]


@dataclass(frozen=True)
class Scores:
    """How well each voxel answers each query."""

    probability: Float[Tensor, "n q"]
    """The query's share of a softmax over itself and the negatives; columns as in `QuerySet.active`."""
    best: Int[Tensor, " n"]
    """Id of the query with the largest probability, NO_QUERY where there are no queries."""
    best_score: Float[Tensor, " n"]


@dataclass(frozen=True)
class Mask:
    """The voxels that answer a query. Voxel i spans origin + voxel_size · i to origin + voxel_size · (i + 1)."""

    query: Query
    threshold: float
    voxel_size: float
    origin: Float[Tensor, " 3"]
    indices: Int[Tensor, "m 3"]
    scores: Float[Tensor, " m"]
    metric: bool


class QuerySet:
    """The active queries, at most `max_queries`, in the order they were asked."""

    def __init__(
        self,
        embed: Callable[[list[str]], Float[Tensor, "n text"]],
        space: TextSpace,
        config: QueryConfig | None = None,
    ) -> None:
        self.config, self.space = config or QueryConfig(), space
        self._embed, self._ids = embed, itertools.count(1)
        self._queries: dict[str, Query] = {}
        self._kept: tuple[weakref.ref[VoxelMap] | None, int, dict[str, Tensor]] = None, 0, {}
        rivals = list(dict.fromkeys(self.config.negatives))
        self._negatives = dict(zip(rivals, embed(rivals) if rivals else (), strict=True))

    @property
    def active(self) -> tuple[Query, ...]:
        """The queries, oldest first."""
        return tuple(self._queries.values())

    def add(self, text: str) -> Query:
        """Ask for a text; the same text again is the same query. Raises QueryRejected with the reason."""
        clean = _clean(text, self.config.max_length)
        if clean not in self._queries:
            if len(self._queries) >= self.config.max_queries:
                raise QueryRejected(f"{self.config.max_queries} queries are active, the most allowed: remove one first")
            self._queries[clean] = Query(next(self._ids), clean, self._embed([clean])[0])
        return self._queries[clean]

    def remove(self, text_or_id: str | int) -> Query:
        """Drop a query by its text or its id. Raises QueryRejected where there is none."""
        for text, query in self._queries.items():
            if text_or_id == query.id or (isinstance(text_or_id, str) and " ".join(text_or_id.split()) == text):
                return self._queries.pop(text)
        raise QueryRejected(f"no active query is called {_shown(str(text_or_id))}")

    def clear(self) -> None:
        """Drop all queries."""
        self._queries.clear()

    def set_threshold(self, threshold: float) -> None:
        """Change the least score of a mask's voxels."""
        if not 0 <= threshold <= 1:
            raise ValueError(f"the threshold must lie between 0 and 1, not {threshold}")
        self.config = replace(self.config, threshold=threshold)

    def score(self, features: Float[Tensor, "n channels"], norms: Float[Tensor, " n"] | None = None) -> Scores:
        """Compare features with all active queries. `norms` (of `TextSpace.norms`) saves time where they are known."""
        queries = self.active
        if not queries:
            best = torch.full((len(features),), NO_QUERY, dtype=torch.int64, device=features.device)
            return Scores(best.new_zeros(len(features), 0, dtype=torch.float32), best, best.float() * 0)
        texts = torch.stack([query.embedding for query in queries] + list(self._negatives.values()))
        logits = self.space.similarity(features, texts, norms).T / self.config.temperature
        memory: dict[str, Tensor] = {}
        rivals = [self._rivals(logits[len(queries) :], query.text, memory) for query in queries]
        # softmax over a query and its rivals, that is exp(asked) / (exp(asked) + Σ exp(rival)), as a sigmoid
        probability = torch.stack([torch.sigmoid(logits[row] - rival) for row, rival in enumerate(rivals)])
        best_score, index = probability.max(dim=0)
        ids = torch.tensor([query.id for query in queries], device=features.device)
        return Scores(probability.T, ids[index], best_score)

    def masks(self, voxel_map: VoxelMap) -> list[Mask]:
        """Each query's voxels of the map, those whose score reaches the threshold; one mask per active query."""
        queries = self.active
        if not queries:
            return []
        rows, norms = self._candidates(voxel_map)
        scores = self.score(voxel_map.features.index_select(0, rows), norms.index_select(0, rows))
        size = voxel_map.config.voxel_size
        masks = []
        for query, probability in zip(queries, scores.probability.unbind(1), strict=True):
            chosen = (probability >= self.config.threshold).nonzero().squeeze(1)
            masks.append(
                Mask(
                    query=query,
                    threshold=self.config.threshold,
                    voxel_size=size,
                    origin=torch.full((3,), -size / 2, dtype=torch.float64),
                    indices=voxel_map.cells(rows[chosen]).cpu(),
                    scores=probability[chosen].cpu(),
                    metric=voxel_map.metric,
                )
            )
        return masks

    def _candidates(self, voxel_map: VoxelMap) -> tuple[Int[Tensor, " m"], Float[Tensor, " n"]]:
        """All rows that may belong to a mask, found without an exponential; and the norms of all features.

        A probability is at least p only if the query's logit exceeds log Σ exp of its rivals by log p / (1 − p), so
        only if it exceeds the largest of them by as much. Few voxels pass; those are scored in full.
        """
        features, norms = voxel_map.features, voxel_map.feature_norms
        norms = self.space.norms(features) if norms is None else norms
        keys = [query.text if query.text in self._negatives else "" for query in self.active]
        largest = {key: self._largest_rival(voxel_map, key) for key in dict.fromkeys(keys)}
        asked = torch.stack([query.embedding for query in self.active])
        margin, found = self._least_margin(), [torch.zeros(0, dtype=torch.int64, device=features.device)]
        for rows, products in self.space.products(features, asked):
            needed, passes = margin * norms[rows], torch.zeros_like(products[0], dtype=torch.bool)
            for key, product in zip(keys, products, strict=True):
                passes |= product >= largest[key][rows] + needed
            found.append(passes.nonzero().squeeze(1) + rows.start)
        return torch.cat(found), norms

    def _largest_rival(self, voxel_map: VoxelMap, text: str) -> Float[Tensor, " n"]:
        """Each feature's product with the nearest negative but `text`; kept until the map changes, 4 bytes a voxel."""
        known, revision, kept = self._kept
        if known is None or known() is not voxel_map or revision != voxel_map.revision:
            kept = {}
            self._kept = weakref.ref(voxel_map), voxel_map.revision, kept
        if text not in kept:
            features, rivals = voxel_map.features, [row for name, row in self._negatives.items() if name != text]
            kept[text] = torch.full((len(features),), -math.inf, device=features.device)
            for rows, products in self.space.products(features, torch.stack(rivals)) if rivals else ():
                torch.amax(products, dim=0, out=kept[text][rows])
        return kept[text]

    def _least_margin(self) -> float:
        """The cosine by which a query must lead its best rival, less what rounding may hide."""
        p = min(max(self.config.threshold, 1e-30), 1 - 1e-6)
        return self.config.temperature * (math.log(p) - math.log1p(-p) - _SLACK)

    def _rivals(self, negatives: Float[Tensor, "k n"], text: str, memory: dict[str, Tensor]) -> Float[Tensor, " n"]:
        """log Σ exp over the negatives other than the text itself, computed once for all texts that are none."""
        key = text if text in self._negatives else ""
        if key not in memory:
            kept = [index for index, name in enumerate(self._negatives) if name != text]
            memory[key] = negatives[kept].logsumexp(dim=0)
        return memory[key]


def _clean(text: str, max_length: int) -> str:
    """The text with single spaces. Raises QueryRejected for one that is no query."""
    if len(text) > max_length:
        raise QueryRejected(f"the query has {len(text)} characters, at most {max_length} are allowed: {_shown(text)}")
    clean = " ".join(text.split())
    if not clean:
        raise QueryRejected("the query is empty")
    strange = [character for character in clean if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn")]
    if strange or "\ufffd" in clean:
        raise QueryRejected(f"the query holds control or broken characters: {_shown(text)}")
    return clean


def _shown(text: str, length: int = 40) -> str:
    """The beginning of a text, safe to print."""
    return ascii(text[:length]) + ("…" if len(text) > length else "")
