"""Window → map: the similarity that joins a window to the map through the keyframes that both have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.core.geometry import BODY_FROM_OPTICAL, apply_similarity, invert_rigid
from ff3r_model.core.ranges import AT_LEAST_ONE, POSITIVE, SHARE, check_range
from ff3r_model.core.robust import huber_weights, robust_mean_rotation, weighted_median
from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.slam.placed_frames import PlacedFrames, frame_points
from ff3r_model.slam.shared_points import shared_points

IRLS_ROUNDS = 5
"""Of reweighted least squares."""
COLLINEAR = 1e-3
"""Points whose second principal extent is below this share of the first fix no rotation."""


@dataclass(frozen=True)
class AlignConfig:
    """How windows are joined. The paper leaves all of this open."""

    fixed_scale: bool = False
    """SE(3) instead of Sim(3): for engines whose depth is metric."""
    long_side: int = 112
    """Frames are compared, and remembered, at every n-th pixel, n such that their long side is at most this."""
    min_confidence: float = 0.1
    """Pairs below this share of the smaller median confidence are dropped."""
    max_pairs: int = 20_000
    """More pairs are thinned evenly."""
    min_pairs: int = 50
    min_points: int = 30
    """Triangulated points that both windows must know, by views they share, to be joined by these and not by depth."""
    inlier_distance: float = 0.25
    """A pair is an inlier within this share of its depth."""
    min_inliers: float = 0.5
    """Least share of inliers of an accepted alignment."""
    max_rms: float = 0.2
    """Largest rms distance of the inliers, relative to their depth, of an accepted alignment."""

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "long_side", "max_pairs", "min_pairs", "min_points")
        check_range(self, SHARE, "min_confidence", "min_inliers")
        check_range(self, POSITIVE, "inlier_distance", "max_rms")


@dataclass(frozen=True)
class Alignment:
    """Where a window lies in the map, and how sure that is."""

    map_from_window: Similarity
    rms: float
    """Root mean square distance of the inlier pairs, relative to their depth."""
    inlier_share: float
    accepted: bool
    reason: str = ""
    """Why it was not accepted."""


class DegenerateError(ValueError):
    """Points that do not determine a similarity."""


def align_window(
    prediction: Prediction,
    window: Window,
    previous: PlacedFrames,
    config: AlignConfig | None = None,
    scale: float | None = None,
) -> Alignment:
    """Join a window to the map through the keyframes it shares with the frames remembered from before.

    `scale` (map units per window unit) is kept where it is known, or 1 with `fixed_scale`: SE(3); else Sim(3).
    Pairs are triangulated points that both know, where there are enough; else pixels of the shared views, weighted
    √(c₁c₂), the least certain dropped. Not accepted, with a reason:
    no shared keyframes, another image size, too few or collinear pairs, too few inliers, too large an error.
    """
    config = config or AlignConfig()
    scale = 1.0 if scale is None and config.fixed_scale else scale
    try:
        pairs = _points(prediction, window.keyframes, previous, config.min_points)
        pairs = pairs or _pairs(prediction, window.keyframes, previous, config)
        similarity = _similarity(pairs, scale)
    except DegenerateError as error:
        return refused(str(error))
    return _judge(similarity, pairs, config)


def refused(reason: str) -> Alignment:
    """The alignment of a window that has no place in the map."""
    return Alignment(Similarity(), float("inf"), 0.0, False, reason)


def map_from_first_camera() -> Similarity:
    """The map's frame: the first camera's, turned to REP-103 axes (x forward, y left, z up)."""
    return Similarity(rotation=BODY_FROM_OPTICAL)


@dataclass(frozen=True)
class _Pairs:
    """Matching pixels and cameras of the shared views, window first."""

    window_points: Float[Tensor, "n 3"]
    map_points: Float[Tensor, "n 3"]
    depth_ratios: Float[Tensor, " n"]
    """Depth in the map over depth in the window."""
    depths: Float[Tensor, " n"]
    """In the map's unit."""
    weights: Float[Tensor, " n"]
    window_from_camera: Float[Tensor, "views 4 4"]
    map_from_camera: Float[Tensor, "views 4 4"]


def _points(prediction: Prediction, keyframes: Sequence[int], previous: PlacedFrames, least: int) -> _Pairs | None:
    """The triangulated points that both know by features of shared keyframes, in float64; None where there are few."""
    if prediction.points_seen is None or previous.node_points is None:
        return None
    ours, theirs = prediction.points_seen, previous.node_points
    shared = shared_points(ours, keyframes, theirs, previous.keyframes)
    if len(shared.here_point.unique()) < least:
        return None
    window_points = ours.positions.double()[shared.here_point]
    map_points = apply_similarity(previous.node.map_from_node.double(), theirs.positions.double()[shared.there_point])
    # The cameras that saw them, and how deep they lie along the one ray that both have them on.
    camera_from_window = prediction.cameras.camera_from_world.double().cpu()
    map_from_camera = previous.map_from_camera.double().cpu()
    depths = _depths(camera_from_window[shared.here_view], window_points)
    map_depths = _depths(invert_rigid(map_from_camera)[shared.there_view], map_points)
    good = (depths > 0) & (map_depths > 0)
    here, first = shared.here_view.unique(), _first_rows(shared.here_view)
    pairs = _Pairs(
        window_points[good],
        map_points[good],
        (map_depths / depths)[good],
        map_depths[good],
        torch.ones(int(good.sum()), dtype=torch.float64),
        invert_rigid(camera_from_window[here]),
        map_from_camera[shared.there_view[first]],
    )
    check_spread(pairs.window_points, pairs.weights)
    check_spread(pairs.map_points, pairs.weights)
    return pairs


def _depths(camera_from_frame: Float[Tensor, "n 4 4"], points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """z of each point in a camera of its own."""
    return (camera_from_frame[:, 2, :3] * points).sum(1) + camera_from_frame[:, 2, 3]


def _first_rows(values: Int[Tensor, " n"]) -> Int[Tensor, " unique"]:
    """Where each value, in rising order, occurs first."""
    return torch.stack([(values == value).nonzero()[0, 0] for value in values.unique()])


def _pairs(prediction: Prediction, keyframes: Sequence[int], previous: PlacedFrames, config: AlignConfig) -> _Pairs:
    """The confident pairs of pixels of the shared keyframes, in float64."""
    # Which keyframes both know, and where they stand in either.
    shared = [frame for frame in keyframes if frame in previous.keyframes]
    if not shared:
        raise DegenerateError("the window shares no keyframe with the map")
    if prediction.depth.shape[1:] != previous.depth.shape[1:]:
        sizes = [tuple(depth.shape[1:]) for depth in (previous.depth, prediction.depth)]
        raise DegenerateError(f"the image size changed from {sizes[0]} to {sizes[1]}")
    here = [keyframes.index(frame) for frame in shared]
    there = [previous.keyframes.index(frame) for frame in shared]
    # Their cameras and depths, both with the pixels of the frames that are remembered.
    window_from_camera = invert_rigid(prediction.cameras.camera_from_world[here]).double()
    map_from_camera = previous.map_from_camera[there].to(window_from_camera)
    depth, map_depth = (
        values.double() for values in (prediction.depth[here], previous.depth[there].to(prediction.depth))
    )
    # Only pixels whose depth both sides know, and neither is least certain of; thinned evenly.
    confidences = [prediction.depth_confidence[here].double(), previous.confidence[there].to(depth)]
    floor = config.min_confidence * min(float(values.median()) for values in confidences)
    good = (torch.minimum(*confidences) > floor) & (depth > 0) & (map_depth > 0) & (depth + map_depth).isfinite()
    index = good.flatten().nonzero().squeeze(1)
    if len(index) < config.min_pairs:
        raise DegenerateError(f"only {len(index)} pixels of the shared views are usable, {config.min_pairs} are needed")
    index = index[:: -(-len(index) // config.max_pairs)]

    # What these pixels say: points on both sides, ratios of depths, weights.
    def chosen(values: Tensor, *rest: int) -> Tensor:
        return values.reshape(-1, *rest)[index]

    pairs = _Pairs(
        chosen(frame_points(depth, prediction.cameras.intrinsics[here].to(depth), window_from_camera), 3),
        chosen(frame_points(map_depth, previous.intrinsics[there].to(depth), map_from_camera), 3),
        chosen(map_depth / depth),
        chosen(map_depth),
        chosen((confidences[0] * confidences[1]).sqrt()),
        window_from_camera,
        map_from_camera,
    )
    check_spread(pairs.window_points, pairs.weights)
    check_spread(pairs.map_points, pairs.weights)
    return pairs


def _similarity(pairs: _Pairs, scale: float | None) -> Similarity:
    """Rotation from the shared cameras, scale from the depth ratios, translation from the points; each robustly."""
    # A shared keyframe is one camera: each says how the window is turned.
    rotation = robust_mean_rotation(pairs.map_from_camera[:, :3, :3] @ pairs.window_from_camera[:, :3, :3].mT)
    # Along one ray the ratio of depths sees no pose at all.
    scale = float(weighted_median(pairs.depth_ratios, pairs.weights)) if scale is None else scale
    # What is left between turned, scaled points is the translation: their median, refined by least squares with Huber's
    # weights.
    offsets = pairs.map_points - scale * pairs.window_points @ rotation.T
    translation = torch.stack([weighted_median(axis, pairs.weights) for axis in offsets.unbind(1)])
    for _ in range(IRLS_ROUNDS):
        weights = pairs.weights * huber_weights((offsets - translation).norm(dim=1), pairs.weights)
        translation = (weights[:, None] * offsets).sum(dim=0) / weights.sum()
    return Similarity(scale, rotation, translation)


def _judge(similarity: Similarity, pairs: _Pairs, config: AlignConfig) -> Alignment:
    """Accept or not, by the pairs' distances relative to their depth."""
    moved = apply_similarity(similarity, pairs.window_points)
    relative = (moved - pairs.map_points).norm(dim=1) / pairs.depths
    inliers = relative < config.inlier_distance
    share = float((pairs.weights * inliers).sum() / pairs.weights.sum())
    rms = float(relative[inliers].square().mean().sqrt()) if inliers.any() else float("inf")
    reason = ""
    if share < config.min_inliers:
        reason = f"only {share:.0%} of the pairs agree, {config.min_inliers:.0%} are needed"
    elif rms > config.max_rms:
        reason = f"the pairs differ by {rms:.1%} of their depth, at most {config.max_rms:.1%} is accepted"
    single = Similarity(similarity.scale, similarity.rotation.float(), similarity.translation.float())
    return Alignment(single, rms, share, not reason, reason)


def check_spread(points: Float[Tensor, "n 3"], weights: Float[Tensor, " n"]) -> None:
    """Raise DegenerateError for points that fix no rotation."""
    used = int((weights > 0).sum())
    if used < 3:
        raise DegenerateError(f"{used} points do not determine a similarity, 3 are needed")
    share = (weights / weights.sum())[:, None]
    centred = points - (share * points).sum(dim=0)
    extents = torch.linalg.eigvalsh((share * centred).T @ centred).clamp_min(0).sqrt()
    if not extents[1] > COLLINEAR * extents[2]:
        raise DegenerateError("the points lie on one line, or on one spot")
