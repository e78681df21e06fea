"""Refined poses against the synthetic world's exact ones."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ff3r_model.core.geometry import invert_rigid, matrix_to_quaternion, quaternion_to_matrix, rigid
from ff3r_model.core.types import Cameras
from ff3r_model.slam.refinement.optical_flow import refine_cameras
from ff3r_model.synthetic import make_room, make_trajectory, pinhole, render

VIEWS, SIZE = 6, (84, 112)


def scene(seed: int) -> tuple[torch.Tensor, torch.Tensor, Cameras]:
    """Images, exact depth and exact cameras of a tour, the first camera being the world."""
    room = make_room(seed)
    poses = make_trajectory(room, seed, VIEWS, "robot", 0.12)
    intrinsics = pinhole(*SIZE, field_of_view=70.0).expand(VIEWS, 3, 3)
    views = render(room, poses, intrinsics, *SIZE)
    cameras = Cameras(invert_rigid(poses) @ poses[0], intrinsics)
    return views.images.permute(0, 3, 1, 2).float() / 255, views.depth, cameras


def degrees(estimated: Cameras, truth: Cameras) -> float:
    """Mean angle between the rotations."""
    relative = estimated.camera_from_world[:, :3, :3].mT @ truth.camera_from_world[:, :3, :3]
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).mean())


def centres(cameras: Cameras) -> torch.Tensor:
    return invert_rigid(cameras.camera_from_world)[:, :3, 3]


def shrunk(cameras: Cameras, share: float) -> Cameras:
    """What a timid network says: every pose only a share of the way from the identity."""
    quaternions = matrix_to_quaternion(cameras.camera_from_world[:, :3, :3])
    quaternions[:, 1:] *= share
    poses = rigid(quaternion_to_matrix(quaternions), share * cameras.camera_from_world[:, :3, 3])
    return replace(cameras, camera_from_world=poses)


def test_poses_that_are_too_small_grow_to_the_truth() -> None:
    for seed in (1, 2, 6):
        images, depth, truth = scene(seed)
        timid = shrunk(truth, 0.6)
        noisy = depth * (1 + 0.1 * torch.randn(depth.shape, generator=torch.Generator().manual_seed(seed)))
        refined = refine_cameras(images, noisy, timid, known_intrinsics=True).cameras
        assert degrees(refined, truth) < 0.4 * degrees(timid, truth)
        missed, before = ((centres(c) - centres(truth)).norm(dim=1).mean() for c in (refined, timid))
        assert missed < 0.65 * before


def test_a_wrong_focal_length_is_mended() -> None:
    images, depth, truth = scene(2)
    wrong = truth.intrinsics.clone()
    wrong[:, :2, :2] *= 1.2
    refined = refine_cameras(images, depth, replace(shrunk(truth, 0.8), intrinsics=wrong)).cameras
    error = (refined.intrinsics[:, 0, 0] / truth.intrinsics[:, 0, 0]).log().abs().max()
    assert error < 0.6 * math.log(1.2)
    kept = refine_cameras(images, depth, replace(truth, intrinsics=wrong), known_intrinsics=True).cameras
    assert torch.equal(kept.intrinsics, wrong)


def test_exact_poses_stay() -> None:
    images, depth, truth = scene(4)
    refined = refine_cameras(images, depth, truth).cameras
    assert degrees(refined, truth) < 0.4
    assert torch.equal(refined.camera_from_world[0], truth.camera_from_world[0])


def test_blank_images_leave_the_networks_poses_alone() -> None:
    _, depth, truth = scene(4)
    refined = refine_cameras(torch.full((VIEWS, 3, *SIZE), 0.5), depth, truth).cameras
    assert torch.allclose(refined.camera_from_world, truth.camera_from_world, atol=1e-5)
