"""Covisibility: older keyframes of the same submap that see what the newest window sees, found by where they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ff3r_model.core.node import Node
from ff3r_model.slam.keyframe_archive import ArchivedFrame, KeyframeArchive, view_distance
from ff3r_model.slam.place_recognition import LoopConfig, Revisit, Visit, prove

LEAST_BACK = 3
"""Windows back from the newest one: nearer ones share keyframes with it, or with one that does."""
MOST = 2
"""Older windows that are compared with each: about a twentieth of a second each."""
NEAR = 0.7
"""Farthest, by `view_distance`, that the nearest keyframe of such a window may be."""


def covisible(archive: KeyframeArchive, newest: Node, config: LoopConfig) -> list[Revisit]:
    """What the nearest older windows say of where the newest one lies, as far as points and depth prove it."""
    frames = [frame for frame in archive.frames.values() if frame.submap == newest.submap and len(frame.landmarks)]
    now = [frame for frame in frames if frame.node is newest]
    old = [frame for frame in frames if newest.window - frame.node.window >= LEAST_BACK]
    if not config.enabled or not now or not old:
        return []
    present, revisits = Visit.of(now), []
    for before in _nearest(now, old, archive.config.heading):
        found = prove(present, Visit.of(before), config)
        if not found.refusal:
            here, there = now[found.pair[0]], before[found.pair[1]]
            revisits.append(Revisit(there, here, found.there_from_here, found.rms, found.reach, proved=True))
    return revisits


def _nearest(now: Sequence[ArchivedFrame], old: Sequence[ArchivedFrame], heading: float) -> list[list[ArchivedFrame]]:
    """The frames of each of the nearest windows."""
    apart = view_distance(now, old, heading).min(dim=0).values
    windows: dict[int, list[ArchivedFrame]] = {}
    for frame in old:
        windows.setdefault(frame.node.window, []).append(frame)
    nearest: list[int] = []
    for place in torch.argsort(apart).tolist():
        window = old[place].node.window
        if apart[place] < NEAR and window not in nearest and len(nearest) < MOST:
            nearest.append(window)
    return [windows[window] for window in nearest]
