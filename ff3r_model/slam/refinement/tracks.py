"""Tracks: which features of many views are one point of the scene, as a table of points and views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ff3r_model.slam.refinement.features import Features
from ff3r_model.slam.refinement.matching import Pairs


@dataclass(frozen=True)
class Tracks:
    """Where each point was seen in each view."""

    pixels: Float[ndarray, "points views 2"]
    """(u, v), 0 where a view did not see the point."""
    seen: Bool[ndarray, "points views"]
    feature: Int[ndarray, "points views"]
    """Which of the view's features it is, so that windows which share a view know its points again; -1: none."""

    def __len__(self) -> int:
        return len(self.seen)

    def select(self, points: Bool[ndarray, " points"]) -> Tracks:
        """Some of the points."""
        return Tracks(self.pixels[points], self.seen[points], self.feature[points])

    def thinned(self, per_view: int) -> Tracks:
        """Those alone that are among the `per_view` longest of one of their views."""
        length = np.where(self.seen, self.seen.sum(axis=1, keepdims=True), 0)
        rank = np.argsort(np.argsort(-length, axis=0, kind="stable"), axis=0)
        return self.select(((rank < per_view) & self.seen).any(axis=1))


def join_tracks(features: Sequence[Features], pairs: Pairs) -> Tracks:
    """Chains of matches through two or more views. A chain that meets one view twice contradicts itself: left out."""
    first = np.cumsum([0, *(len(view) for view in features)])
    matches = [matches + first[list(pair)] for pair, matches in pairs.items()]
    edges: Int[ndarray, "edges 2"] = np.concatenate([np.zeros((0, 2), np.int64), *matches])
    # Features that matches connect are one track.
    total = int(first[-1])
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(total, total))
    count, track = connected_components(graph, directed=False)
    view = np.repeat(np.arange(len(features)), np.diff(first))
    # How often each track meets each view.
    times = np.zeros((count, len(features)), np.int64)
    np.add.at(times, (track, view), 1)
    pixels = np.zeros((count, len(features), 2))
    pixels[track, view] = np.concatenate([each.pixels for each in features])
    feature = np.full(times.shape, -1)
    feature[track, view] = np.concatenate([np.arange(len(each)) for each in features])
    good = (times.max(axis=1, initial=0) == 1) & (times.sum(axis=1) >= 2)
    return Tracks(pixels[good], times[good] > 0, feature[good])
