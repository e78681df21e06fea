"""Transforms against SciPy and plain matrices in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import (
    BODY_FROM_OPTICAL,
    anchored,
    apply_similarity,
    compose,
    invert_rigid,
    invert_similarity,
    matrix_to_quaternion,
    nearest_rotation,
    pixel_grid,
    project,
    quaternion_multiply,
    quaternion_to_matrix,
    rigid,
    transform_points,
    transform_pose,
    umeyama,
    unproject,
)
from ff3r_model.core.types import Similarity

SEEDS = st.integers(0, 100_000)


def rotations(seed: int, count: int) -> Rotation:
    return Rotation.random(count, random_state=seed)


def wxyz(rotation: Rotation) -> torch.Tensor:
    return torch.tensor(rotation.as_quat()[..., [3, 0, 1, 2]])


def similarity(seed: int) -> Similarity:
    rng = np.random.default_rng(seed)
    return Similarity(
        float(rng.uniform(0.1, 10)), torch.tensor(rotations(seed, 1).as_matrix()[0]), torch.tensor(rng.normal(size=3))
    )


def matrix(transform: Similarity) -> torch.Tensor:
    result = torch.eye(4, dtype=torch.float64)
    result[:3, :3] = transform.scale * transform.rotation
    result[:3, 3] = transform.translation
    return result


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_quaternions_and_matrices_agree_with_scipy(seed: int) -> None:
    turns = rotations(seed, 20)
    np.testing.assert_allclose(quaternion_to_matrix(3 * wxyz(turns)), turns.as_matrix(), atol=1e-12)
    found = matrix_to_quaternion(torch.tensor(turns.as_matrix()))
    assert (found[:, 0] >= 0).all()
    np.testing.assert_allclose(torch.linalg.vecdot(found, wxyz(turns)).abs(), 1, atol=1e-12)


def test_half_turns_are_well_conditioned() -> None:
    """Where w = 0 the usual formula divides by nothing."""
    axes = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)
    turns = Rotation.from_rotvec(np.pi * axes.numpy())
    found = matrix_to_quaternion(torch.tensor(turns.as_matrix()))
    np.testing.assert_allclose(quaternion_to_matrix(found), turns.as_matrix(), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(first=SEEDS, second=SEEDS)
def test_products(first: int, second: int) -> None:
    a, b = rotations(first, 5), rotations(second, 5)
    product = quaternion_multiply(wxyz(a), wxyz(b))
    np.testing.assert_allclose(quaternion_to_matrix(product), (a * b).as_matrix(), atol=1e-12)
    one, two = similarity(first), similarity(second)
    torch.testing.assert_close(matrix(compose(one, two)), matrix(one) @ matrix(two))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_inverses(seed: int) -> None:
    transform = similarity(seed)
    torch.testing.assert_close(matrix(invert_similarity(transform)), matrix(transform).inverse())
    poses = rigid(torch.tensor(rotations(seed, 4).as_matrix()), torch.randn(4, 3, dtype=torch.float64))
    torch.testing.assert_close(invert_rigid(poses) @ poses, torch.eye(4, dtype=torch.float64).expand(4, 4, 4))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, factor=st.floats(0.1, 10))
def test_applying_a_similarity(seed: int, factor: float) -> None:
    transform = similarity(seed)
    points = torch.randn(7, 3, dtype=torch.float64)
    homogeneous = torch.cat([points, torch.ones(7, 1, dtype=torch.float64)], dim=1) @ matrix(transform).T
    torch.testing.assert_close(apply_similarity(transform, points), homogeneous[:, :3])
    scaled = compose(Similarity(factor, torch.eye(3).double(), torch.zeros(3).double()), transform)
    torch.testing.assert_close(apply_similarity(scaled, points), factor * homogeneous[:, :3])


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_moved_poses_see_moved_points_alike(seed: int) -> None:
    """A point in a moved camera's frame is the point in the camera's frame before, but for the scale."""
    transform = similarity(seed)
    pose = rigid(torch.tensor(rotations(seed + 1, 1).as_matrix()), torch.randn(1, 3, dtype=torch.float64))
    points = torch.randn(1, 9, 3, dtype=torch.float64)
    before = transform_points(invert_rigid(pose), points)
    after = transform_points(invert_rigid(transform_pose(transform, pose)), apply_similarity(transform, points))
    torch.testing.assert_close(after, transform.scale * before)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=SEEDS)
def test_projection_undoes_unprojection(height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    focal = 5 + 20 * torch.rand(2, 2, generator=generator, dtype=torch.float64)
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    intrinsics[:, [0, 1], [0, 1]] = focal
    intrinsics[:, :2, 2] = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    depth = 0.1 + torch.rand(2, height, width, generator=generator, dtype=torch.float64)
    pixels, found = project(unproject(depth, intrinsics).flatten(1, 2), intrinsics)
    torch.testing.assert_close(found, depth.flatten(1))
    expected = [[column + 0.5, row + 0.5] for row in range(height) for column in range(width)]
    np.testing.assert_allclose(pixels, np.array([expected, expected]), atol=1e-9)
    assert pixel_grid(height, width, depth)[-1, -1].tolist() == [width - 0.5, height - 0.5]


def test_points_behind_and_in_the_camera_do_not_divide_by_nothing() -> None:
    points = torch.tensor([[[0.0, 0, 0], [1, 1, -1], [0, 0, 1e-12]]])
    pixels, depth = project(points, torch.eye(3)[None])
    assert torch.isfinite(pixels).all()
    assert depth[0].tolist() == [0, -1, np.float32(1e-12)]


def test_body_axes_are_forward_left_up() -> None:
    forward, left, up = [0.0, 0, 1], [-1.0, 0, 0], [0.0, -1, 0]
    torch.testing.assert_close(torch.tensor([forward, left, up]) @ BODY_FROM_OPTICAL.T, torch.eye(3))
    assert float(torch.det(BODY_FROM_OPTICAL)) == 1.0


def test_anchored_cameras_see_what_they_saw() -> None:
    poses = rigid(torch.tensor(rotations(3, 5).as_matrix()), torch.randn(5, 3, dtype=torch.float64))
    found = anchored(poses)
    assert found[0].equal(torch.eye(4, dtype=torch.float64))
    for view in range(5):
        torch.testing.assert_close(found[view], poses[view] @ poses[0].inverse())


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_the_nearest_rotation_is_scipys(seed: int) -> None:
    """Nearest in the Frobenius norm is what SciPy's align_vectors maximises, with the matrix as its covariance."""
    matrix = torch.tensor(np.random.default_rng(seed).normal(size=(3, 3)))
    expected = Rotation.align_vectors(matrix.T.numpy(), np.eye(3))[0].as_matrix()
    found = nearest_rotation(matrix)
    assert float(torch.det(found)) == pytest.approx(1)
    nearest, other = ((matrix - torch.as_tensor(each)).norm() for each in (found, expected))
    assert float(nearest) == pytest.approx(float(other), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.integers(4, 200))
def test_umeyama_recovers_an_exact_similarity(seed: int, count: int) -> None:
    true = similarity(seed)
    source = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)).double()
    found = umeyama(source, apply_similarity(true, source))
    assert found.scale == pytest.approx(true.scale, rel=1e-5)
    torch.testing.assert_close(found.rotation, true.rotation.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.translation, true.translation.double(), atol=1e-4, rtol=0)


def test_umeyama_is_least_squares() -> None:
    """Rotation against SciPy's solver of the same problem; no nearby similarity has a smaller error."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(100, 3, generator=generator).double()
    target = apply_similarity(similarity(4), source) + 0.1 * torch.randn(100, 3, generator=generator)
    weights = torch.rand(100, generator=generator).double()
    found = umeyama(source, target, weights)

    def centred(points: torch.Tensor) -> np.ndarray:
        return (points - (weights[:, None] * points).sum(0) / weights.sum()).numpy()

    expected = Rotation.align_vectors(centred(target), centred(source), weights=weights.numpy())[0].as_matrix()
    np.testing.assert_allclose(found.rotation, expected, atol=1e-8)

    def cost(candidate: Similarity) -> float:
        return float((weights * (apply_similarity(candidate, source) - target).square().sum(1)).sum())

    for factor in (0.999, 1.001):
        assert cost(replace(found, scale=found.scale * factor)) > cost(found)
    for axis in range(3):
        assert cost(replace(found, translation=found.translation + 0.001 * torch.eye(3)[axis].double())) > cost(found)


def test_umeyama_never_mirrors() -> None:
    source = torch.randn(50, 3, generator=torch.Generator().manual_seed(3))
    found = umeyama(source, source * torch.tensor([1.0, 1.0, -1.0]))
    assert float(torch.det(found.rotation)) == pytest.approx(1, abs=1e-4)
