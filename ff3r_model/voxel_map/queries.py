"""Text queries → scores per voxel → sparse masks."""

from __future__ import annotations

import itertools
import logging
import math
import unicodedata
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from ff3r_model.core.errors import UserError
from ff3r_model.core.ranges import AT_LEAST_ONE, POSITIVE, SHARE, check_range
from ff3r_model.core.text_space import TEMPERATURE, TextSpace
from ff3r_model.voxel_map.phrases import canonical, head_noun
from ff3r_model.voxel_map.voxel_map import VoxelMap

NO_QUERY = -1
"""In place of a query's id; no query has it."""
_SLACK = 1e-3
"""Nats by which float32 may misjudge a voxel before it is scored in full."""


log = logging.getLogger(__name__)

NEGATING = frozenset({"not", "without", "except"})
"""Words that turn a query into its opposite for people, but not for what compares words with features."""


class QueryRejected(UserError, ValueError):
    """A query that is not taken, and why."""


@dataclass(frozen=True)
class QueryConfig:
    """How texts are compared with voxels. The paper leaves all of this open."""

    max_queries: int = 16
    max_length: int = 256
    """Characters of a text."""
    threshold: float = 0.5
    """Voxels whose score is at least this belong to a query's mask."""
    temperature: float | None = None
    """Of the softmax over the cosines of a query and the negatives; null: what suits the checkpoint's text space, 0.04
    for nano and LSeg, and for TIPSv2 what its weights have learned, 0.005."""
    negatives: tuple[str, ...] = (
        "wall", "floor", "ceiling", "window", "door", "furniture", "object", "decoration",
    )  # fmt: skip
    """What each query competes with, alone, so that two words for one thing do not halve each other."""

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "max_queries", "max_length")
        check_range(self, SHARE, "threshold")
        check_range(self, POSITIVE, "temperature")


@dataclass(frozen=True)
class Query:
    """A text that the map is asked for."""

    id: int
    """Never used twice by one `QuerySet`."""
    text: str
    embedding: Float[Tensor, " text"]
    doubt: str = ""
    """Why its answers may mean nothing; empty where nothing speaks for that."""


@dataclass(frozen=True)
class Match:
    """The voxels that answer a query, as rows of the map; valid until the map changes."""

    query: Query
    threshold: float
    rows: Int64[Tensor, " m"]
    """Ascending."""
    scores: Float[Tensor, " m"]
    """The query's share of a softmax over itself and the negatives, at least the threshold."""

    def mask(self, voxel_map: VoxelMap) -> Mask:
        """The same as cells of the map, on the CPU."""
        size = voxel_map.config.voxel_size
        return Mask(
            query=self.query,
            threshold=self.threshold,
            voxel_size=size,
            origin=torch.full((3,), -size / 2, dtype=torch.float64),
            indices=voxel_map.cells(self.rows).cpu(),
            scores=self.scores.cpu(),
            metric=voxel_map.metric,
        )


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
        unknown_words: Callable[[str], list[str]] = lambda _: [],
        temperature: float = TEMPERATURE,
    ) -> None:
        """`embed`: unit vectors of texts; `unknown_words`: those of a text that mean nothing to what embeds them.

        `temperature`: what suits the text space, where the configuration has none.
        """
        self._unknown_words = unknown_words
        self.config, self.space = config or QueryConfig(), space
        self.temperature = self.config.temperature or temperature
        self._embed, self._ids = embed, itertools.count(1)
        self._queries: dict[str, Query] = {}
        self._kept: tuple[weakref.ref[VoxelMap] | None, int, dict[str, Tensor]] = None, 0, {}
        rivals = list(dict.fromkeys(self.config.negatives))
        self._negatives = dict(zip(rivals, embed(rivals) if rivals else (), strict=True))
        self._named = {canonical(name): name for name in reversed(rivals)}

    @property
    def active(self) -> tuple[Query, ...]:
        """The queries, oldest first."""
        return tuple(self._queries.values())

    def add(self, text: str) -> Query:
        """Ask for a text; the same text again is the same query, in whatever case, number and punctuation.

        Raises QueryRejected with the reason.
        """
        clean = _clean(text, self.config.max_length)
        key = canonical(clean) or clean
        if key not in self._queries:
            if len(self._queries) >= self.config.max_queries:
                raise QueryRejected(f"{self.config.max_queries} queries are active, the most allowed: remove one first")
            doubt = _doubt(clean, key, self._unknown_words(key))
            if doubt:
                log.warning("%s", doubt)
            self._queries[key] = Query(next(self._ids), clean, self._embed([key])[0], doubt)
        return self._queries[key]

    def remove(self, text_or_id: str | int) -> Query:
        """Drop a query by its text or its id. Raises QueryRejected where there is none."""
        key = canonical(text_or_id[: self.config.max_length]) if isinstance(text_or_id, str) else ""
        for text, query in self._queries.items():
            if text_or_id == query.id or key == text or text_or_id == query.text:
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

    def masks(self, voxel_map: VoxelMap) -> list[Mask]:
        """Each query's voxels of the map, those whose score reaches the threshold; one mask per active query."""
        return [match.mask(voxel_map) for match in self.match(voxel_map)]

    def match(self, voxel_map: VoxelMap) -> list[Match]:
        """Score the map's voxels for every active query; one match per query, of those that reach the threshold.

        A score is at least p where the query's logit exceeds its rivals' by log p / (1 − p): told without a division
        or an exponential, which only the few that pass need.
        """
        queries = self.active
        if not queries:
            return []
        # what all queries of a map share: the features' lengths, and log Σ exp of each query's rivals
        features, norms = voxel_map.features, self._norms(voxel_map)
        keys = [self._key(query) for query in queries]
        rivals = {key: self._kept_rivals(voxel_map, norms, key) for key in dict.fromkeys(keys)}
        asked = torch.stack([query.embedding for query in queries])
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in queries]
        temperature, margin = self.temperature, self._least_margin()
        for rows, products in self.space.products(features, asked):
            # the least |W f| · cosine that may reach the threshold
            lengths = norms[rows]
            least = {key: (rival[rows] + margin) * (temperature * lengths) for key, rival in rivals.items()}
            for key, product, parts in zip(keys, products, found, strict=True):
                likely = (product >= least[key]).nonzero().squeeze(1)
                # those are scored in full
                scores = self._scores(product[likely], lengths[likely], rivals[key][rows][likely])
                sure = scores >= self.config.threshold
                parts.append((likely[sure] + rows.start, scores[sure]))
        joined = [_joined(parts, features.device) for parts in found]
        return [Match(query, self.config.threshold, *each) for query, each in zip(queries, joined, strict=True)]

    def _scores(
        self, products: Float[Tensor, " n"], norms: Float[Tensor, " n"], rivals: Float[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Softmax over a query and its rivals, exp(asked) / (exp(asked) + Σ exp(rival)), as a sigmoid."""
        logits = (products / norms).clamp_(-1, 1) / self.temperature
        return torch.sigmoid(logits - rivals)

    def _key(self, query: Query) -> str:
        """What tells a query's rivals from those of others: the negative that it names, as "the white walls" does."""
        return self._named.get(canonical(query.text)) or self._named.get(head_noun(query.text)) or ""

    def _norms(self, voxel_map: VoxelMap) -> Float[Tensor, " n"]:
        """The features' lengths in the text's space, none of them zero; those that the map keeps, if it does."""
        known = voxel_map.feature_norms
        lengths = self.space.norms(voxel_map.features) if known is None else known
        return lengths.clamp_min(torch.finfo(torch.float32).tiny)

    def _kept_rivals(self, voxel_map: VoxelMap, norms: Float[Tensor, " n"], key: str) -> Float[Tensor, " n"]:
        """`_rivals` of all voxels, kept until the map changes: four bytes per voxel."""
        known, revision, kept = self._kept
        if known is None or known() is not voxel_map or revision != voxel_map.revision:
            kept = {}
            self._kept = weakref.ref(voxel_map), voxel_map.revision, kept
        if key not in kept:
            kept[key] = self._rivals(voxel_map.features, norms, key)
        return kept[key]

    def _rivals(
        self, features: Float[Tensor, "n channels"], norms: Float[Tensor, " n"], key: str
    ) -> Float[Tensor, " n"]:
        """log Σ exp of the logits of the negatives other than `key`; −∞ where there are none."""
        combined = torch.full((len(features),), -math.inf, device=features.device)
        texts = [embedding for name, embedding in self._negatives.items() if name != key]
        for rows, products in self.space.products(features, torch.stack(texts)) if texts else ():
            logits = products.div_(norms[rows]).clamp_(-1, 1).div_(self.temperature)
            combined[rows] = logits.logsumexp(dim=0)
        return combined

    def _least_margin(self) -> float:
        """The logit by which a query must lead its rivals, less what rounding may hide."""
        p = min(self.config.threshold, 1 - 1e-6)
        return math.log(p) - math.log1p(-p) - _SLACK if p > 0 else -math.inf


def best_queries(matches: Sequence[Match], voxel_map: VoxelMap) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """For each of a map's voxels, the id of the query that it answers best, and its score there.

    NO_QUERY and 0 for voxels that answer none, that is, whose scores are all below the threshold; where two scores are
    equal, the query that was asked first. `matches` is what `QuerySet.match` gave for the map as it is.
    """
    ids = torch.full((len(voxel_map),), NO_QUERY, dtype=torch.int64, device=voxel_map.device)
    scores = torch.full((len(voxel_map),), -1.0, device=voxel_map.device)
    for match in matches:
        better = match.scores > scores[match.rows]
        rows = match.rows[better]
        ids[rows] = match.query.id
        scores[rows] = match.scores[better]
    return ids, scores.clamp_min(0)


def _joined(parts: list[tuple[Tensor, Tensor]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and scores of all blocks."""
    none = torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, device=device)
    rows, scores = zip(none, *parts, strict=True)
    return torch.cat(rows), torch.cat(scores)


def check_length(text: str, max_length: int) -> None:
    """Raise QueryRejected for a text that is too long to be looked at any further."""
    if len(text) > max_length:
        raise QueryRejected(f"the query has {len(text)} characters, at most {max_length} are allowed: {_shown(text)}")


def _clean(text: str, max_length: int) -> str:
    """The text with single spaces. Raises QueryRejected for one that is no query."""
    check_length(text, max_length)
    clean = " ".join(text.split())
    if not clean:
        raise QueryRejected("the query is empty")
    strange = [character for character in clean if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn")]
    if strange or "\ufffd" in clean:
        raise QueryRejected(f"the query holds control or broken characters: {_shown(text)}")
    return clean


def _doubt(text: str, key: str, unknown: list[str]) -> str:
    """Why a query's answers may mean nothing."""
    words = key.split()
    if unknown:
        which = "no word of" if len(unknown) == len(words) else f"{', '.join(map(repr, unknown))} in"
        state = "is known" if len(unknown) == len(words) else "is not known"
        return f"{which} {text!r} {state} to this checkpoint: what is found may mean nothing"
    if negating := [word for word in words[:-1] if word in NEGATING]:
        return f"{negating[0]!r} in {text!r} is not understood: a query names what to look for"
    return ""


def _shown(text: str, length: int = 40) -> str:
    """The beginning of a text, safe to print."""
    return ascii(text[:length]) + ("…" if len(text) > length else "")
