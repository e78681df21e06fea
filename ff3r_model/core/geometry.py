"""Rigid and similarity transforms, projection and unprojection: the conventions live here.

Names read like products: `world_from_camera @ points_camera = points_world`.
Cameras look along +z with x right and y down (OpenCV); pixel centres lie at integer + 0.5.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.types import Similarity

BODY_FROM_OPTICAL = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""REP-103 body axes (x forward, y left, z up) from OpenCV's optical axes."""


def invert_rigid(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The inverse of rigid transforms, exact where a general inverse would lose digits."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(transform)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ transform[..., :3, 3:]).squeeze(-1)
    inverse[..., 3, 3] = 1
    return inverse


def rigid(rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4 4"]:
    """The 4×4 matrix of a rotation followed by a translation."""
    matrix = torch.zeros(*rotation.shape[:-2], 4, 4, dtype=rotation.dtype, device=rotation.device)
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = translation
    matrix[..., 3, 3] = 1
    return matrix


def transform_points(matrix: Float[Tensor, "*#batch 4 4"], points: Float[Tensor, "*#batch n 3"]) -> Tensor:
    """`matrix @ points` for points as rows."""
    return points @ matrix[..., :3, :3].transpose(-1, -2) + matrix[..., None, :3, 3]


def apply_similarity(similarity: Similarity, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """scale · rotation @ points + translation, for points as rows."""
    rotation = similarity.rotation.to(points)
    return similarity.scale * (points @ rotation.T) + similarity.translation.to(points)


def compose(a_from_b: Similarity, b_from_c: Similarity) -> Similarity:
    """a_from_c."""
    return Similarity(
        a_from_b.scale * b_from_c.scale,
        a_from_b.rotation @ b_from_c.rotation.to(a_from_b.rotation),
        apply_similarity(a_from_b, b_from_c.translation),
    )


def invert_similarity(a_from_b: Similarity) -> Similarity:
    """b_from_a."""
    rotation = a_from_b.rotation.T
    return Similarity(1 / a_from_b.scale, rotation, -(rotation @ a_from_b.translation) / a_from_b.scale)


def transform_pose(similarity: Similarity, source_from_camera: Float[Tensor, "*batch 4 4"]) -> Tensor:
    """target_from_camera as rigid poses: rotations compose, centres move with the similarity."""
    rotation = similarity.rotation.to(source_from_camera) @ source_from_camera[..., :3, :3]
    return rigid(rotation, apply_similarity(similarity, source_from_camera[..., :3, 3]))


def anchored(camera_from_world: Float[Tensor, "views 4 4"]) -> Float[Tensor, "views 4 4"]:
    """The same cameras in the frame of the first, whose own pose becomes exactly the identity."""
    camera_from_first = camera_from_world @ invert_rigid(camera_from_world[:1])
    camera_from_first[0] = torch.eye(4).to(camera_from_first)
    return camera_from_first


def nearest_rotation(matrix: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation nearest to a matrix in the Frobenius norm, by SVD (orthogonal Procrustes); never a mirror."""
    u, _, vt = torch.linalg.svd(matrix)
    signs = torch.ones_like(matrix[0])
    signs[2] = torch.det(u @ vt).sign()
    return u @ torch.diag(signs) @ vt


def is_rigid(matrix: Float[Tensor, "4 4"], tolerance: float = 0.05) -> bool:
    """Whether a pose is finite and its rotation orthonormal, each entry of RᵀR within `tolerance` of the identity's."""
    rotation = matrix[:3, :3]
    error = (rotation.T @ rotation - torch.eye(3, dtype=matrix.dtype)).abs().max()
    return bool(matrix.isfinite().all()) and float(error) <= tolerance


def umeyama(
    source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], weights: Float[Tensor, " n"] | None = None
) -> Similarity:
    """target_from_source of matching points: the similarity of least weighted squares (Umeyama 1991), in float64.

    Points on one line leave the turn about it open, points on one spot any turn and the scale.
    """
    x, y = source.double(), target.double()
    weights = torch.ones_like(x[:, 0]) if weights is None else weights.double()
    share = (weights / weights.sum())[:, None]
    # Both clouds about their weighted means, which the similarity takes onto each other.
    x_mean, y_mean = (share * x).sum(dim=0), (share * y).sum(dim=0)
    x, y = x - x_mean, y - y_mean
    # The rotation that turns their covariance most nearly symmetric, and how much of the target's extent it explains.
    covariance = (share * y).T @ x
    rotation = nearest_rotation(covariance)
    scale = float((rotation * covariance).sum() / (share * x * x).sum().clamp_min(1e-12))
    return Similarity(scale, rotation, y_mean - scale * rotation @ x_mean)


def pixel_grid(height: int, width: int, like: Tensor) -> Float[Tensor, "height width 2"]:
    """(u, v) of each pixel's centre."""
    v, u = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device) + 0.5,
        torch.arange(width, dtype=like.dtype, device=like.device) + 0.5,
        indexing="ij",
    )
    return torch.stack([u, v], dim=-1)


def unproject(
    depth: Float[Tensor, "*batch height width"], intrinsics: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch height width 3"]:
    """Points in the camera's frame from depth along z."""
    grid = pixel_grid(depth.shape[-2], depth.shape[-1], depth)
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1)[..., None, None, :]
    centre = intrinsics[..., None, None, :2, 2]
    rays = (grid - centre) / focal
    return torch.cat([rays * depth[..., None], depth[..., None]], dim=-1)


def project(
    points: Float[Tensor, "*#batch n 3"], intrinsics: Float[Tensor, "*#batch 3 3"]
) -> tuple[Float[Tensor, "*_ n 2"], Float[Tensor, "*_ n"]]:
    """Pixel (u, v) and depth z of points in the camera's frame. Pixels of z ≤ 0 mean nothing."""
    depth = points[..., 2]
    safe = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1)[..., None, :]
    pixels = points[..., :2] / safe[..., None] * focal + intrinsics[..., None, :2, 2]
    return pixels, depth


def skew(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix whose product with x is vector × x."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def quaternion_to_matrix(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of wxyz quaternions, which need not have unit norm."""
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """wxyz quaternions (w ≥ 0) of rotation matrices, from the best-conditioned of the four candidates."""
    m = matrix.flatten(-2).unbind(-1)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    candidates = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], dim=-1),
            torch.stack([m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20], dim=-1),
            torch.stack([m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m12 + m21], dim=-1),
            torch.stack([m10 - m01, m20 + m02, m21 + m12, 1 - m00 - m11 + m22], dim=-1),
        ],
        dim=-2,
    )
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(dim=-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = torch.nn.functional.normalize(chosen, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_multiply(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*_ 4"]:
    """The rotation b followed by a, wxyz."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    product = [
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ]
    return torch.stack(product, dim=-1)


def field_of_view(intrinsics: Float[Tensor, "*batch 3 3"], height: int, width: int) -> Float[Tensor, "*batch 2"]:
    """(vertical, horizontal) field of view in radians."""
    return torch.stack(
        [2 * torch.atan(height / 2 / intrinsics[..., 1, 1]), 2 * torch.atan(width / 2 / intrinsics[..., 0, 0])], dim=-1
    )
