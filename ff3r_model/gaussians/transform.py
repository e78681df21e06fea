"""Transforms of Gaussians: into another frame, or along with corrected cameras and depth."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import (
    apply_similarity,
    invert_rigid,
    matrix_to_quaternion,
    quaternion_multiply,
    transform_points,
    unproject,
)
from ff3r_model.core.types import DEPTH_CONFIDENCE_WEIGHT, Cameras, Gaussians, Prediction, Similarity
from ff3r_model.gaussians.spherical_harmonics import rotate_harmonics


def transform_gaussians(target_from_source: Similarity, gaussians: Gaussians) -> Gaussians:
    """The same Gaussians in another frame: positions, sizes, orientations and view-dependent colours all move."""
    rotation = target_from_source.rotation.to(gaussians.means)
    return replace(
        gaussians,
        means=apply_similarity(target_from_source, gaussians.means),
        scales=gaussians.scales * target_from_source.scale,
        quaternions=quaternion_multiply(matrix_to_quaternion(rotation)[None], gaussians.quaternions),
        harmonics=rotate_harmonics(rotation, gaussians.harmonics),
    )


def with_geometry(
    prediction: Prediction,
    cameras: Cameras,
    depth: Float[Tensor, "views h w"],
    confidence: Float[Tensor, "views h w"] | None = None,
) -> Prediction:
    """The prediction with corrected cameras and depth (and its confidence), the Gaussians moved along.

    Each pixel's Gaussian goes to its new depth and turns with its camera; in the picture it stays as large as before.
    """
    old, views, pixels = prediction.gaussians, len(depth), depth[0].numel()
    turns = cameras.camera_from_world[:, :3, :3].mT @ prediction.cameras.camera_from_world[:, :3, :3]
    local = unproject(depth, cameras.intrinsics).flatten(1, 2)
    zoom = _focal(prediction.cameras) / _focal(cameras)
    harmonics = old.harmonics.view(views, pixels, -1, 3)
    gaussians = replace(
        old,
        means=transform_points(invert_rigid(cameras.camera_from_world), local).flatten(0, 1),
        scales=old.scales * (depth / prediction.depth * zoom).reshape(-1, 1),
        quaternions=quaternion_multiply(
            matrix_to_quaternion(turns)[:, None], old.quaternions.view(views, pixels, 4)
        ).flatten(0, 1),
        harmonics=torch.cat([rotate_harmonics(turn, each) for turn, each in zip(turns, harmonics, strict=True)]),
    )
    if confidence is not None:
        # What nobody is to trust, 0, stays so.
        known = prediction.depth_confidence > 0
        confidence = torch.where(known, confidence, 0)
        gained = torch.where(known, confidence / prediction.depth_confidence, 1).log().flatten()
        gaussians = replace(gaussians, confidences=old.confidences + DEPTH_CONFIDENCE_WEIGHT * gained)
    else:
        confidence = prediction.depth_confidence
    return replace(prediction, cameras=cameras, depth=depth, depth_confidence=confidence, gaussians=gaussians)


def _focal(cameras: Cameras) -> Float[Tensor, "views 1 1"]:
    return ((cameras.intrinsics[:, 0, 0] + cameras.intrinsics[:, 1, 1]) / 2)[:, None, None]
