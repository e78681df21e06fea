"""Supervised losses: zero at the truth, and equal to slow float64 versions elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from ff3r_model.core.geometry import field_of_view, invert_rigid, matrix_to_quaternion, quaternion_to_matrix, rigid
from ff3r_model.training.datasets.room_views import RoomWindow
from ff3r_model.training.objectives.camera_losses import (
    MIN_BASELINE,
    CameraContext,
    FieldOfViewLoss,
    PairLoss,
    RotationLoss,
    TranslationLoss,
    pair_loss,
)
from ff3r_model.training.objectives.dense_losses import at_pixels, balanced_pixels, log_depth_loss, phrase_loss
from ff3r_model.training.objectives.patch_matching import flow_loss, matching_loss, patch_matches, patch_points

HEIGHT, WIDTH, PATCH = 28, 42, 14


def plane_scene(views: int = 3) -> RoomWindow:
    """Cameras that look at the plane z = 4 of the first camera from different places."""
    generator = torch.Generator().manual_seed(5)
    tilt = 0.05 * torch.randn(views, 3, generator=generator)
    rotation = quaternion_to_matrix(torch.cat([torch.ones(views, 1), tilt], dim=-1))
    pose = rigid(rotation, 0.4 * torch.randn(views, 3, generator=generator))
    pose[0] = torch.eye(4)
    intrinsics = torch.tensor([[40.0, 0, WIDTH / 2], [0, 40.0, HEIGHT / 2], [0, 0, 1]]).expand(1, views, 3, 3)
    v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    rays = torch.stack([(u - WIDTH / 2) / 40, (v - HEIGHT / 2) / 40, torch.ones_like(u)], dim=-1)
    directions = rays @ pose[:, None, :3, :3].transpose(-1, -2)
    depth = (4 - pose[:, 2, 3, None, None]) / directions[..., 2]
    empty = torch.zeros(1, views, HEIGHT, WIDTH, dtype=torch.int64)
    images = torch.zeros(1, views, 3, HEIGHT, WIDTH)
    return RoomWindow(images, depth[None], invert_rigid(pose)[None], intrinsics, empty, empty, torch.ones(1))


def encoding(truth: RoomWindow) -> torch.Tensor:
    wxyz = matrix_to_quaternion(truth.camera_from_world[..., :3, :3])
    fov = field_of_view(truth.intrinsics, HEIGHT, WIDTH)
    return torch.cat([truth.camera_from_world[..., :3, 3], wxyz[..., [1, 2, 3, 0]], fov], dim=-1)[None]


def test_camera_losses_vanish_at_the_truth_whatever_the_quaternions_sign() -> None:
    truth = plane_scene()
    right = encoding(truth)
    for sign in (1.0, -1.0):
        scaled = right.clone()
        scaled[..., 3:7] *= sign
        context = CameraContext(scaled.repeat(4, 1, 1, 1), truth)
        losses = (kind(1.0, gamma=0.6) for kind in (PairLoss, RotationLoss, TranslationLoss, FieldOfViewLoss))
        terms = {loss.name: float(loss(context)) for loss in losses}
        assert len(terms) == 4 and all(term < 2e-3 for term in terms.values()), terms


def test_rotation_loss_grows_with_the_angle() -> None:
    truth = plane_scene(2)
    half = math.radians(20) / 2
    wrong = encoding(truth)
    turn = quaternion_to_matrix(torch.tensor([math.cos(half), 0, 0, math.sin(half)]))
    wxyz = matrix_to_quaternion(turn @ truth.camera_from_world[..., :3, :3])
    wrong[0, ..., 3:7] = wxyz[..., [1, 2, 3, 0]]
    chordal = 2 * math.sqrt(2) * math.sin(half)
    assert float(RotationLoss(1.0, 0.6)(CameraContext(wrong, truth))) == pytest.approx(chordal, rel=1e-3)


def test_pair_loss_is_the_mean_over_pairs_of_matrix_products_in_float64() -> None:
    truth = plane_scene(4).camera_from_world
    guess = plane_scene(4).camera_from_world.clone()
    guess[0, 2, :3, 3] += torch.tensor([0.1, -0.2, 0.05])
    guess[0, 3, :3, :3] = guess[0, 1, :3, :3]
    errors = []
    for i in range(4):
        for j in range(4):
            if i != j:
                right, said = (p[0, j].double() @ torch.linalg.inv(p[0, i].double()) for p in (truth, guess))
                length = right[:3, 3].norm()
                errors.append((said[:3, 3] - right[:3, 3]).norm() / (length + MIN_BASELINE))
    found = pair_loss(guess[None, ..., :3, :3], guess[None, ..., :3, 3], truth)
    assert float(found) == pytest.approx(float(sum(errors) / 12), rel=1e-4)


def test_depth_losses_match_a_loop_in_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(1, 1, 3, 4, generator=generator) + 0.5
    truth[0, 0, 1, 2] = 0
    depth, confidence = (torch.rand(1, 1, 3, 4, generator=generator) + 0.5 for _ in range(2))
    total = 0.0
    for row in range(3):
        for column in range(4):
            t, d, c = (float(x[0, 0, row, column]) for x in (truth, depth, confidence))
            if t > 0:
                total += c * abs(math.log(d / t)) - 0.1 * math.log(c)
    assert float(log_depth_loss(depth, confidence, truth, 0.1)) == pytest.approx(total / 12, rel=1e-5)


def test_patch_matches_reproject_onto_the_plane() -> None:
    truth = plane_scene()
    matches, visible = patch_matches(truth, PATCH)
    rows, columns = HEIGHT // PATCH, WIDTH // PATCH
    assert visible.any() and matches.shape == (1, 3, 3, rows * columns, 2)
    identity = torch.stack([torch.tensor([c + 0.5, r + 0.5]) for r in range(rows) for c in range(columns)])
    own = torch.stack([matches[0, v, v] for v in range(3)])
    assert torch.allclose(own, identity.expand_as(own), atol=0.05), "a patch matches itself (its centre pixel)"
    world = invert_rigid(truth.camera_from_world[0].double())
    camera = truth.intrinsics[0, 0].double()
    row, column = PATCH // 2, PATCH // 2
    ray = torch.linalg.solve(camera, torch.tensor([column + 0.5, row + 0.5, 1.0], dtype=torch.float64))
    point = world[1, :3, :3] @ (ray * truth.depth[0, 1, row, column].double()) + world[1, :3, 3]
    there = truth.camera_from_world[0, 2].double() @ torch.cat([point, torch.ones(1)])
    pixel = (camera @ there[:3])[:2] / there[2] / PATCH
    assert torch.allclose(matches[0, 1, 2, 0].double(), pixel, atol=1e-4)


def test_matching_loss_prefers_the_known_match() -> None:
    truth = plane_scene()
    matches, visible = patch_matches(truth, PATCH)
    grid = (HEIGHT // PATCH, WIDTH // PATCH)
    cells = torch.tensor([[c + 0.5, r + 0.5] for r in range(grid[0]) for c in range(grid[1])])
    distance = (matches.permute(0, 1, 3, 2, 4)[..., None, :] - cells).square().sum(-1)
    losses = [
        float(matching_loss((sign * 4 * distance).log_softmax(-1), matches, visible, grid)) for sign in (-1, 0, 1)
    ]
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] == pytest.approx(math.log(cells.shape[0]), rel=1e-4), "uniform attention"


def test_flow_loss_counts_only_patches_that_the_first_view_sees() -> None:
    truth = plane_scene()
    matches, visible = patch_matches(truth, PATCH)
    predicted = matches[:, :, 0].clone()
    assert float(flow_loss(predicted, matches, visible)) == pytest.approx(0, abs=1e-6)
    predicted[0, 1][~visible[0, 1, 0]] += 100
    predicted[0, 0] += 100
    assert float(flow_loss(predicted, matches, visible)) == pytest.approx(0, abs=1e-6)
    predicted[0, 1][visible[0, 1, 0]] += 1
    assert float(flow_loss(predicted, matches, visible)) > 0


def test_phrase_loss_ignores_unlabelled_pixels() -> None:
    targets = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    features = torch.cat([targets * 3, torch.randn(2, 8)])
    labels = torch.tensor([0, 1, 2, 3, 4, -1, -1])
    assert float(phrase_loss(features, labels, targets, 0.02)) < 1e-3
    assert float(phrase_loss(features, (labels + 1) % 5, targets, 0.02)) > 1


def test_patch_points_lie_on_the_plane() -> None:
    points = patch_points(plane_scene(), PATCH)
    assert torch.allclose(points[..., 2], torch.full_like(points[..., 2], 4.0), atol=1e-4)


def test_balanced_pixels_draw_small_things_more_than_evenly() -> None:
    torch.manual_seed(0)
    classes = torch.zeros(1, 1000, dtype=torch.int64)
    classes[0, :10] = 3
    drawn = classes[0][balanced_pixels(classes, 20_000, 5)[0]]
    expected = 10 / 10**0.5 / (10 / 10**0.5 + 990 / 990**0.5)
    assert float((drawn == 3).float().mean()) == pytest.approx(expected, abs=0.01)


def test_features_at_pixels_are_those_of_the_enlarged_map() -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 5, 7, 9, generator=generator, dtype=torch.float64).float()
    picks = torch.randint(0, HEIGHT * WIDTH, (2, 50), generator=generator)
    enlarged = torch.nn.functional.interpolate(features, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    expected = enlarged.flatten(2).gather(2, picks[:, None].expand(-1, 5, -1)).transpose(1, 2)
    assert torch.allclose(at_pixels(features, picks, (HEIGHT, WIDTH)), expected, atol=1e-5)
    full = torch.randn(2, 5, HEIGHT, WIDTH, generator=generator)
    exact = full.flatten(2).gather(2, picks[:, None].expand(-1, 5, -1)).transpose(1, 2)
    assert torch.allclose(at_pixels(full, picks, (HEIGHT, WIDTH)), exact, atol=1e-4)
