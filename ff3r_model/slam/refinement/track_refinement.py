"""Refinement by tracks: cameras from structure from motion, the rest from flow or the network, depth bent to points.

Not in the paper. A small network's cameras are good enough for rooms like those it was trained on and for little else;
pixels that are found again in many views determine cameras anywhere, where there is something to find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from ff3r_model.core.geometry import anchored, invert_rigid
from ff3r_model.core.ranges import AT_LEAST_ONE, POSITIVE, SHARE, check_range
from ff3r_model.core.types import Cameras, Prediction, SparsePoints, Window
from ff3r_model.gaussians.transform import with_geometry
from ff3r_model.slam.refinement.bent_depth import bend
from ff3r_model.slam.refinement.canvas import Canvas
from ff3r_model.slam.refinement.features import DIMENSIONS, Features, quantised
from ff3r_model.slam.refinement.matching import MatchCache, Pairs, elsewhere
from ff3r_model.slam.refinement.optical_flow import RefineConfig, refine_cameras
from ff3r_model.slam.refinement.self_calibration import FocalBelief, focal_from_pairs, fused
from ff3r_model.slam.refinement.structure_adjustment import Focal, Structure
from ff3r_model.slam.refinement.structure_from_motion import Reconstruction, reconstruct
from ff3r_model.slam.refinement.tracks import join_tracks
from ff3r_model.slam.refinement.window_quality import Uncertainty, measure_quality, unmeasured

Gaps = Literal["flow", "network"]
NETWORK_SIGMA = 0.2
"""Of the logarithm of a focal length that the network predicts: nano's is off by that on real pictures."""

AS_WELL, EXACT = 1.5, 0.5
"""The network's cameras stay where they miss what was seen by at most so many times what tracks' own do, or so many
pixels: then they are as exact, and do not depend on this window's parallax."""
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
    """Refines windows, one after the other; remembers features, matches and what the focal length seems to be."""

    def __init__(self, config: TrackConfig | None = None, flow: RefineConfig | None = None) -> None:
        self.config, self.flow = config or TrackConfig(), flow or RefineConfig()
        self.reset()

    def reset(self) -> None:
        """Forget the camera and all keyframes."""
        self.belief = FocalBelief()
        self._cache = self._matches()

    def __call__(self, prediction: Prediction, window: Window) -> Prediction:
        """The prediction with cameras that tracks determine, where they do, and depth that agrees with their points.

        Known intrinsics stay; otherwise there is one focal length, estimated under what the run believes of it.
        """
        canvas = Canvas.of(window)
        focal = canvas.known_focal or self._expected_focal(prediction, canvas)
        # Cameras and points that explain the tracks.
        features, pairs = self._look(window, canvas)
        found = self._reconstruct(features, pairs, canvas, focal)
        if found is None:
            return self._without_tracks(prediction, window, canvas, focal)
        if self.config.gaps == "network":
            found = _better(found, prediction, canvas)
        # In the unit of the network's depth, so that views without tracks have their place beside the others.
        found = _in_unit_of(found, prediction.depth, canvas)
        uncertainty = Uncertainty.of(found)
        if canvas.known_focal is None:
            self.belief.learn(focal, Focal(found.structure.log_focal, uncertainty.focal_sigma), canvas.long_side)
        cameras, depth = _completed(found, prediction, canvas), _bent(found, prediction.depth, canvas)
        if self.config.gaps == "flow" and canvas.scale.max() < SHARPER:
            # Where features are no sharper than the network's images, dense flow is the more exact.
            held = np.arange(len(found.registered)) == found.registered.argmax()
            cameras, _ = self._flow(cameras, depth, window, held)
            found = found.with_cameras(cameras.camera_from_world.numpy())
            depth = _bent(found, prediction.depth, canvas)
        elif self.config.gaps == "flow" and not found.registered.all():
            # Views without tracks follow the flow between them and the others.
            cameras, depth = self._flow(cameras, depth, window, found.registered)
        first = Cameras(anchored(cameras.camera_from_world), cameras.intrinsics)
        return replace(
            with_geometry(prediction, _like(first, prediction), depth.to(prediction.depth)),
            points_seen=_points(found, features, canvas, cameras),
            quality=replace(
                measure_quality(found, uncertainty, canvas.long_side), elsewhere=elsewhere(pairs, found.registered)
            ),
        )

    def _matches(self) -> MatchCache:
        return MatchCache(self.config.features, self.config.ratio, self.config.epipolar)

    def _expected_focal(self, prediction: Prediction, canvas: Canvas) -> Focal:
        """What the run believes, and what the network says of this window, in pixels of the pictures."""
        word = prediction.cameras.intrinsics[:, 0, 0].double().median() * canvas.scale[0]
        return fused([self.belief.focal(canvas.long_side), Focal(math.log(float(word)), NETWORK_SIGMA)])

    def _look(self, window: Window, canvas: Canvas) -> tuple[list[Features], Pairs]:
        # Frames from the archive have small pictures, whose features are not those of the keyframe as it came.
        cache = self._matches() if window.pictures is None else self._cache
        features, pairs = cache.look(window.keyframes, canvas.pictures)
        return canvas.as_first(features), pairs

    def _reconstruct(
        self, features: Sequence[Features], pairs: Pairs, canvas: Canvas, focal: Focal
    ) -> Reconstruction | None:
        pixels = focal.pixels
        if focal.log_sigma > 0:
            pixels = focal_from_pairs(features, pairs, canvas.centre, canvas.aspect, focal)
        start = Structure(np.zeros((0, 4, 4)), np.zeros((0, 3)), math.log(pixels), canvas.aspect, canvas.centre)
        return reconstruct(features, pairs, join_tracks(features, pairs), start, focal)

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


def _like(cameras: Cameras, prediction: Prediction) -> Cameras:
    """Cameras in the type and on the device of the prediction's."""
    old = prediction.cameras
    return Cameras(cameras.camera_from_world.to(old.camera_from_world), cameras.intrinsics.to(old.intrinsics))


@dataclass(frozen=True)
class _Depths:
    """What triangulated points say of the depth at the pixels that saw them."""

    view: ndarray
    pixels: Float[ndarray, "n 2"]
    """(u, v) of the network's images."""
    z: Float[ndarray, " n"]

    @classmethod
    def of(cls, found: Reconstruction, canvas: Canvas) -> _Depths:
        observed = found.observations()
        z = found.structure.seen_from(observed)[:, 2]
        return cls(observed.view, canvas.to_images(observed.pixels, observed.view), z)


def _in_unit_of(found: Reconstruction, depth: Float[Tensor, "views h w"], canvas: Canvas) -> Reconstruction:
    """The reconstruction at the size at which its points lie, by the median, where the predicted depth has them."""
    measured = _Depths.of(found, canvas)
    height, width = depth.shape[1:]
    column, row = np.clip(measured.pixels.astype(int), 0, [width - 1, height - 1]).T
    predicted = depth.cpu().double().numpy()[measured.view, row, column]
    return found.scaled(float(np.exp(np.median(np.log(predicted / measured.z)))))


def _completed(found: Reconstruction, prediction: Prediction, canvas: Canvas) -> Cameras:
    """The found cameras; others lie beside the nearest of them, in the window's order, as the network has it."""
    predicted = prediction.cameras.camera_from_world.cpu().double()
    poses = torch.from_numpy(found.structure.camera_from_world.copy())
    known = torch.from_numpy(np.flatnonzero(found.registered))
    for view in np.flatnonzero(~found.registered).tolist():
        nearest = known[(known - view).abs().argmin()]
        poses[view] = predicted[view] @ invert_rigid(predicted[nearest]) @ poses[nearest]
    return Cameras(poses, torch.from_numpy(canvas.image_intrinsics(float(found.structure.focal[0]), len(poses))))


def _bent(found: Reconstruction, depth: Float[Tensor, "views h w"], canvas: Canvas) -> Float[Tensor, "views h w"]:
    """Each registered view's depth, passing through the points that it sees."""
    measured, given = _Depths.of(found, canvas), depth.cpu().double().numpy()
    bent = [
        bend(image, measured.pixels[measured.view == view], measured.z[measured.view == view])
        for view, image in enumerate(given)
    ]
    return torch.from_numpy(np.stack(bent))


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
