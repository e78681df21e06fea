"""Views that the network has not seen, rendered from what it made of those that it has."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, nearest_rotation, transform_pose
from ff3r_model.core.types import Cameras, Prediction, Similarity
from ff3r_model.gaussians.render import Rendering, render
from ff3r_model.gaussians.voxelize import VoxelizeConfig, VoxelizedGaussians, voxelize


@dataclass(frozen=True)
class NovelConfig:
    """How held-out views are rendered; the paper leaves these open, so they are ours."""

    epsilon: float = 0.01
    """Edge of the voxels (equation 5) as a share of the window's median predicted depth: about a pixel's footprint."""
    distance_weight: float = 1.0
    """λ of equation 7."""
    target_focal: bool = True
    """Held-out cameras get the focal length that the network believes in: the true one times the context views' median
    ratio of predicted to true. Off: the true one, so that a wrong field of view also misplaces everything."""


def merged(prediction: Prediction, config: NovelConfig) -> VoxelizedGaussians:
    """The window's Gaussians after semantic-aware voxelization."""
    edge = config.epsilon * float(prediction.depth.median())
    return voxelize(prediction.gaussians, VoxelizeConfig(edge, config.distance_weight))


def seen_from(
    gaussians: VoxelizedGaussians, cameras: Cameras, size: tuple[int, int]
) -> tuple[Float[Tensor, "views 3 h w"], Rendering]:
    """RGB in [0, 1] and everything else that the held-out cameras see."""
    rendering = render(gaussians.gaussians, cameras, *size)
    return rendering.colors.permute(0, 3, 1, 2).clamp(0, 1), rendering


def place_targets(
    predicted: Cameras, truth: Cameras, targets: Cameras, scale: float, config: NovelConfig | None = None
) -> Cameras:
    """The true held-out cameras in the predicted world, by the context's cameras.

    The similarity takes its rotation from the mean of the context cameras' rotations, its scale from the window's
    depth (`scale`: true units per predicted unit) and its translation from the mean of the context cameras' centres:
    Umeyama's on the centres alone is undetermined for two views and wild for short paths.
    """
    config = config or NovelConfig()
    predicted_from_true = camera_similarity(predicted.camera_from_world, truth.camera_from_world, 1 / scale)
    pose = transform_pose(predicted_from_true, invert_rigid(targets.camera_from_world))
    intrinsics = targets.intrinsics.clone()
    if config.target_focal:
        ratio = predicted.intrinsics.diagonal(dim1=1, dim2=2) / truth.intrinsics.diagonal(dim1=1, dim2=2)
        intrinsics[:, [0, 1], [0, 1]] *= ratio.median(0).values[:2]
    return Cameras(invert_rigid(pose), intrinsics)


def camera_similarity(
    predicted: Float[Tensor, "views 4 4"], truth: Float[Tensor, "views 4 4"], scale: float
) -> Similarity:
    """predicted_from_true of two sets of camera_from_world, given the scale."""
    ours, true = invert_rigid(predicted).double(), invert_rigid(truth).double()
    rotation = nearest_rotation((ours[:, :3, :3] @ true[:, :3, :3].transpose(1, 2)).mean(0))
    translation = ours[:, :3, 3].mean(0) - scale * rotation @ true[:, :3, 3].mean(0)
    return Similarity(scale, rotation.to(predicted.dtype), translation.to(predicted.dtype))
