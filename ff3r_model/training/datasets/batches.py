"""Training batches: windows of images with their ids, and the targets that a teacher or the synthetic world gives."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.training.datasets.room_views import RoomWindow


@dataclass(frozen=True)
class TeacherTargets:
    """Pseudo-labels: what a teacher says of a batch of windows, without gradients."""

    pose_encodings: Float[Tensor, "batch views 9"]
    """As the network's: camera_from_world translation 3, quaternion xyzw 4 (unit), vertical and horizontal field of
    view in radians. The world is (nearly) the first view's camera; its unit is the teacher's."""
    depth: Float[Tensor, "batch views height width"]
    """z in the camera's frame, in the unit of the poses; 0 where the teacher does not know."""
    depth_confidence: Float[Tensor, "batch views height width"]
    """Larger is more certain; 0 where the teacher does not know."""
    features: Float[Tensor, "batch views text rows columns"]
    """In the text's space, not normalised, usually coarser than the images (same field of view)."""


Tensors = TypeVar("Tensors", TeacherTargets, RoomWindow)


@dataclass(frozen=True)
class TrainingBatch:
    """A batch of windows of one size and one number of views."""

    images: Float[Tensor, "batch views 3 height width"]
    """RGB in [0, 1]."""
    ids: tuple[str, ...]
    """One per view, window by window (batch · views of them): the same id always shows the same pixels."""
    targets: TeacherTargets | None = None
    """What the teacher says; None where the objective asks no teacher."""
    truth: RoomWindow | None = None
    """What the synthetic world knows; None for real images."""
    left_out: tuple[str, ...] = ()
    """Images that were drawn and cannot be used, each with the reason; others stand in their place."""

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same batch with all its tensors on `device`."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            targets=None if self.targets is None else _moved(self.targets, device),
            truth=None if self.truth is None else _moved(self.truth, device),
        )


def _moved(tensors: Tensors, device: torch.device | str) -> Tensors:
    values = {field.name: getattr(tensors, field.name).to(device, non_blocking=True) for field in fields(tensors)}
    return replace(tensors, **values)
