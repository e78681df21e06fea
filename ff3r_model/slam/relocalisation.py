"""Relocalisation: where a window that cannot be joined to the newest one lies in what was mapped before."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
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
from ff3r_model.slam.refinement.features import unquantised
from ff3r_model.slam.refinement.matching import match_descriptors
from ff3r_model.voxel_map.config import NO_WINDOW

log = logging.getLogger(__name__)

TRIES = 4
"""Places of the archive that a window is compared with, the most alike first: about a tenth of a second each."""
CANDIDATES = 48
"""Frames of the archive whose landmarks are looked at, the most alike by the network's word."""
ASKED = 3
"""Views of the window that they are matched with."""
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
        for frames in self._places(here, descriptors[fresh]):
            submap = atlas.submap(frames[0].submap)
            scale = submap.reference.known_scale(window, prediction, submap.map.scale)
            found = prove(visit, Visit.of(frames), atlas.config.loops, scale)
            if not found.refusal:
                return _relocalised(frames[found.pair[1]], found)
            log.debug("window %s is not where keyframe %d is: %s", window.keyframes, frames[0].keyframe, found.refusal)
        return None

    def _places(
        self, here: Sequence[Sighting], descriptors: Float[Tensor, "views channels"]
    ) -> Iterator[list[ArchivedFrame]]:
        """Up to `TRIES` groups of neighbours in time: the most alike frames, those with most matches first."""
        archive = self.atlas.archive
        frames = [frame for frame in archive.frames.values() if len(frame.landmarks)]
        if not frames:
            return
        archived = torch.stack([frame.descriptor for frame in frames]).float()
        alike = likeness(archived, descriptors.float().cpu()).max(dim=1).values
        candidates = [frames[place] for place in alike.argsort(descending=True).tolist()[:CANDIDATES]]
        seen: set[int] = set()
        tries = 0
        for frame in most_matched(here, candidates, self.atlas.config.loops.points.ratio):
            if frame.keyframe not in seen and tries < TRIES:
                group = archive.around(frame, VIEWS)
                seen |= {each.keyframe for each in group}
                tries += 1
                yield group


def most_matched(here: Sequence[Sighting], frames: Sequence[ArchivedFrame], ratio: float) -> list[ArchivedFrame]:
    """The frames, those first that have most matches with a few of the views."""
    few = [here[place] for place in np.unique(np.linspace(0, len(here) - 1, ASKED).round().astype(int))]
    ours = [unquantised(each.landmarks.descriptors.numpy()) for each in few]
    votes = []
    for frame in frames:
        theirs = unquantised(frame.landmarks.descriptors.numpy())
        votes.append(sum(len(match_descriptors(each, theirs, ratio)) for each in ours))
    return [frames[place] for place in np.argsort(votes, kind="stable")[::-1]]


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
    """Whether a window is two scenes: features tie its fresh views to each other, and to nothing that the map knows.

    Either tracks determine the cameras of fresh views alone, or some of these show another place than what they do.
    """
    if quality is None or len(fresh) == len(quality.registered):
        return False
    if sum(quality.elsewhere[view] for view in fresh.tolist() if quality.elsewhere) >= TORN:
        return True
    registered = sum(quality.registered[view] for view in fresh.tolist())
    return registered == sum(quality.registered) and registered >= TORN
