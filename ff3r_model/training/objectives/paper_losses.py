"""The paper's losses, equations 2 to 4 and 9 to 13: how FF3R learns from images and teachers, without annotations.

What the paper leaves open is a parameter; `PaperWeights` and `PaperConfig` hold the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, huber_loss, interpolate, l1_loss

from ff3r_model.core.ranges import check_range
from ff3r_model.core.types import Cameras, Prediction
from ff3r_model.gaussians.render import Rendering
from ff3r_model.training.objectives.loss import WEIGHTS, Loss
from ff3r_model.training.objectives.warping import sample_pairs, warping_loss


@dataclass(frozen=True)
class PaperWeights:
    """λ of equations 9 and 13."""

    rgb: float = 1.0
    perceptual: float = 0.05
    """Of LPIPS within the RGB loss."""
    feature: float = 0.1
    warp: float = 0.1
    depth: float = 1.0
    camera: float = 10.0

    def __post_init__(self) -> None:
        check_range(self, WEIGHTS, *vars(self))


@dataclass(frozen=True)
class PaperContext:
    """One window: the network's prediction and its rendering, beside the images and the teacher's targets."""

    prediction: Prediction
    rendering: Rendering
    """Of the views at `picks`."""
    picks: Int[Tensor, " picks"]
    images: Float[Tensor, "views 3 h w"]
    depth: Float[Tensor, "views h w"]
    """The teacher's, as the following two."""
    depth_confidence: Float[Tensor, "views h w"]
    features: Float[Tensor, "views text rows columns"]
    decoder: nn.Module
    """From compact features to the text's space."""


@dataclass(frozen=True)
class RenderedColorLoss(Loss[PaperContext]):
    """Equation 9, of the rendered views."""

    name: ClassVar[str] = "rgb"
    perceptual: nn.Module
    perceptual_weight: float

    def __call__(self, context: PaperContext) -> Float[Tensor, ""]:
        colors = context.rendering.colors.permute(0, 3, 1, 2)
        return rgb_loss(colors, context.images[context.picks], self.perceptual, self.perceptual_weight)


@dataclass(frozen=True)
class RenderedFeatureLoss(Loss[PaperContext]):
    """Equation 10, feature distillation: rendered features against the teacher's, at the teacher's resolution."""

    name: ClassVar[str] = "feature"

    def __call__(self, context: PaperContext) -> Float[Tensor, ""]:
        teacher = context.features[context.picks]
        rendered = text_features(context.decoder, context.rendering, (teacher.shape[-2], teacher.shape[-1]))
        return feature_loss(rendered, teacher)


@dataclass(frozen=True)
class RenderedDepthLoss(Loss[PaperContext]):
    """Equation 12, depth distillation: rendered depth against the teacher's."""

    name: ClassVar[str] = "depth"
    share: float
    """Of a window's pixels, the most confident, that count."""

    def __call__(self, context: PaperContext) -> Float[Tensor, ""]:
        mask = confident(context.depth_confidence, context.depth, self.share)
        return depth_loss(context.rendering.depth, context.depth[context.picks], mask[context.picks])


@dataclass(frozen=True)
class WarpingLoss(Loss[PaperContext]):
    """Equations 2 to 4, of the Gaussians' features where they were decoded.

    Geometry guides and learns nothing from it (ours).
    """

    name: ClassVar[str] = "warp"
    pairs: int
    """Pairs of views, drawn at random."""
    tolerance: float

    def __call__(self, context: PaperContext) -> Float[Tensor, ""]:
        depth, cameras = context.prediction.depth.detach(), context.prediction.cameras
        features = context.prediction.gaussians.features.unflatten(0, tuple(depth.shape)).permute(0, 3, 1, 2)
        fixed = Cameras(cameras.camera_from_world.detach(), cameras.intrinsics.detach())
        pairs = sample_pairs(len(depth), self.pairs).to(depth.device)
        return warping_loss(features, depth, fixed, pairs, self.tolerance)


@dataclass(frozen=True)
class CameraTargets:
    """Predicted cameras of a batch beside the teacher's."""

    encodings: Float[Tensor, "iterations batch views 9"]
    """Pose encodings of every iteration of the camera head."""
    teacher: Float[Tensor, "batch views 9"]


@dataclass(frozen=True)
class CameraDistillationLoss(Loss[CameraTargets]):
    """Equation 11, camera distillation."""

    name: ClassVar[str] = "camera"
    gamma: float
    delta: float

    def __call__(self, context: CameraTargets) -> Float[Tensor, ""]:
        return camera_loss(context.encodings, context.teacher, self.gamma, self.delta)


def rgb_loss(
    rendered: Float[Tensor, "views 3 h w"], images: Float[Tensor, "views 3 h w"], perceptual: nn.Module, weight: float
) -> Float[Tensor, ""]:
    """Equation 9: mean |Î − I| + 0.05 · LPIPS(Î, I), RGB in [0, 1]."""
    return l1_loss(rendered, images) + weight * perceptual(rendered, images)


def feature_loss(
    rendered: Float[Tensor, "views channels h w"], teacher: Float[Tensor, "views channels h w"]
) -> Float[Tensor, ""]:
    """Equation 10: mean over pixels of 1 − cos(F̂, F), in the text's space.

    Pixels of which the teacher says nothing, F = 0, do not count.
    """
    known = (teacher != 0).any(dim=1)
    return torch.where(known, 1 - cosine_similarity(rendered, teacher, dim=1), 0.0).sum() / known.sum().clamp(min=1)


def text_features(
    decoder: nn.Module, rendering: Rendering, size: tuple[int, int]
) -> Float[Tensor, "views text rows columns"]:
    """Rendered features in the text's space, at the teacher's resolution."""
    compact = interpolate(rendering.features.permute(0, 3, 1, 2), size, mode="area")
    decoded: Tensor = decoder(compact.permute(0, 2, 3, 1))
    return decoded.permute(0, 3, 1, 2)


def camera_loss(
    encodings: Float[Tensor, "iterations batch views 9"],
    teacher: Float[Tensor, "batch views 9"],
    gamma: float,
    delta: float,
) -> Float[Tensor, ""]:
    """Equation 11: Huber(p̂ − p) of pose encodings, averaged over the camera head's iterations k with weights γ^(K−k).

    The teacher's quaternion takes the sign that is nearer, for both mean one rotation.
    """
    iterations = len(encodings)
    weights = gamma ** torch.arange(iterations - 1, -1, -1, dtype=encodings.dtype, device=encodings.device)
    dots = (encodings[..., 3:7] * teacher[..., 3:7]).sum(-1, keepdim=True)
    sign = torch.ones_like(encodings)
    sign[..., 3:7] = torch.where(dots < 0, -1.0, 1.0)
    wanted = sign * teacher
    errors = huber_loss(encodings, wanted, delta=delta, reduction="none").mean((1, 2, 3))
    return (weights * errors).sum() / weights.sum()


def confident(
    confidence: Float[Tensor, "views h w"], depth: Float[Tensor, "views h w"], share: float
) -> Bool[Tensor, "views h w"]:
    """The `share` of a window's pixels of known depth that are most confident; ties are kept."""
    known = depth > 0
    values = confidence[known]
    if not len(values):
        return known
    kept = max(1, round(share * len(values)))
    floor = values.kthvalue(len(values) - kept + 1).values
    return known & (confidence >= floor)


def depth_loss(
    rendered: Float[Tensor, "views h w"], teacher: Float[Tensor, "views h w"], mask: Bool[Tensor, "views h w"]
) -> Float[Tensor, ""]:
    """Equation 12: Σ M (D̂ − D)² / Σ M, M the most confident pixels; 0 where M is empty."""
    return torch.where(mask, rendered - teacher, 0.0).square().sum() / mask.sum().clamp(min=1)
