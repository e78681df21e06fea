"""Loop closure: what follows for the map when a place is seen again, in the same submap or in another."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from ff3r_model.core.geometry import compose, invert_similarity
from ff3r_model.core.types import Predict, Similarity
from ff3r_model.slam.atlas import Atlas
from ff3r_model.slam.covisibility import covisible
from ff3r_model.slam.place_recognition import PlaceRecognition, Revisit

log = logging.getLogger(__name__)


class LoopClosure:
    """Closes loops within the active submap, and joins it to another one that has seen the same place."""

    def __init__(self, engine: Predict, atlas: Atlas) -> None:
        self.atlas = atlas
        self.places = PlaceRecognition(engine, atlas.archive, atlas.config.loops, atlas.config.align)

    def close(self) -> tuple[str, bool]:
        """Look whether the newest window's place was seen before, and correct the map: (what happened, what moved)."""
        # What older keyframes nearby say, which is cheap; then what the whole archive does.
        active, atlas = self.atlas.active, self.atlas
        revisits = covisible(atlas.archive, active.newest, atlas.config.loops)
        note, moved = self._close_loop(revisits) if revisits else ("", False)
        if moved:
            return note, moved
        revisits = self.places.look(active.newest, atlas.corrections)
        if not revisits:
            return note, False
        if revisits[0].before.submap == active.number:
            return self._close_loop(revisits)
        return self._join_submaps(revisits)

    def _close_loop(self, revisits: Sequence[Revisit]) -> tuple[str, bool]:
        """A place of the same submap: more edges, and everything moves to where all edges agree best."""
        active = self.atlas.active
        # An edge for each revisit; where none is off by a voxel, or by more than points can tell, nothing is corrected.
        for each in revisits:
            self._connect(each, each.before_from_now, each.node_reach)
        noise = 2 * active.graph.config.certainty
        least = [
            max(active.map.config.voxel_size / 2, noise * each.rms * each.reach * each.proved) for each in revisits
        ]
        if all(each.error < smallest for each, smallest in zip(revisits, least, strict=True)):
            return "", False
        # Pose graph optimisation; a loop that it cannot agree with is taken back.
        corrections = active.graph.optimise(fixed_scale=active.map.metric)
        if corrections is None:
            for pair in [(each.before.node.window, each.now.node.window) for each in revisits]:
                if pair in active.graph.edges and active.graph.edges[pair].loop:
                    del active.graph.edges[pair]
            refusal = "a loop is refused: it strains the map too much"
            log.warning("%s", refusal)
            return refusal, False
        # The whole map follows.
        error = max(each.error for each in revisits)
        self.atlas.transform(corrections)
        text = f"loop closed: {error:.3f} off"
        log.info("%s", text)
        return text, True

    def _join_submaps(self, revisits: Sequence[Revisit]) -> tuple[str, bool]:
        """A place of another submap: the two are one from now on, in the frame of the older."""
        best = min(revisits, key=lambda revisit: revisit.rms)
        active, into = self.atlas.active, self.atlas.others[best.before.submap]
        # Where the best revisit has the active submap; two metric maps are of one size.
        correction = best.correction
        if into.map.metric and active.map.metric:
            pose = best.now.map_from_camera
            correction = one_size(correction, Similarity(1.0, pose[:3, :3], pose[:3, 3]))
        # Edges are relative to nodes, so that joining does not change what they say.
        edges = [(each, each.before_from_now, each.node_reach) for each in revisits]
        self.atlas.join(into.number, correction)
        for each, before_from_now, reach in edges:
            self._connect(each, before_from_now, reach)
        text = f"submap {active.number} joined to {into.number}: a place was seen again"
        log.info("%s", text)
        return text, True

    def _connect(self, revisit: Revisit, before_from_now: Similarity, reach: float) -> None:
        """An edge of the pose graph."""
        before, now = revisit.before.node.window, revisit.now.node.window
        self.atlas.active.graph.connect(before, now, revisit.rms, reach, before_from_now, loop=True)


def one_size(map_from_other: Similarity, place: Similarity) -> Similarity:
    """The motion without its change of size, the same at `place` (a pose in the other map)."""
    moved = compose(map_from_other, replace(place, scale=1.0))
    return compose(replace(moved, scale=1.0), invert_similarity(replace(place, scale=1.0)))
