"""Place recognition: keyframes of like descriptors, believed once a joint window of both visits has said so."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ff3r_model.core.geometry import apply_similarity, compose, invert_rigid, invert_similarity, transform_pose
from ff3r_model.core.node import Node
from ff3r_model.core.overlap import overlaps
from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Range, check_range
from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS, Cameras, Predict, Similarity
from ff3r_model.slam.alignment import AlignConfig, align_window
from ff3r_model.slam.geometric_verification import Sighting, VerificationConfig, Verified, verify
from ff3r_model.slam.keyframe_archive import ArchivedFrame, KeyframeArchive, joint_window, placed_frames
from ff3r_model.slam.placed_frames import PlacedFrames, thinned_prediction

log = logging.getLogger(__name__)

MIN_PLACES = 12
"""Frames in the archive below which descriptors cannot be told from their mean."""


@dataclass(frozen=True)
class LoopConfig:
    """When a place counts as seen before."""

    enabled: bool = True
    recent: int = 12
    """Windows back from the present one that are no loop."""
    every: int = 3
    """Windows between two tries, each of one joint window. Where a find waits for confirmation, the next one tries."""
    views: int = 8
    """Of a joint window, half from each visit; it costs what a window of so many views costs."""
    likeness: float = 0.5
    """Least cosine of two descriptors, centred and scaled by what the archive holds, that is worth a joint window."""
    refused_for: int = 50
    """Windows for which a frame is not tried again after its joint window was refused."""
    min_inliers: float = 0.5
    max_rms: float = 0.12
    """Of the joint window's alignment to either visit, as in AlignConfig."""
    min_overlap: float = 0.2
    """A view of each visit must see at least this share of the other's pixels."""
    min_agreement: float = 0.6
    """Least share of those whose depths agree, as both visits measured them and after the loop is closed."""
    confirmations: int = 2
    """Joint windows of different frames that must say the same before anything moves."""
    same_degrees: float = 6.0
    same_place: float = 0.15
    """Two joint windows say the same within this angle, and this share of depth and of scale."""
    confirm_within: int = 12
    """Windows within which that must happen."""
    points: VerificationConfig = field(default_factory=VerificationConfig)
    """Proof by points that both visits triangulated, for which no joint window and no confirmation is needed."""

    def __post_init__(self) -> None:
        check_range(self, NOT_NEGATIVE, "recent", "refused_for", "same_degrees", "same_place", "confirm_within")
        check_range(self, AT_LEAST_ONE, "every", "confirmations")
        check_range(self, Range(MIN_VIEWS, MAX_VIEWS), "views")
        check_range(self, Range(-1, 1), "likeness")
        check_range(self, SHARE, "min_inliers", "min_overlap", "min_agreement")
        check_range(self, POSITIVE, "max_rms")


@dataclass(frozen=True)
class Revisit:
    """A place that a joint window has found to be one seen before."""

    before: ArchivedFrame
    now: ArchivedFrame
    correction: Similarity
    """Takes the present visit from where it lies in its map to where the earlier visit's map has it."""
    rms: float
    reach: float
    """Typical depth, in the unit of the earlier visit's map."""
    proved: bool = False
    """By points, so that it needs no confirmation."""

    @property
    def before_from_now(self) -> Similarity:
        """The same between the nodes of both visits: an edge of the pose graph."""
        map_from_now = compose(self.correction.double(), self.now.node.map_from_node)
        return compose(invert_similarity(self.before.node.map_from_node), map_from_now)

    @property
    def node_reach(self) -> float:
        """`reach` in the unit of the present visit's node."""
        return self.reach / (self.correction.scale * self.now.node.map_from_node.scale)

    @property
    def error(self) -> float:
        """How far the present place is off, where both visits are in one map."""
        place = self.now.map_from_camera[:3, 3].to(self.correction.translation)
        return float((apply_similarity(self.correction, place) - place).norm())


class PlaceRecognition:
    """Looks for the present place among those of the archive."""

    def __init__(self, engine: Predict, archive: KeyframeArchive, config: LoopConfig, align: AlignConfig) -> None:
        self.engine, self.archive, self.config = engine, archive, config
        self.align = replace(align, fixed_scale=False, min_inliers=config.min_inliers, max_rms=config.max_rms)
        self.joint_windows = 0
        """How many were asked for."""
        self._refused: dict[int, int] = {}
        self._found: list[tuple[int, Revisit]] = []
        self._last = -(10**9)
        self._corrections = 0

    def look(self, newest: Node, corrections: int) -> list[Revisit]:
        """Compare the keyframes of the newest window with the archive; at most one joint window.

        `corrections` counts how often the map has moved: what was found before the last time lies elsewhere now.
        Returns enough revisits that agree with each other, or none.
        """
        window = newest.window
        # Finds wait for confirmation for a while, and only as long as the map stays.
        self._found = [] if corrections != self._corrections else self._found
        self._corrections = corrections
        self._found = [entry for entry in self._found if window - entry[0] <= self.config.confirm_within]
        if not self.config.enabled or (window - self._last < self.config.every and not self._found):
            return []
        # The most similar keyframe, confirmed by a window of both visits together.
        pair = self._likeliest(newest)
        if pair is None:
            return []
        self._last = window
        revisit, refusal = self._verify(*pair)
        if revisit is None:
            log.info("window %d looks like a place seen before and is not: %s", window, refusal)
            refused = {key: when for key, when in self._refused.items() if window - when <= self.config.refused_for}
            self._refused = refused | {pair[0].keyframe: window}
            return []
        if revisit.proved:
            self._found.clear()
            return [revisit]
        # One find may be wrong: several of different keyframes have to say the same.
        agreeing = [other for _, other in self._found if self._same(revisit, other)]
        self._found.append((window, revisit))
        if len(agreeing) + 1 < self.config.confirmations:
            return []
        self._found.clear()
        return [*agreeing, revisit]

    def _likeliest(self, newest: Node) -> tuple[ArchivedFrame, ArchivedFrame] | None:
        """(before, now) of the most similar descriptors that may be a revisit."""
        frames = list(self.archive.frames.values())
        now = [i for i, frame in enumerate(frames) if frame.node is newest]
        before = [i for i, frame in enumerate(frames) if self._may_return(frame, newest)]
        if not now or len(frames) < MIN_PLACES or not before:
            return None
        descriptors = self.archive.descriptors()
        alike = likeness(descriptors, descriptors[now])[before]
        best = int(alike.argmax())
        if alike.flatten()[best] < self.config.likeness:
            return None
        return frames[before[best // len(now)]], frames[now[best % len(now)]]

    def _may_return(self, frame: ArchivedFrame, newest: Node) -> bool:
        recent = frame.submap == newest.submap and newest.window - frame.node.window <= self.config.recent
        refused = self._refused.get(frame.keyframe)
        return not recent and (refused is None or newest.window - refused > self.config.refused_for)

    def _verify(self, before: ArchivedFrame, now: ArchivedFrame) -> tuple[Revisit | None, str]:
        """Loop verification: a revisit where a joint window confirms it, else why not."""
        # A window of keyframes around both, as if both visits were one.
        half = self.config.views // 2
        then, here = self.archive.around(before, half), self.archive.around(now, self.config.views - half)
        # By the points of both visits, where they have some; what these deny no network has to be asked.
        earlier, present = Visit.of(then), Visit.of(here)
        if earlier.has_points(self.config.points) and present.has_points(self.config.points):
            found = prove(present, earlier, self.config)
            revisit = Revisit(then[found.pair[1]], here[found.pair[0]], found.there_from_here, found.rms, found.reach)
            return (None, found.refusal) if found.refusal else (replace(revisit, proved=True), "")
        window = joint_window([*then, *here])
        self.joint_windows += 1
        try:
            predicted = self.engine(window)
        except torch.OutOfMemoryError:
            return None, "there is no memory for a joint window"
        if predicted.keyframes is not None:
            return None, f"only {len(predicted.keyframes)} views of the joint window fit into memory"
        # It must fit each visit as that lies in its map; the two placements differ by the correction.
        prediction = thinned_prediction(predicted, self.archive.config.depth_side)
        sides = [align_window(prediction, window, placed_frames(side), self.align) for side in (then, here)]
        for side, name in zip(sides, ("earlier", "present"), strict=True):
            if not side.accepted:
                return None, f"the joint window does not fit the {name} visit: {side.reason}"
        correction = compose(sides[0].map_from_window, invert_similarity(sides[1].map_from_window))
        # Both visits' own depths, which know nothing of each other, must then show the same surfaces.
        refusal = unlike(placed_frames(then), placed_frames(here).transformed(correction), self.config)
        if refusal:
            return None, refusal
        reach = sum(frame.unit for frame in then) / len(then)
        return Revisit(before, now, correction, math.hypot(sides[0].rms, sides[1].rms), reach), ""

    def _same(self, a: Revisit, b: Revisit) -> bool:
        """Whether two revisits would move the present place alike."""
        if a.before.submap != b.before.submap or a.now.submap != b.now.submap or a.now.keyframe == b.now.keyframe:
            return False
        difference = compose(a.correction, invert_similarity(b.correction))
        place = transform_pose(a.correction, a.now.map_from_camera.to(a.correction.rotation))
        moved = transform_pose(difference, place)
        cosine = float((difference.rotation.diagonal().sum() - 1) / 2)
        angle = math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
        apart = float((moved[:3, 3] - place[:3, 3]).norm()) / a.reach
        stretch = abs(math.log(difference.scale))
        return angle < self.config.same_degrees and max(apart, stretch) < self.config.same_place


@dataclass(frozen=True)
class Visit:
    """What was seen of a place at one time: points, and depth images, in one frame."""

    sightings: Sequence[Sighting]
    frames: PlacedFrames

    @classmethod
    def of(cls, frames: Sequence[ArchivedFrame]) -> Visit:
        """Frames of the archive, in the frame of their submap."""
        return cls([frame.sighting for frame in frames], placed_frames(frames))

    def has_points(self, config: VerificationConfig) -> bool:
        """Whether two views have as many as a proof takes."""
        return sum(len(each.landmarks) >= config.min_points for each in self.sightings) >= 2


def prove(here: Visit, there: Visit, config: LoopConfig, scale: float | None = None) -> Verified:
    """Geometric verification by the points of two visits, and then by their depths; `scale` is kept where known."""
    found = verify(here.sightings, there.sightings, config.points, scale)
    if found.refusal:
        return found
    return replace(found, refusal=unlike(there.frames, here.frames.transformed(found.there_from_here), config))


def likeness(archived: Float[Tensor, "n channels"], now: Float[Tensor, "m channels"]) -> Float[Tensor, "n m"]:
    """Cosines of descriptors, centred and scaled by those of the archive."""
    mean, deviation = archived.mean(0), archived.std(0, correction=0).clamp_min(1e-6)
    return normalize((archived - mean) / deviation, dim=1) @ normalize((now - mean) / deviation, dim=1).T


def unlike(there: PlacedFrames, here: PlacedFrames, config: LoopConfig) -> str:
    """Why two visits' own depths, which know nothing of each other, do not show the same surfaces; empty if they do."""
    overlap, agreement = _seen_by_both(there, here)
    if overlap >= config.min_overlap and agreement >= config.min_agreement:
        return ""
    return f"the visits share {overlap:.0%} of their views, of which {agreement:.0%} agree"


def _seen_by_both(first: PlacedFrames, second: PlacedFrames) -> tuple[float, float]:
    """(share of a view that a view of the other visit sees too, share of that which lies where the other saw it).

    Of the two views that share most.
    """
    poses = torch.cat([first.map_from_camera, second.map_from_camera.to(first.map_from_camera)])
    intrinsics = torch.cat([first.intrinsics, second.intrinsics.to(first.intrinsics)])
    cameras = Cameras(invert_rigid(poses), intrinsics)
    inside, agreeing = overlaps(torch.cat([first.depth, second.depth.to(first.depth)]), cameras)
    count = len(first.keyframes)
    both = torch.minimum(inside[:count, count:], inside[count:, :count].T)
    alike = torch.minimum(agreeing[:count, count:], agreeing[count:, :count].T)
    best = int((both * alike).argmax())
    return float(both.flatten()[best]), float(alike.flatten()[best])
