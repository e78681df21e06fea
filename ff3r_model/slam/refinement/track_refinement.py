"""Refinement by tracks: cameras from structure from motion, the rest from flow or the network, depth bent to points.

Not in the paper. A small network's cameras are good enough for rooms like those it was trained on and for little else;
pixels that are found again in many views determine cameras anywhere, where there is something to find.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from ff3r_model.core.geometry import anchored, invert_rigid
from ff3r_model.core.ranges import AT_LEAST_ONE, POSITIVE, SHARE, check_range
from ff3r_model.core.types import Cameras, Prediction, SparsePoints, Window, WindowQuality
from ff3r_model.gaussians.transform import with_geometry
from ff3r_model.slam.refinement.bent_depth import MeasuredDepths, bend_all
from ff3r_model.slam.refinement.canvas import Canvas
from ff3r_model.slam.refinement.dense_depth import DenseDepth
from ff3r_model.slam.refinement.features import DIMENSIONS, Features, quantised
from ff3r_model.slam.refinement.lens import Focal, Lens, Radial
from ff3r_model.slam.refinement.matching import MatchCache, Pairs, elsewhere
from ff3r_model.slam.refinement.moving import moving_pixels
from ff3r_model.slam.refinement.optical_flow import RefineConfig, refine_cameras
from ff3r_model.slam.refinement.self_calibration import LensBelief, focal_from_pairs, fused
from ff3r_model.slam.refinement.structure_adjustment import Structure
from ff3r_model.slam.refinement.structure_from_motion import Reconstruction, reconstruct
from ff3r_model.slam.refinement.tracks import join_tracks
from ff3r_model.slam.refinement.window_quality import Uncertainty, measure_quality, unmeasured

log = logging.getLogger(__name__)

Gaps = Literal["flow", "network"]
Depth = Literal["network", "bent", "dense"]
NETWORK_SIGMA = 0.2
"""Of the logarithm of a focal length that the network predicts: nano's is off by that on real pictures."""

AS_WELL, EXACT = 1.5, 0.5
"""The network's cameras stay where they miss what was seen by at most so many times what tracks' own do, or so many
pixels: then they are as exact, and do not depend on this window's parallax."""
LIKELY = 0.3
"""Log ratio by which a point's depth may be off from the predicted one, at the window's scale: networks are."""
TELLING = 1500
"""Observations of a window with fewer of which cameras are too poor to tell what moves, and its depth no better."""
SHARPER = 1.5
"""Pixels of a picture per pixel of the network's images from which on features are the more exact."""


@dataclass(frozen=True)
class TrackConfig:
    """How features are found and matched, and what stands in for tracks."""

    features: int = 1200
    """SIFT features per view, at most."""
    ratio: float = 0.85
    """Of a match's distance to that of the next best, at most (Lowe)."""
    epipolar: float = 1.5
    """Pixels that a match may lie off its epipolar line."""
    gaps: Gaps = "flow"
    """Where cameras come from that tracks do not determine: optical flow, or the network as it is."""

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "features")
        check_range(self, SHARE, "ratio")
        check_range(self, POSITIVE, "epipolar")


class TrackRefinement:
    """Refines windows, one after the other; remembers features, matches and what the lens seems to be."""

    def __init__(
        self,
        config: TrackConfig | None = None,
        flow: RefineConfig | None = None,
        depth: Depth = "bent",
        max_pose_error: float = 15.0,
    ) -> None:
        """`depth`: where it comes from (PipelineConfig.depth); dense only up to a claimed pose error, degrees."""
        self.config, self.flow = config or TrackConfig(), flow or RefineConfig()
        self.depth, self.max_pose_error = depth, max_pose_error
        self.reset()

    def reset(self) -> None:
        """Forget the camera and all keyframes."""
        self.belief, self._dense = LensBelief(), DenseDepth()
        self._cache = self._matches()

    def __call__(self, prediction: Prediction, window: Window) -> Prediction:
        """The prediction with cameras that tracks determine, where they do, and depth that agrees with their points.

        Known intrinsics stay; otherwise there is one focal length, estimated under what the run believes of it.
        """
        canvas = Canvas.of(window)
        focal = canvas.known_focal or self._expected_focal(prediction, canvas)
        lens = Lens(focal, self.belief.radial)
        # Cameras and points that explain the tracks; once more without those on things that move.
        cache, features, pairs = self._look(window, canvas)
        found = self._reconstruct(features, pairs, canvas, lens, prediction.depth)
        moving = self._moving(found, prediction, window, canvas)
        if moving.any():
            pairs = cache.matched_anew(features, pairs, _standing(features, moving, canvas))
            found = self._reconstruct(features, pairs, canvas, lens, prediction.depth)
        if found is None:
            return self._without_tracks(prediction, window, canvas, focal)
        if self.config.gaps == "network":
            found = _better(found, prediction, canvas)
        # In the unit of the network's depth, so that views without tracks have their place beside the others.
        found = _in_unit_of(found, prediction.depth, canvas)
        uncertainty = Uncertainty.of(found)
        if canvas.known_focal is None:
            self.belief.learn_focal(focal, Focal(found.structure.log_focal, uncertainty.focal_sigma), canvas.long_side)
        self.belief.learn_radial(lens.radial, Radial(found.structure.radial, uncertainty.radial_sigma))
        cameras, depth = _completed(found, prediction, canvas), self._bent(found, prediction, window, canvas)
        if self.config.gaps == "flow" and canvas.scale.max() < SHARPER:
            # Where features are no sharper than the network's images, dense flow is the more exact.
            held = np.arange(len(found.registered)) == found.registered.argmax()
            cameras, _ = self._flow(cameras, depth, window, held)
            found = found.with_cameras(cameras.camera_from_world.numpy())
            depth = self._bent(found, prediction, window, canvas)
        elif self.config.gaps == "flow" and not found.registered.all():
            # Views without tracks follow the flow between them and the others.
            cameras, depth = self._flow(cameras, depth, window, found.registered)
        # What moves is not to be trusted anywhere: neither mapped, nor aligned, nor looked through.
        if moving.any():
            moving = moving_pixels(window.images.cpu(), depth, cameras).to(prediction.depth.device)
            prediction = replace(prediction, depth_confidence=prediction.depth_confidence.masked_fill(moving, 0))
        quality = measure_quality(found, uncertainty, canvas.long_side)
        depth, surer = self._swept(found, cameras, depth, window, canvas, quality)
        first = Cameras(anchored(cameras.camera_from_world), cameras.intrinsics)
        confidence = prediction.depth_confidence * surer.to(prediction.depth_confidence)
        return replace(
            with_geometry(prediction, _like(first, prediction), depth.to(prediction.depth), confidence),
            points_seen=_points(found, features, canvas, cameras),
            quality=replace(quality, elsewhere=elsewhere(pairs, found.registered)),
        )

    def _bent(
        self, found: Reconstruction, prediction: Prediction, window: Window, canvas: Canvas
    ) -> Float[Tensor, "views h w"]:
        """Each registered view's depth, passing through the points that it sees, unless the network's is wanted."""
        depth = prediction.depth.cpu().double()
        if self.depth == "network":
            return depth
        measured = MeasuredDepths.of(found, canvas)
        return torch.from_numpy(bend_all(depth.numpy(), _colors(window), measured))

    def _moving(
        self, found: Reconstruction | None, prediction: Prediction, window: Window, canvas: Canvas
    ) -> Bool[Tensor, "views h w"]:
        """Pixels of what moves, as far as these cameras and the depth bent to their points tell."""
        if found is None or found.tracks.seen.sum() < TELLING:
            return torch.zeros(prediction.depth.shape, dtype=torch.bool)
        found = _in_unit_of(found, prediction.depth, canvas)
        cameras = _completed(found, prediction, canvas)
        return moving_pixels(window.images.cpu(), self._bent(found, prediction, window, canvas), cameras)

    def _swept(
        self,
        found: Reconstruction,
        cameras: Cameras,
        depth: Float[Tensor, "views h w"],
        window: Window,
        canvas: Canvas,
        quality: WindowQuality,
    ) -> tuple[Float[Tensor, "views h w"], Float[Tensor, "views h w"]]:
        """Depth by plane sweep where that is wanted and cameras allow it, and how many times as sure it is."""
        if self.depth != "dense" or canvas.scale.min() < SHARPER:
            return depth, torch.ones_like(depth)
        if quality.pose_error > self.max_pose_error:
            log.info("depth is bent, not dense: poses of the window may be off by %.0f degrees", quality.pose_error)
            return depth, torch.ones_like(depth)
        return self._dense(found, canvas, cameras, _colors(window), window.keyframes, depth)

    def _matches(self) -> MatchCache:
        return MatchCache(self.config.features, self.config.ratio, self.config.epipolar)

    def _expected_focal(self, prediction: Prediction, canvas: Canvas) -> Focal:
        """What the run believes, and what the network says of this window, in pixels of the pictures."""
        word = prediction.cameras.intrinsics[:, 0, 0].double().median() * canvas.scale[0]
        return fused([self.belief.focal(canvas.long_side), Focal(math.log(float(word)), NETWORK_SIGMA)])

    def _look(self, window: Window, canvas: Canvas) -> tuple[MatchCache, list[Features], Pairs]:
        """Features of all views and their matches, with the cache that they are from."""
        # Frames from the archive have small pictures, whose features are not those of the keyframe as it came.
        cache = self._matches() if window.pictures is None else self._cache
        features, pairs = cache.look(window.keyframes, canvas.pictures)
        return cache, canvas.as_first(features), pairs

    def _reconstruct(
        self,
        features: Sequence[Features],
        pairs: Pairs,
        canvas: Canvas,
        lens: Lens,
        depth: Float[Tensor, "views h w"],
    ) -> Reconstruction | None:
        """The likeliest structure by the predicted `depth`."""
        pixels = lens.focal.pixels
        if lens.focal.log_sigma > 0:
            pixels = focal_from_pairs(features, pairs, canvas.centre, canvas.aspect, lens.focal)
        nothing = (np.zeros((0, 4, 4)), np.zeros((0, 3)))
        start = Structure(*nothing, math.log(pixels), canvas.aspect, canvas.centre, lens.radial.mean)
        likely = partial(_likely, depth=depth, canvas=canvas)
        return reconstruct(features, pairs, join_tracks(features, pairs), start, lens, likely)

    def _without_tracks(self, prediction: Prediction, window: Window, canvas: Canvas, focal: Focal) -> Prediction:
        """The prediction with the focal length that is believed, and cameras from flow where it may stand in."""
        matrix = torch.from_numpy(canvas.image_intrinsics(focal.pixels, len(window.images)))
        cameras = _like(replace(prediction.cameras, intrinsics=matrix), prediction)
        depth, known = prediction.depth, focal.log_sigma == 0
        if self.config.gaps == "flow":
            bundle = self.flow.bundle if known else replace(self.flow.bundle, focal_prior=focal.log_sigma)
            adjusted = refine_cameras(window.images, depth, cameras, known, replace(self.flow, bundle=bundle))
            cameras, depth = adjusted.cameras, depth * adjusted.depth_scale[:, None, None]
        taken = float(cameras.intrinsics[0, 0, 0]) * canvas.scale[0] / canvas.long_side
        quality = unmeasured(len(window.images), taken, focal.log_sigma)
        return replace(with_geometry(prediction, cameras, depth), quality=quality)

    def _flow(
        self, cameras: Cameras, depth: Float[Tensor, "views h w"], window: Window, held: Bool[ndarray, " views"]
    ) -> tuple[Cameras, Float[Tensor, "views h w"]]:
        adjusted = refine_cameras(window.images, depth, cameras, True, self.flow, torch.from_numpy(held))
        return adjusted.cameras, depth * adjusted.depth_scale.to(depth)[:, None, None]


def _likely(found: Reconstruction, depth: Float[Tensor, "views h w"], canvas: Canvas) -> float:
    """The share of the observations whose point lies where the predicted depth has it, at a common scale."""
    if found.tracks.seen.sum() < TELLING:
        return 1.0
    if not found.used.any():
        return 0.0
    apart = np.log(_over(found, depth, canvas))
    return float((np.abs(apart - np.median(apart)) < LIKELY).mean())


def _standing(
    features: Sequence[Features], moving: Bool[Tensor, "views h w"], canvas: Canvas
) -> list[Bool[ndarray, " _"]]:
    """Which features of each view do not lie on what moves."""
    height, width = moving.shape[1:]
    stands = []
    for view, each in enumerate(features):
        pixels = canvas.to_images(each.pixels, np.full(len(each), view)).astype(int)
        column, row = np.clip(pixels, 0, [width - 1, height - 1]).T
        stands.append(~moving[view].numpy()[row, column])
    return stands


def _better(found: Reconstruction, prediction: Prediction, canvas: Canvas) -> Reconstruction:
    """The reconstruction, or the same tracks seen by the network's own cameras where these explain them as well."""
    poses = prediction.cameras.camera_from_world.cpu().double().numpy()
    word = math.log(float(prediction.cameras.intrinsics[:, 0, 0].double().median()) * canvas.scale[0])
    predicted = replace(found, structure=replace(found.structure, log_focal=word)).with_cameras(poses)
    misses = [
        float(np.median(np.linalg.norm(one.structure.residuals(one.observations()), axis=1)))
        for one in (found, predicted)
    ]
    return predicted if misses[1] < max(AS_WELL * misses[0], EXACT) else found


def _colors(window: Window) -> Float[ndarray, "views h w 3"]:
    return window.images.movedim(1, -1).cpu().numpy()


def _like(cameras: Cameras, prediction: Prediction) -> Cameras:
    """Cameras in the type and on the device of the prediction's."""
    old = prediction.cameras
    return Cameras(cameras.camera_from_world.to(old.camera_from_world), cameras.intrinsics.to(old.intrinsics))


def _in_unit_of(found: Reconstruction, depth: Float[Tensor, "views h w"], canvas: Canvas) -> Reconstruction:
    """The reconstruction at the size at which its points lie, by the median, where the predicted depth has them."""
    return found.scaled(float(np.exp(-np.median(np.log(_over(found, depth, canvas))))))


def _over(found: Reconstruction, depth: Float[Tensor, "views h w"], canvas: Canvas) -> Float[ndarray, " n"]:
    """The points' depths over the predicted ones."""
    return MeasuredDepths.of(found, canvas).over(depth.cpu().double().numpy())


def _completed(found: Reconstruction, prediction: Prediction, canvas: Canvas) -> Cameras:
    """The found cameras; others lie beside the nearest of them, in the window's order, as the network has it."""
    predicted = prediction.cameras.camera_from_world.cpu().double()
    poses = torch.from_numpy(found.structure.camera_from_world.copy())
    known = torch.from_numpy(np.flatnonzero(found.registered))
    for view in np.flatnonzero(~found.registered).tolist():
        nearest = known[(known - view).abs().argmin()]
        poses[view] = predicted[view] @ invert_rigid(predicted[nearest]) @ poses[nearest]
    return Cameras(poses, torch.from_numpy(canvas.image_intrinsics(float(found.structure.focal[0]), len(poses))))


def _points(found: Reconstruction, features: Sequence[Features], canvas: Canvas, cameras: Cameras) -> SparsePoints:
    """The points in the frame of the window's first camera."""
    rows = np.flatnonzero(found.used.any(axis=1))
    point, view = np.nonzero(found.used[rows])
    pixels = canvas.to_images(found.tracks.pixels[rows[point], view], view)
    first = cameras.camera_from_world[0].numpy()
    positions = found.structure.points[rows] @ first[:3, :3].T + first[:3, 3]
    feature = found.tracks.feature[rows[point], view]
    descriptors = np.zeros((len(view), DIMENSIONS), np.uint8)
    for number, each in enumerate(features):
        descriptors[view == number] = quantised(each.descriptors[feature[view == number]])
    return SparsePoints(*(torch.from_numpy(each) for each in (positions, point, view, feature, pixels, descriptors)))
