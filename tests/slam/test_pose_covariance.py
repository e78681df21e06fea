"""The covariance of poses in the map against cameras that were moved at random."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import invert_rigid, rigid, transform_pose
from ff3r_model.core.types import Similarity, WindowQuality
from ff3r_model.slam.pose_covariance import covariance_in_map
from ff3r_model.slam.refinement.pose_error import covariance_beside_first
from ff3r_model.slam.refinement.structure_adjustment import rotations
from ff3r_model.slam.refinement.window_quality import ERROR_FACTOR, ERROR_FLOOR

SAMPLES = 200_000
PIXELS = 0.4


def random_pose(rng: np.random.Generator) -> torch.Tensor:
    return rigid(torch.from_numpy(Rotation.random(rng=rng).as_matrix()), torch.from_numpy(rng.normal(size=3)))


def quality(covariance: torch.Tensor, registered: tuple[bool, ...]) -> WindowQuality:
    return WindowQuality(3.0, registered, PIXELS, 5.0, covariance, 0.8, 0.0)


@pytest.mark.parametrize("seed", range(2))
def test_position_and_rotation_spread_as_moved_cameras_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera_from_window = torch.stack([torch.eye(4, dtype=torch.float64), random_pose(rng)])
    scale = 2.5
    place = random_pose(rng)
    map_from_window = Similarity(scale, place[:3, :3], place[:3, 3])
    # A camera moved by twists on the left of its pose, as bundle adjustment moves it.
    root = rng.normal(size=(6, 6)) * 1e-3
    twists = rng.normal(size=(SAMPLES, 6)) @ root.T
    turn = torch.from_numpy(rotations(twists[:, 3:]))
    pose = camera_from_window[1]
    moved = rigid(turn @ pose[:3, :3], (turn @ pose[:3, 3:])[..., 0] + torch.from_numpy(twists[:, :3]))
    # Where that has it in the map, and how it is turned there about the map's axes.
    true, found = (transform_pose(map_from_window, invert_rigid(each)) for each in (pose, moved))
    turned = Rotation.from_matrix((found[:, :3, :3] @ true[:3, :3].T).numpy()).as_rotvec()
    errors = np.concatenate([(found[:, :3, 3] - true[:3, 3]).numpy(), turned], axis=1)
    # Claimed from the covariance of the twists at unit noise.
    unit = ERROR_FACTOR * PIXELS
    covariance = torch.stack([torch.zeros(6, 6, dtype=torch.float64), torch.from_numpy(root @ root.T) / unit**2])
    poses = transform_pose(map_from_window, invert_rigid(camera_from_window))
    claimed = covariance_in_map(quality(covariance, (True, True)), map_from_window, poses)
    angle = math.radians(ERROR_FLOOR)
    way = float((poses[1, :3, 3] - poses[0, :3, 3]).norm())
    expected = np.cov(errors.T) + np.diag([(angle * way) ** 2] * 3 + [angle**2] * 3)
    size = np.sqrt(np.diag(np.cov(errors.T)))
    assert np.abs(claimed[1].numpy() - expected).max() < 0.02 * np.outer(size, size).max()
    assert (np.abs(claimed[1].numpy() - expected) < 0.02 * np.outer(size, size)).all()
    assert claimed[0].numpy() == pytest.approx(np.diag([0] * 3 + [angle**2] * 3)), "the one that others refer to"


def test_any_camera_may_be_the_one_that_others_are_beside() -> None:
    """Twists of three cameras at random, the middle one held; then all are seen from the first."""
    rng = np.random.default_rng(0)
    poses = torch.stack([random_pose(rng) for _ in range(3)])
    root = rng.normal(size=(19, 19)) * 1e-3
    root[6:12] = 0
    twists = (rng.normal(size=(SAMPLES, 19)) @ root.T)[:, :18].reshape(SAMPLES, 3, 6)
    turn = torch.from_numpy(rotations(twists[..., 3:].reshape(-1, 3))).view(SAMPLES, 3, 3, 3)
    moved = rigid(turn @ poses[:, :3, :3], (turn @ poses[:, :3, 3:])[..., 0] + torch.from_numpy(twists[..., :3]))
    # The whole scene moved so that the first camera is where it was: what the others are off by then.
    beside = moved @ invert_rigid(moved[:, :1]) @ poses[0]
    claimed = covariance_beside_first(poses.numpy(), root @ root.T)
    assert np.abs(claimed[0]).max() < 1e-12
    for view in (1, 2):
        off = beside[:, view] @ invert_rigid(poses[view])
        turned = Rotation.from_matrix(off[:, :3, :3].numpy()).as_rotvec()
        shifted = beside[:, view, :3, 3] - (off[:, :3, :3] @ poses[view, :3, 3])
        expected = np.cov(np.concatenate([shifted.numpy(), turned], axis=1).T)
        size = np.sqrt(np.diag(expected))
        assert (np.abs(claimed[view] - expected) < 0.02 * np.outer(size, size)).all()


def test_what_was_not_registered_is_not_known() -> None:
    covariance = torch.full((3, 6, 6), torch.nan, dtype=torch.float64)
    covariance[1:] = 0
    claimed = covariance_in_map(quality(covariance, (False, True, True)), Similarity(), torch.eye(4).repeat(3, 1, 1))
    assert claimed[0].isnan().all() and claimed[1:].isfinite().all()
    nothing = quality(torch.full((3, 6, 6), torch.nan), (False,) * 3)
    assert covariance_in_map(nothing, Similarity(), torch.eye(4).repeat(3, 1, 1)).isnan().all()
