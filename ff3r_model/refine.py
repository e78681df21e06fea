"""Poses refined by optical flow: each view against the one before it, through the depth that the network predicts.

Not in the paper, and off for a network that does not need it: a small network's rotations come out too small, and such
an error adds up from window to window. The network's own cameras and depth say where every pixel should have gone;
dense flow, started there, says where it went; PnP over all pixels says which camera explains that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ff3r_model.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.types import Cameras


@dataclass(frozen=True)
class RefineConfig:
    """All ours."""

    stride: int = 3
    """Every so many pixels along each axis become a correspondence."""
    agreement: float = 1.0
    """Pixels by which flow there and back may miss its start."""
    inlier: float = 1.5
    """Pixels by which a correspondence may miss its reprojection."""
    min_inliers: float = 0.35
    """Least share of the correspondences; below it the network's own pose stays."""
    min_matches: int = 60
    contrast: float = 4.0
    """Correspondences start where the image's gradient (of 0–255, per pixel) is at least this: flow on blank walls is
    made up."""


def refine_cameras(
    images: Float[Tensor, "views 3 h w"],
    depth: Float[Tensor, "views h w"],
    cameras: Cameras,
    config: RefineConfig | None = None,
) -> Cameras:
    """Cameras whose relative poses, each view to the next in the given order, follow the images' optical flow.

    The first camera stays; a pair without enough agreeing pixels keeps the network's relative pose.
    """
    config = config or RefineConfig()
    gray = [_gray(image) for image in images]
    poses = cameras.camera_from_world.cpu().double()
    refined = [poses[0]]
    for view in range(1, len(gray)):
        guess = poses[view] @ invert_rigid(poses[view - 1])
        intrinsics = cameras.intrinsics[view - 1 : view + 1].cpu().double()
        relative = _relative_pose(gray[view - 1], gray[view], depth[view - 1].cpu().double(), intrinsics, guess, config)
        refined.append((guess if relative is None else relative) @ refined[-1])
    return replace(cameras, camera_from_world=torch.stack(refined).to(cameras.camera_from_world))


def _gray(image: Float[Tensor, "3 h w"]) -> ndarray:
    return (image.float().mean(0) * 255).clamp(0, 255).byte().cpu().numpy()


def _relative_pose(
    before: ndarray,
    after: ndarray,
    depth: Float[Tensor, "h w"],
    intrinsics: Float[Tensor, "2 3 3"],
    guess: Float[Tensor, "4 4"],
    config: RefineConfig,
) -> Float[Tensor, "4 4"] | None:
    """after_from_before by PnP, or None where too few pixels agree."""
    points = unproject(depth, intrinsics[0])
    source, target = _correspondences(before, after, _expected_flow(points, intrinsics[1], guess), config)
    if len(source) < config.min_matches:
        return None
    space = points.numpy()[source[:, 1], source[:, 0]]
    rotation, _ = cv2.Rodrigues(guess[:3, :3].numpy())
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        space, target, intrinsics[1].numpy(), None, rotation, guess[:3, 3:].numpy().copy(),
        useExtrinsicGuess=True, iterationsCount=100, reprojectionError=config.inlier, flags=cv2.SOLVEPNP_ITERATIVE,
    )  # fmt: skip
    if not found or inliers is None or len(inliers) < config.min_inliers * len(source):
        return None
    chosen = inliers[:, 0]
    rotation, translation = cv2.solvePnPRefineLM(
        space[chosen], target[chosen], intrinsics[1].numpy(), None, rotation, translation
    )
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.from_numpy(cv2.Rodrigues(rotation)[0])
    pose[:3, 3] = torch.from_numpy(translation[:, 0])
    return pose


def _expected_flow(
    points: Float[Tensor, "h w 3"], intrinsics: Float[Tensor, "3 3"], guess: Float[Tensor, "4 4"]
) -> ndarray:
    """Where the network's depth and poses send each pixel, minus where it is."""
    height, width = points.shape[:2]
    pixels, z = project(transform_points(guess, points.flatten(0, 1)), intrinsics)
    own, _ = project(points.flatten(0, 1), intrinsics)
    flow = torch.where((z > 1e-3)[:, None], pixels - own, torch.zeros_like(pixels))
    limit = float(max(height, width))
    return flow.clamp(-limit, limit).view(height, width, 2).float().numpy()


def _correspondences(
    before: ndarray, after: ndarray, expected: ndarray, config: RefineConfig
) -> tuple[ndarray, ndarray]:
    """Pixels (column, row) of the first image and where flow finds them (u, v) in the second."""
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward = method.calc(before, after, expected.copy())
    backward = method.calc(after, before, -expected)
    height, width = before.shape
    rows, columns = (
        grid.ravel() for grid in np.mgrid[1 : height - 1 : config.stride, 1 : width - 1 : config.stride]
    )
    moved = forward[rows, columns]
    target = np.stack([columns, rows], axis=1) + moved
    inside = ((target >= 0) & (target <= [width - 1, height - 1])).all(axis=1)
    nearest = np.clip(target.round().astype(int), 0, [width - 1, height - 1])
    back = moved + backward[nearest[:, 1], nearest[:, 0]]
    gradient = np.hypot(cv2.Sobel(before, cv2.CV_32F, 1, 0), cv2.Sobel(before, cv2.CV_32F, 0, 1)) / 8
    good = inside & (np.linalg.norm(back, axis=1) < config.agreement) & (gradient[rows, columns] >= config.contrast)
    source = np.stack([columns, rows], axis=1)[good]
    return source, target[good].astype(np.float64) + 0.5
