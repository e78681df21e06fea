"""Supervised dense losses: depth, Gaussians and semantic features of some views, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ff3r_model.core.types import rgb_from_harmonics
from ff3r_model.network.gaussian_head import RawGaussians
from ff3r_model.training.objectives.loss import Loss


@dataclass(frozen=True)
class SemanticContext:
    """LSeg's features beside what each pixel shows."""

    semantics: Float[Tensor, "n text rows columns"]
    """In the text's space, usually coarser than the images."""
    classes: Int[Tensor, "n h w"]
    colors: Int[Tensor, "n h w"]
    class_targets: Float[Tensor, "classes text"]
    """Unit embeddings of the classes."""
    phrase_targets: Float[Tensor, "phrases text"]
    """Of class by colour, the colour varying fastest."""


@dataclass(frozen=True)
class DenseContext(SemanticContext):
    """Dense maps of some views beside the truth."""

    images: Float[Tensor, "n 3 h w"]
    depth: Float[Tensor, "n h w"]
    depth_confidence: Float[Tensor, "n h w"]
    true_depth: Float[Tensor, "n h w"]
    """0 where unknown."""
    gaussians: RawGaussians
    """One window of n views."""
    decoder: nn.Module
    """From compact features to the text's space."""


@dataclass(frozen=True)
class LogDepthLoss(Loss[DenseContext]):
    """Confidence-weighted L1 of log depth."""

    name: ClassVar[str] = "depth"
    alpha: float
    """Weight of −log confidence."""

    def __call__(self, context: DenseContext) -> Float[Tensor, ""]:
        return log_depth_loss(context.depth, context.depth_confidence, context.true_depth, self.alpha)


@dataclass(frozen=True)
class DepthGradientLoss(Loss[DenseContext]):
    """L1 of the gradients of log depth."""

    name: ClassVar[str] = "depth_gradient"

    def __call__(self, context: DenseContext) -> Float[Tensor, ""]:
        return depth_gradient_loss(context.depth, context.true_depth)


@dataclass(frozen=True)
class GaussianColorLoss(Loss[DenseContext]):
    """L1 of each Gaussian's base colour and its pixel."""

    name: ClassVar[str] = "color"

    def __call__(self, context: DenseContext) -> Float[Tensor, ""]:
        return F.l1_loss(rgb_from_harmonics(context.gaussians.harmonics[0, :, :3].float()), context.images)


@dataclass(frozen=True)
class GaussianShapeLoss(Loss[DenseContext]):
    """Regularisation: Gaussians as large as a pixel, unrotated and opaque, and confident where the depth is right."""

    name: ClassVar[str] = "gaussian"

    def __call__(self, context: DenseContext) -> Float[Tensor, ""]:
        gaussians, depth = context.gaussians, context.depth.detach()
        error = (depth.clamp(min=1e-4).log() - context.true_depth.clamp(min=1e-4).log()).abs()
        identity = torch.tensor([1.0, 0, 0, 0], device=depth.device)[:, None, None]
        rotation = F.normalize(gaussians.quaternion[0].float(), dim=1)
        return (
            gaussians.log_scale.float().abs().mean()
            + (rotation - identity).abs().mean()
            + F.softplus(-gaussians.opacity_logit.float()).mean()
            + F.smooth_l1_loss(gaussians.confidence_logit[0, :, 0].float(), -10 * error.clamp(max=0.5))
        )


@dataclass(frozen=True)
class PhraseLoss:
    """Classification of features at sampled pixels, over classes and over colour phrases, by cosine."""

    pixels: int
    """Sampled per view."""
    temperature: float

    def __call__(
        self, context: SemanticContext, features: Float[Tensor, "n channels rows columns"], decoder: nn.Module | None
    ) -> Float[Tensor, ""]:
        """`decoder`: from the features to the text's space; None where they are there already."""
        # Sample pixels evenly over classes, and the features there.
        picks = balanced_pixels(context.classes.flatten(1), self.pixels, len(context.class_targets))
        sampled = at_pixels(features, picks, context.classes.shape[-2:]).flatten(0, 1)
        sampled = sampled if decoder is None else decoder(sampled)
        # Name them: the class, and class with colour where the pixel has one.
        classes, colors = (x.flatten(1).gather(1, picks).flatten() for x in (context.classes, context.colors))
        names = len(context.phrase_targets) // len(context.class_targets)
        phrases = torch.where(colors >= 0, classes * names + colors, -1)
        return phrase_loss(sampled, classes, context.class_targets, self.temperature) + 0.5 * phrase_loss(
            sampled, phrases, context.phrase_targets, self.temperature
        )


@dataclass(frozen=True)
class SemanticsLoss(Loss[SemanticContext]):
    """What LSeg's features say of pixels."""

    name: ClassVar[str] = "semantics"
    phrases: PhraseLoss

    def __call__(self, context: SemanticContext) -> Float[Tensor, ""]:
        return self.phrases(context, context.semantics, None)


@dataclass(frozen=True)
class GaussianFeatureLoss(Loss[DenseContext]):
    """What the Gaussians' compact features, decoded, say of pixels."""

    name: ClassVar[str] = "feature"
    phrases: PhraseLoss

    def __call__(self, context: DenseContext) -> Float[Tensor, ""]:
        return self.phrases(context, context.gaussians.feature[0], context.decoder)


def log_depth_loss(
    depth: Float[Tensor, "*n h w"], confidence: Float[Tensor, "*n h w"], truth: Float[Tensor, "*n h w"], alpha: float
) -> Float[Tensor, ""]:
    """VGGT's confidence-weighted depth, mean of c · |error| − α · log c, with the error of log depth."""
    error, valid = _log_error(depth, truth)
    weighted = confidence * error.abs() - alpha * confidence.log()
    return (weighted * valid).mean()


def depth_gradient_loss(depth: Float[Tensor, "*n h w"], truth: Float[Tensor, "*n h w"]) -> Float[Tensor, ""]:
    """L1 of the differences between neighbouring pixels' errors of log depth, across and down."""
    error, valid = _log_error(depth, truth)
    across = (error[..., 1:] - error[..., :-1]).abs() * (valid[..., 1:] & valid[..., :-1])
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * (valid[..., 1:, :] & valid[..., :-1, :])
    return across.mean() + down.mean()


def _log_error(
    depth: Float[Tensor, "*n h w"], truth: Float[Tensor, "*n h w"]
) -> tuple[Float[Tensor, "*n h w"], Bool[Tensor, "*n h w"]]:
    """Error of log depth, 0 where the truth is unknown, and where it is known."""
    valid = truth > 0
    error = depth.clamp(min=1e-4).log() - truth.clamp(min=1e-4).log()
    return torch.where(valid, error, torch.zeros_like(error)), valid


def phrase_loss(
    features: Float[Tensor, "n channels"],
    labels: Int[Tensor, " n"],
    targets: Float[Tensor, "phrases channels"],
    temperature: float,
) -> Tensor:
    """Classification over phrases by cosine; labels below 0 are ignored."""
    logits = F.normalize(features.float(), dim=-1) @ targets.T / temperature
    return F.cross_entropy(logits, labels, ignore_index=-1)


def balanced_pixels(classes: Int[Tensor, "views pixels"], count: int, total: int) -> Int[Tensor, "views count"]:
    """Pixels drawn so that a class that fills a view counts little more than a small thing: ∝ 1 / √(its pixels)."""
    known = classes.clamp(min=0)
    frequency = torch.zeros(len(known), total, device=known.device)
    frequency.scatter_add_(1, known, torch.ones_like(known, dtype=frequency.dtype))
    weights = frequency.clamp(min=1).rsqrt().gather(1, known)
    return torch.multinomial(weights, count, replacement=True)


def at_pixels(
    features: Float[Tensor, "views channels rows columns"], picks: Int[Tensor, "views count"], size: Sequence[int]
) -> Float[Tensor, "views count channels"]:
    """Features at pixels of an image of `size` (height, width), bilinearly where the map is coarser."""
    height, width = size
    places = torch.stack([(picks % width + 0.5) / width, (picks // width + 0.5) / height], dim=-1) * 2 - 1
    sampled = F.grid_sample(features.float(), places[:, None], padding_mode="border", align_corners=False)
    return sampled[:, :, 0].transpose(1, 2)
