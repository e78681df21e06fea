"""Relocalisation: where a window that cannot be joined to the newest one lies in what was mapped before."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.node import Node
from ff3r_model.core.types import Prediction, Similarity, Window, WindowQuality
from ff3r_model.slam.alignment import Alignment
from ff3r_model.slam.atlas import Atlas
from ff3r_model.slam.geometric_verification import Sighting, Verified
from ff3r_model.slam.keyframe_archive import ArchivedFrame
from ff3r_model.slam.landmarks import Landmarks
from ff3r_model.slam.place_recognition import Visit, likeness, prove
from ff3r_model.slam.placed_frames import PlacedFrames
from ff3r_model.voxel_map.config import NO_WINDOW

log = logging.getLogger(__name__)

TRIES = 4
"""Places of the archive that a window is compared with, the most alike first: about a tenth of a second each."""
TORN = 3
"""Views that tracks must tie to each other, and to no view of the map, for a window to be two scenes."""
VIEWS = 6
"""Keyframes of each that are looked at."""


@dataclass(frozen=True)
class Relocalised:
    """The place of a window beside a keyframe of the archive."""

    keyframe: ArchivedFrame
    alignment: Alignment


class Relocalisation:
    """Looks for windows in the archive, in all submaps, by the points that they and the archive have triangulated."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas

    def find(self, window: Window, prediction: Prediction, fresh: Int[Tensor, " fresh"]) -> Relocalised | None:
        """Where the fresh views of a window were seen before; None unless points and depth prove it."""
        atlas, descriptors = self.atlas, prediction.descriptors
        here = sightings(window, prediction, fresh, atlas.config.archive.landmarks)
        if not atlas.config.loops.enabled or descriptors is None or not any(len(each.landmarks) for each in here):
            return None
        placed = PlacedFrames.of(prediction, window, Node(NO_WINDOW)).select(fresh)
        visit = Visit(here, placed.thinned(atlas.config.archive.depth_side))
        for frames in self._places(descriptors[fresh], window.keyframes):
            submap = atlas.submap(frames[0].submap)
            scale = submap.reference.known_scale(window, prediction, submap.map.scale)
            found = prove(visit, Visit.of(frames), atlas.config.loops, scale)
            if not found.refusal:
                return _relocalised(frames[found.pair[1]], found)
            log.debug("window %s is not where keyframe %d is: %s", window.keyframes, frames[0].keyframe, found.refusal)
        return None

    def _places(
        self, descriptors: Float[Tensor, "views channels"], known: Collection[int]
    ) -> Iterator[list[ArchivedFrame]]:
        """Up to `TRIES` groups of neighbours in time, around the frames that are most alike; each frame once."""
        archive = self.atlas.archive
        frames = list(archive.frames.values())
        if not frames:
            return
        alike = likeness(archive.descriptors(), descriptors.float().cpu()).max(dim=1).values
        order = [frames[place] for place in alike.argsort(descending=True).tolist()]
        seen, tries = set(known), 0
        for frame in order:
            if frame.keyframe not in seen and tries < TRIES:
                group = [each for each in archive.around(frame, VIEWS) if each.keyframe not in known]
                seen |= {each.keyframe for each in group}
                tries += 1
                yield group


def _relocalised(frame: ArchivedFrame, found: Verified) -> Relocalised:
    place = found.there_from_here
    single = Similarity(place.scale, place.rotation.float(), place.translation.float())
    reason = f"relocalised in part {frame.submap} against keyframe {frame.keyframe}"
    return Relocalised(frame, Alignment(single, found.rms, found.share, True, reason))


def sightings(window: Window, prediction: Prediction, views: Int[Tensor, " n"], most: int) -> list[Sighting]:
    """Some views of a window and their landmarks, in the window's frame and unit."""
    poses = invert_rigid(prediction.cameras.camera_from_world.double().cpu())
    return [Sighting(window.keyframes[v], poses[v], Landmarks.seen(prediction, v, most)) for v in views.tolist()]


def torn(quality: WindowQuality | None, fresh: Int[Tensor, " fresh"]) -> bool:
    """Whether tracks determine the cameras of the fresh views, and of no other: nothing ties them to the map.

    The network then places what the map knows beside them by guess.
    """
    if quality is None or len(fresh) == len(quality.registered):
        return False
    return sum(quality.registered[view] for view in fresh.tolist()) == sum(quality.registered) >= TORN
