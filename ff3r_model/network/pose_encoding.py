"""Pose encodings of cameras: translation (3), quaternion xyzw (4, any norm), vertical and horizontal field of view."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import field_of_view, matrix_to_quaternion, quaternion_to_matrix


def encode_cameras(
    camera_from_world: Float[Tensor, "*batch 4 4"], intrinsics: Float[Tensor, "*batch 3 3"], height: int, width: int
) -> Float[Tensor, "*batch 9"]:
    """Encodings of cameras whose images have `height` × `width` pixels; w ≥ 0, the principal point is left out."""
    quaternion = matrix_to_quaternion(camera_from_world[..., :3, :3])[..., [1, 2, 3, 0]]
    return torch.cat([camera_from_world[..., :3, 3], quaternion, field_of_view(intrinsics, height, width)], dim=-1)


def invert_encoding(encoding: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 9"]:
    """Camera-to-world from world-to-camera and back: R = R(q)ᵀ, t = -R t."""
    x, y, z, w = encoding[..., 3:7].unbind(-1)
    inverse = torch.stack([-x, -y, -z, w], dim=-1)
    rotation = quaternion_to_matrix(inverse[..., [3, 0, 1, 2]])
    translation = -(rotation @ encoding[..., :3, None]).squeeze(-1)
    return torch.cat([translation, inverse, encoding[..., 7:]], dim=-1)
