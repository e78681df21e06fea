"""Evaluation figures against hand-computed cases and published libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from ff3r_model.core.geometry import invert_rigid, quaternion_to_matrix, rigid
from ff3r_model.evaluation.metrics import (
    align_scale,
    auc,
    commonest,
    confusion,
    depth_inliers,
    depth_rel,
    mean_iou,
    pair_errors,
    trajectory_error,
)


def test_depth_figures_ignore_scale_and_invalid_pixels() -> None:
    truth = torch.tensor([[[1.0, 2.0, 0.0, 4.0, 2.0]]])
    depth = torch.tensor([[[0.5, 1.0, 9.0, 2.0, 1.5]]])
    assert depth_rel(depth, truth) == pytest.approx(0.5 / 4)
    assert depth_inliers(depth, truth) == pytest.approx(3 / 4)


def turned(degrees: float, translation: tuple[float, float, float]) -> torch.Tensor:
    half = math.radians(degrees) / 2
    rotation = quaternion_to_matrix(torch.tensor([math.cos(half), 0.0, math.sin(half), 0.0]))
    return rigid(rotation, torch.tensor(translation, dtype=torch.float32))


def test_pair_error_is_the_larger_of_rotation_and_direction() -> None:
    truth = torch.stack([torch.eye(4), turned(0, (1, 0, 0))])
    assert pair_errors(torch.stack([torch.eye(4), turned(10, (3, 0, 0))]), truth)[0] == pytest.approx(10, abs=0.05)
    diagonal = torch.stack([torch.eye(4), turned(0, (1, 1, 0))])
    assert pair_errors(diagonal, truth)[0] == pytest.approx(45, abs=0.05)
    assert pair_errors(truth, truth)[0] == pytest.approx(0, abs=0.05)


def test_auc_counts_recall_in_one_degree_bins() -> None:
    assert auc(torch.tensor([0.5, 0.2]), 30) == 1
    assert auc(torch.tensor([100.0]), 30) == 0
    assert auc(torch.tensor([0.5, 100.0]), 30) == pytest.approx(0.5)
    assert auc(torch.tensor([14.5]), 30) == pytest.approx(16 / 30)


def test_mean_iou_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(3)
    labels, truth = (torch.randint(0, 5, (400,), generator=generator) for _ in range(2))
    published = MulticlassJaccardIndex(num_classes=5, average="macro")(labels, truth)
    value, present = mean_iou(confusion(labels, truth, 5))
    assert value == pytest.approx(float(published), abs=1e-6) and present == 5


def test_absent_classes_do_not_count_and_unknown_truth_is_left_out() -> None:
    truth = torch.tensor([0, 0, 1, -1])
    labels = torch.tensor([0, 2, 1, 1])
    assert mean_iou(confusion(labels, truth, 3)) == (pytest.approx((0.5 + 1) / 2), 2)


def test_least_squares_scale_agrees_with_numpy() -> None:
    generator = torch.Generator().manual_seed(1)
    depth, truth = (torch.rand(2, 3, 4, generator=generator) + 0.5 for _ in range(2))
    truth[0, 0] = 0
    known = truth > 0
    wanted = np.linalg.lstsq(depth[known].numpy()[:, None].astype(float), truth[known].numpy(), rcond=None)[0][0]
    assert align_scale(depth, truth, "least_squares") == pytest.approx(float(wanted), rel=1e-6)


def walk(views: int, seed: int) -> torch.Tensor:
    """camera_from_world of cameras anywhere."""
    generator = torch.Generator().manual_seed(seed)
    rotation = quaternion_to_matrix(torch.randn(views, 4, generator=generator))
    return rigid(rotation, torch.randn(views, 3, generator=generator))


def umeyama_rmse(points: np.ndarray, truth: np.ndarray) -> float:
    """Brute force, from the 1991 paper: the least root mean square distance over all similarities."""
    x, y = points - points.mean(0), truth - truth.mean(0)
    u, d, vt = np.linalg.svd(y.T @ x / len(x))
    sign = np.diag([1, 1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    scale = np.trace(np.diag(d) @ sign) / (x**2).sum(1).mean()
    return float(np.sqrt(((scale * x @ (u @ sign @ vt).T - y) ** 2).sum(1).mean()))


def test_trajectory_error_is_what_remains_after_the_best_similarity() -> None:
    truth, guess = walk(6, 1), walk(6, 2)
    centres = [invert_rigid(poses)[:, :3, 3].double().numpy() for poses in (guess, truth)]
    assert trajectory_error(guess, truth) == pytest.approx(umeyama_rmse(*centres), rel=1e-5)
    turned_world = turned(40, (1, 2, 3))
    moved = truth @ turned_world
    moved[:, :3, 3] *= 2.5
    assert trajectory_error(moved, truth) == pytest.approx(0, abs=1e-5)


def test_no_trajectory_error_where_no_similarity_is_determined() -> None:
    assert trajectory_error(walk(2, 1), walk(2, 2)) is None


def test_the_commonest_class_as_a_predictor() -> None:
    truth = torch.tensor([0, 1, 1, 1, 2, -1])
    labels = torch.tensor([2, 2, 0, 1, 0, 0])
    always = confusion(torch.ones_like(truth), truth, 3)
    assert torch.equal(commonest(confusion(labels, truth, 3)), always)
