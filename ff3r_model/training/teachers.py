"""What the annotation-free objective learns from: another network's word, or the synthetic world's truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ff3r_model.training.views import Views


@dataclass(frozen=True)
class TeacherTargets:
    """A teacher's word on a batch of windows, without gradients."""

    pose_encodings: Float[Tensor, "batch views 9"]
    """As the network's: camera_from_world translation 3, quaternion xyzw 4 (unit), vertical and horizontal field of
    view in radians. The world is (nearly) the first view's camera; its unit is the teacher's."""
    depth: Float[Tensor, "batch views height width"]
    """z in the camera's frame, in the unit of the poses; 0 where the teacher does not know."""
    depth_confidence: Float[Tensor, "batch views height width"]
    """Larger is more certain; 0 where the teacher does not know."""
    features: Float[Tensor, "batch views text rows columns"]
    """In the text's space, not normalised, usually coarser than the images (same field of view)."""


@runtime_checkable
class Teacher(Protocol):
    """Images in, targets out, on the images' device."""

    def __call__(
        self, images: Float[Tensor, "batch views 3 height width"], ids: tuple[str, ...], truth: Views | None = None
    ) -> TeacherTargets:
        """`ids`, one per view, window by window, name the pixels (a cache's key); `truth` is there in rooms alone."""
        ...
