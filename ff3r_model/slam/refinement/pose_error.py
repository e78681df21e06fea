"""Pose error that a reconstruction claims of itself, from the covariance of its cameras."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ff3r_model.slam.refinement.structure_adjustment import cross_matrices


def relative_errors(
    camera_from_world: Float[ndarray, "views 4 4"], covariance: Float[ndarray, "n n"]
) -> Float[ndarray, " pairs"]:
    """Degrees, one standard deviation, that each pair's relative pose is off by: rotation or translation's direction.

    `covariance` is of all cameras' twists, left of their poses, as `pose_covariance` gives it; pairs in the order of
    numpy's `triu_indices`.
    """
    rotation, translation = camera_from_world[:, :3, :3], camera_from_world[:, :3, 3]
    first, second = np.triu_indices(len(rotation), 1)
    # t_ji = t_j − R_ji t_i, and how it follows both twists: dt_j = ξ_j + ω_j × t_j.
    turn = rotation[second] @ rotation[first].transpose(0, 2, 1)
    moved = translation[second] - (turn @ translation[first, :, None])[..., 0]
    by_first = np.zeros((len(first), 6, 6))
    by_second = np.zeros_like(by_first)
    by_second[:, :3, :3] = by_second[:, 3:, 3:] = np.eye(3)
    by_second[:, :3, 3:] = -cross_matrices(moved)
    by_first[:, :3, :3] = by_first[:, 3:, 3:] = -turn
    # Blocks of the covariance: first, second, and between them.
    six = np.arange(6)
    rows = np.concatenate([6 * first[:, None] + six, 6 * second[:, None] + six], axis=1)
    both = covariance[rows[:, :, None], rows[:, None]]
    jacobian = np.concatenate([by_first, by_second], axis=2)
    relative = jacobian @ both @ jacobian.transpose(0, 2, 1)
    # A translation's error across it turns its direction.
    length = np.linalg.norm(moved, axis=1)
    along = moved / np.maximum(length, 1e-12)[:, None]
    spread = relative[:, :3, :3]
    across = np.trace(spread, axis1=1, axis2=2) - np.einsum("pi,pij,pj->p", along, spread, along)
    angle = np.sqrt(np.maximum(across, 0)) / np.maximum(length, 1e-12)
    turned = np.sqrt(np.maximum(np.trace(relative[:, 3:, 3:], axis1=1, axis2=2), 0))
    return np.degrees(np.minimum(np.maximum(angle, turned), np.pi))


def covariance_beside_first(
    camera_from_world: Float[ndarray, "views 4 4"], covariance: Float[ndarray, "n n"]
) -> Float[ndarray, "views 6 6"]:
    """Covariance of each camera's twist where the first camera is the one that has none, whichever adjustment held.

    Twists ξ = (translation, rotation) are left of the poses: ξ_i − Ad(T_i T_0⁻¹) ξ_0 moves camera i beside a first one
    that stays. `covariance` as in `relative_errors`.
    """
    rotation, translation = camera_from_world[:, :3, :3], camera_from_world[:, :3, 3]
    turn = rotation @ rotation[0].T
    way = translation - turn @ translation[0]
    jacobian = np.zeros((len(turn), 6, 12))
    jacobian[:, :, :6] = np.eye(6)
    jacobian[:, :3, 6:9] = jacobian[:, 3:, 9:] = -turn
    jacobian[:, :3, 9:] = -cross_matrices(way) @ turn
    rows = np.zeros((len(turn), 12), dtype=int)
    rows[:, :6] = 6 * np.arange(len(turn))[:, None] + np.arange(6)
    rows[:, 6:] = np.arange(6)
    return np.asarray(jacobian @ covariance[rows[:, :, None], rows[:, None]] @ jacobian.transpose(0, 2, 1))
