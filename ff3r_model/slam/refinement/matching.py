"""Matches of features between views: mutual nearest neighbours that one epipolar geometry explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ff3r_model.slam.refinement.features import Features, find_features

LEAST = 15
"""Matches of a pair of views that chance does not bring about."""
MANY = 40
"""Matches of a pair of views that show one place without doubt."""
CONFIDENCE = 0.999
TRIALS = 2000
NEIGHBOURS = 8
"""Views before and after, with all of which a view is matched."""
REMEMBERED = 128
"""Keyframes whose features are kept."""

Pairs = Mapping[tuple[int, int], Int[ndarray, "_ 2"]]
"""By pair of views (lower, higher): which feature of the one is which of the other."""


def match(a: Features, b: Features, ratio: float) -> Int[ndarray, "matches 2"]:
    """Mutual nearest neighbours whose distance is below `ratio` times that of the second nearest (Lowe 2004)."""
    return match_descriptors(a.descriptors, b.descriptors, ratio)


def match_descriptors(
    a: Float32[ndarray, "a 128"], b: Float32[ndarray, "b 128"], ratio: float
) -> Int[ndarray, "matches 2"]:
    """`match` of descriptors alone."""
    if min(len(a), len(b)) < LEAST:
        return np.zeros((0, 2), np.int64)
    likeness: Float32[ndarray, "a b"] = a @ b.T
    rows, nearest = np.arange(len(a)), likeness.argmax(axis=1)
    mutual = likeness.argmax(axis=0)[nearest] == rows
    best = likeness[rows, nearest]
    likeness[rows, nearest] = -1
    # Squared distances of unit vectors.
    distinct = 2 - 2 * best < ratio**2 * (2 - 2 * likeness.max(axis=1))
    good = mutual & distinct
    return np.stack([rows[good], nearest[good]], axis=1)


def verified(a: Features, b: Features, matches: Int[ndarray, "matches 2"], pixels: float) -> Int[ndarray, "inliers 2"]:
    """The matches within `pixels` of the fundamental matrix that most agree on (MAGSAC++); none where too few do."""
    none = matches[:0]
    if len(matches) < LEAST:
        return none
    here, there = a.pixels[matches[:, 0]], b.pixels[matches[:, 1]]
    try:
        _, inliers = cv2.findFundamentalMat(here, there, cv2.USAC_MAGSAC, pixels, CONFIDENCE, TRIALS)
    except cv2.error:  # raised where no sample gives a model
        return none
    if inliers is None or int(inliers.sum()) < LEAST:
        return none
    return matches[inliers.ravel() > 0]


def pairs_to_match(views: int) -> list[tuple[int, int]]:
    """All pairs of a window of up to nine views; of longer ones the neighbours, and every eighth view beyond them."""
    apart = [distance for distance in range(1, views) if distance <= NEIGHBOURS or distance % NEIGHBOURS == 0]
    return sorted((first, first + distance) for distance in apart for first in range(views - distance))


def elsewhere(pairs: Pairs, registered: Bool[ndarray, " views"]) -> tuple[bool, ...]:
    """Which views have `MANY` matches with another, and no chain of pairs to a registered one."""
    strong = _components({pair: matches for pair, matches in pairs.items() if len(matches) >= MANY}, len(registered))
    weak = _components(pairs, len(registered))
    tied = np.bincount(strong)[strong] > 1
    return tuple((tied & ~np.isin(weak, weak[registered])).tolist())


def _components(pairs: Pairs, views: int) -> Int[ndarray, " views"]:
    """A number for each view that is the same for views which chains of pairs connect."""
    ends = np.array(list(pairs), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(views, views))
    return connected_components(graph, directed=False)[1]


@dataclass
class MatchCache:
    """Features and matches by keyframe, so that what windows share is computed once."""

    features_per_view: int
    ratio: float
    pixels: float
    """How far a match may lie from its epipolar line."""
    features: dict[int, Features] = field(default_factory=dict)
    matches: dict[tuple[int, int], Int[ndarray, "matches 2"]] = field(default_factory=dict)

    def look(
        self, keyframes: Sequence[int], pictures: Sequence[UInt8[ndarray, "height width"]]
    ) -> tuple[list[Features], Pairs]:
        """Features of each view and verified matches of each pair of views, by place in the window."""
        for keyframe, picture in zip(keyframes, pictures, strict=True):
            known = self.features.pop(keyframe, None)
            self.features[keyframe] = known or find_features(picture, self.features_per_view)
        pairs = {(i, j): self._pair(keyframes[i], keyframes[j]) for i, j in pairs_to_match(len(keyframes))}
        self._forget()
        found = {pair: matches for pair, matches in pairs.items() if len(matches)}
        return [self.features[keyframe] for keyframe in keyframes], found

    def matched_anew(self, features: Sequence[Features], pairs: Pairs, keep: Sequence[Bool[ndarray, " _"]]) -> Pairs:
        """The matches, found anew between views of which only some features are to be kept: others led astray."""
        kept = [np.flatnonzero(each) for each in keep]
        left = [Features(each.pixels[k], each.descriptors[k]) for each, k in zip(features, kept, strict=True)]
        found = dict(pairs)
        for i, j in pairs_to_match(len(features)):
            if not (keep[i].all() and keep[j].all()):
                matches = verified(left[i], left[j], match(left[i], left[j], self.ratio), self.pixels)
                found[i, j] = np.stack([kept[i][matches[:, 0]], kept[j][matches[:, 1]]], axis=1)
        return {pair: matches for pair, matches in found.items() if len(matches)}

    def _pair(self, first: int, second: int) -> Int[ndarray, "matches 2"]:
        known = self.matches.get((first, second))
        if known is None:
            a, b = self.features[first], self.features[second]
            known = self.matches[first, second] = verified(a, b, match(a, b, self.ratio), self.pixels)
        return known

    def _forget(self) -> None:
        """Keep the keyframes that were looked at last, and the matches between these."""
        for keyframe in list(self.features)[:-REMEMBERED]:
            del self.features[keyframe]
        gone = [pair for pair in self.matches if not set(pair) <= self.features.keys()]
        for pair in gone:
            del self.matches[pair]
