"""Shared points: triangulated points that two windows know by the same features of the keyframes that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ff3r_model.core.types import SparsePoints

FEATURES = 2**32
"""More than a keyframe has."""


@dataclass(frozen=True)
class SharedPoints:
    """Observations that both windows used, one row each: which view and point they are in the one and in the other."""

    here_view: Int[Tensor, " n"]
    here_point: Int[Tensor, " n"]
    there_view: Int[Tensor, " n"]
    there_point: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.here_view)


def shared_points(
    here: SparsePoints, here_keyframes: Sequence[int], there: SparsePoints, there_keyframes: Sequence[int]
) -> SharedPoints:
    """The observations that two windows have in common: the same feature of the same keyframe."""
    ours, theirs = _names(here, here_keyframes), _names(there, there_keyframes)
    theirs, order = theirs.sort()
    place = torch.searchsorted(theirs, ours).clamp(max=max(len(theirs) - 1, 0))
    same = theirs[place] == ours if len(theirs) else torch.zeros_like(ours, dtype=torch.bool)
    match = order[place[same]] if len(theirs) else order
    return SharedPoints(here.view[same], here.point[same], there.view[match], there.point[match])


def _names(points: SparsePoints, keyframes: Sequence[int]) -> Int[Tensor, " n"]:
    """A number for each observation that is the same in every window."""
    ids = torch.tensor(list(keyframes), dtype=torch.int64, device=points.view.device)
    return ids[points.view] * FEATURES + points.feature
