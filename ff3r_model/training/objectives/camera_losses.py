"""Supervised camera losses: predicted poses and fields of view against the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import field_of_view, quaternion_to_matrix
from ff3r_model.training.datasets.room_views import RoomWindow
from ff3r_model.training.objectives.loss import Loss

MIN_BASELINE = 0.05
"""Window units: views nearer to each other than this count as if they were so far apart."""


@dataclass(frozen=True)
class CameraContext:
    """Predicted cameras beside the true ones."""

    encodings: Float[Tensor, "iterations batch views 9"]
    """Pose encodings of every iteration of the camera head."""
    truth: RoomWindow

    @property
    def translation(self) -> Float[Tensor, "iterations batch views 3"]:
        """Of camera_from_world."""
        return self.encodings[..., :3].float()

    @property
    def rotation(self) -> Float[Tensor, "iterations batch views 3 3"]:
        """Of camera_from_world."""
        return quaternion_to_matrix(self.encodings.float()[..., [6, 3, 4, 5]])


@dataclass(frozen=True)
class CameraLoss(Loss[CameraContext]):
    """A loss of every iteration of the camera head, the later ones weighted more."""

    gamma: float
    """Weight of each iteration relative to the next."""

    def discounts(self, encodings: Float[Tensor, "iterations batch views 9"]) -> Float[Tensor, " iterations"]:
        """γ^(K−k) for iteration k of K, as shares of 1."""
        powers = torch.arange(len(encodings) - 1, -1, -1, dtype=torch.float32, device=encodings.device)
        weights = self.gamma**powers
        return weights / weights.sum()

    def discounted(self, errors: Float[Tensor, "iterations batch views"], context: CameraContext) -> Float[Tensor, ""]:
        """The mean over windows and views of the weighted sum over iterations."""
        return (self.discounts(context.encodings)[:, None, None] * errors).sum(0).mean()


@dataclass(frozen=True)
class PairLoss(CameraLoss):
    """Relative translation of every pair of views (`pair_loss`)."""

    name: ClassVar[str] = "pair"

    def __call__(self, context: CameraContext) -> Float[Tensor, ""]:
        errors = pair_loss(context.rotation, context.translation, context.truth.camera_from_world)
        return (self.discounts(context.encodings)[:, None] * errors).sum(0).mean()


@dataclass(frozen=True)
class RotationLoss(CameraLoss):
    """Chordal rotation error.

    Rotations are compared as matrices: quaternions jump in sign and a Huber on them teaches small networks nothing.
    Their norm is held near 1, where turning them takes the least change.
    """

    name: ClassVar[str] = "rotation"

    def __call__(self, context: CameraContext) -> Float[Tensor, ""]:
        norm = (context.encodings[..., 3:7].float().norm(dim=-1) - 1).square()
        target = context.truth.camera_from_world[..., :3, :3]
        chordal = (context.rotation - target).square().sum((-1, -2)).add(1e-8).sqrt()
        return self.discounted(chordal + 0.1 * norm, context)


@dataclass(frozen=True)
class TranslationLoss(CameraLoss):
    """Huber loss on the translation of camera_from_world."""

    name: ClassVar[str] = "translation"

    def __call__(self, context: CameraContext) -> Float[Tensor, ""]:
        target = context.truth.camera_from_world[..., :3, 3].expand_as(context.translation)
        errors = F.smooth_l1_loss(context.translation, target, beta=0.05, reduction="none")
        return self.discounted(errors.sum(-1), context)


@dataclass(frozen=True)
class FieldOfViewLoss(CameraLoss):
    """L1 loss on the vertical and horizontal field of view, radians."""

    name: ClassVar[str] = "field_of_view"

    def __call__(self, context: CameraContext) -> Float[Tensor, ""]:
        true = field_of_view(context.truth.intrinsics, *context.truth.depth.shape[-2:])
        return self.discounted((context.encodings[..., 7:].float() - true).abs().sum(-1), context)


def pair_loss(
    rotation: Float[Tensor, "iterations batch views 3 3"],
    translation: Float[Tensor, "iterations batch views 3"],
    target: Float[Tensor, "batch views 4 4"],
) -> Float[Tensor, "iterations batch"]:
    """Error of the relative translation of every pair of views, as a share of the distance between them.

    What the first camera's frame hides: two views far from it may agree with it and not with each other.
    """
    predicted = _relative_translation(rotation, translation)
    truth = _relative_translation(target[..., :3, :3], target[..., :3, 3])
    baseline = truth.norm(dim=-1)
    error = (predicted - truth).add(1e-6).norm(dim=-1) / (baseline + MIN_BASELINE)
    views = target.shape[-3]
    return error.sum((-1, -2)) / (views * (views - 1))


def _relative_translation(
    rotation: Float[Tensor, "*batch views 3 3"], translation: Float[Tensor, "*batch views 3"]
) -> Float[Tensor, "*batch views views 3"]:
    """Where camera i's centre lies in camera j's frame: t_j − R_j R_iᵀ t_i."""
    centres = -(rotation.transpose(-1, -2) @ translation[..., None]).squeeze(-1)
    moved = torch.einsum("...jab,...ib->...ija", rotation, centres)
    return moved + translation[..., None, :, :]
