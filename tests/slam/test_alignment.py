"""Alignment against exact geometry: known similarities, noise, outliers, degenerate clouds, floors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import (
    BODY_FROM_OPTICAL,
    apply_similarity,
    compose,
    invert_rigid,
    invert_similarity,
    rigid,
    transform_points,
    unproject,
)
from ff3r_model.core.node import Node
from ff3r_model.core.robust import robust_mean_rotation, weighted_median
from ff3r_model.core.types import Cameras, Gaussians, Prediction, Similarity, SparsePoints, Window
from ff3r_model.slam.alignment import (
    AlignConfig,
    DegenerateError,
    align_window,
    check_spread,
    map_from_first_camera,
)
from ff3r_model.slam.placed_frames import PlacedFrames

SIDE = 24
INTRINSICS = torch.tensor([[24.0, 0, 12], [0, 24, 12], [0, 0, 1]])


def similarity(seed: int) -> Similarity:
    rng = np.random.default_rng(seed)
    rotation = torch.tensor(Rotation.random(random_state=seed).as_matrix(), dtype=torch.float32)
    return Similarity(float(rng.uniform(0.2, 5)), rotation, torch.tensor(rng.normal(size=3), dtype=torch.float32))


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    """Degrees between rotations."""
    return float(np.degrees(Rotation.from_matrix((a.double().T @ b.double()).numpy()).magnitude()))


@pytest.mark.parametrize(
    "source",
    [torch.zeros(0, 3), torch.randn(2, 3), torch.ones(10, 3), torch.arange(10.0)[:, None] * torch.tensor([1.0, 2, 3])],
    ids=["none", "two", "one spot", "one line"],
)
def test_degenerate_points_are_refused(source: torch.Tensor) -> None:
    with pytest.raises(DegenerateError, match="points"):
        check_spread(source, torch.ones(len(source)))


def test_weighted_median_and_robust_mean_rotation() -> None:
    assert float(weighted_median(torch.tensor([5.0, 1.0, 3.0]), torch.tensor([1.0, 1.0, 10.0]))) == 3.0
    assert float(weighted_median(torch.tensor([5.0, 1.0, 3.0]), torch.ones(3))) == 3.0
    turns = torch.tensor(Rotation.from_rotvec([[0, 0, 0.1], [0, 0, 0.1], [0, 0.01, 0.1], [2, 0, 0]]).as_matrix())
    assert angle(robust_mean_rotation(turns), turns[0]) < 1.0


def room_depth(world_from_camera: torch.Tensor) -> torch.Tensor:
    """Exact depth of a box room of 6 × 4 × 2.5 around the origin."""
    low, high = torch.tensor([-3.0, -2.0, -1.2]), torch.tensor([3.0, 2.0, 1.3])
    rays = unproject(torch.ones(len(world_from_camera), SIDE, SIDE), INTRINSICS.expand(len(world_from_camera), 3, 3))
    directions = torch.einsum("vij,vhwj->vhwi", world_from_camera[:, :3, :3], rays)
    centres = world_from_camera[:, None, None, :3, 3]
    return (torch.where(directions > 0, high - centres, low - centres) / directions).amin(-1)


def walk(views: int, yaw: float) -> torch.Tensor:
    """world_from_camera of a robot that turns as it goes."""
    turns = torch.tensor(
        Rotation.from_euler("z", (yaw + 0.12 * np.arange(views))[:, None]).as_matrix(), dtype=torch.float32
    )
    places = torch.tensor([[-1 + 0.12 * i, 0.2 * math.sin(i), 0.0] for i in range(views)])
    return rigid(turns @ BODY_FROM_OPTICAL, places)


def prediction(
    world_from_camera: torch.Tensor, scale: float, seed: int = 0, noise: float = 0.0, outliers: float = 0.0
) -> Prediction:
    """What a network would say of these views: `noise` 1 is 3 % depth noise, 5 % smooth bias and 1° pose noise."""
    generator = torch.Generator().manual_seed(seed)
    depth = room_depth(world_from_camera)
    coarse = torch.randn(len(depth), 1, 4, 4, generator=generator)
    bias = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=True)[:, 0]
    grain = torch.randn(depth.shape, generator=generator)
    depth = depth * (1 + noise * (0.03 * grain + 0.05 * bias / bias.std()))
    wild = torch.rand(depth.shape, generator=generator) < outliers
    depth = torch.where(wild, depth * (0.3 + 2 * torch.rand(depth.shape, generator=generator)), depth)
    vectors = torch.randn(len(depth), 3, generator=generator).numpy() * noise * math.radians(1) / math.sqrt(3)
    turns = torch.tensor(Rotation.from_rotvec(vectors).as_matrix(), dtype=torch.float32)
    poses = rigid(world_from_camera[:, :3, :3] @ turns, world_from_camera[:, :3, 3])
    first_from_camera = invert_rigid(poses[:1]) @ poses
    first_from_camera[:, :3, 3] *= scale
    intrinsics = INTRINSICS.expand(len(depth), 3, 3)
    points = transform_points(first_from_camera, unproject(depth * scale, intrinsics).flatten(1, 2)).flatten(0, 1)
    count = len(points)
    gaussians = Gaussians(
        points, torch.ones(count, 3), torch.ones(count, 4) / 2, torch.zeros(count, 1, 3),
        torch.ones(count), torch.zeros(count), torch.zeros(count, 2),
    )  # fmt: skip
    return Prediction(
        Cameras(invert_rigid(first_from_camera), intrinsics), depth * scale, torch.full_like(depth, 2.0), gaussians
    )


def window(first: int, views: int) -> Window:
    frames = tuple(range(first, first + views))
    return Window(torch.zeros(views, 3, SIDE, SIDE), frames, frames)


def two_windows(
    seed: int, noise: float, outliers: float, overlap: int = 4
) -> tuple[PlacedFrames, Prediction, Window, Similarity]:
    """A window in a map of its own scale, the next one, and the true map_from_window of the next."""
    poses = walk(16 - overlap, yaw=seed * 0.7)
    start = 8 - overlap
    first, second = poses[:8], poses[start : start + 8]
    placed = replace(map_from_first_camera(), scale=0.5)
    shared = PlacedFrames.of(prediction(first, 0.7, seed, noise, outliers), window(0, 8), Node(0, placed))
    relative = invert_rigid(first[:1]) @ second[:1]
    first_from_second = Similarity(0.7 / 1.3, relative[0, :3, :3], 0.7 * relative[0, :3, 3])
    return (
        shared,
        prediction(second, 1.3, seed + 100, noise, outliers),
        window(start, 8),
        compose(placed, first_from_second),
    )


@pytest.mark.parametrize("overlap", [1, 4])
def test_exact_windows_are_joined_exactly(overlap: int) -> None:
    shared, predicted, views, true = two_windows(0, 0.0, 0.0, overlap)
    alignment = align_window(predicted, views, shared)
    assert alignment.accepted
    assert alignment.reason == ""
    assert alignment.inlier_share == pytest.approx(1)
    assert alignment.rms < 1e-4
    assert alignment.map_from_window.scale == pytest.approx(true.scale, rel=1e-4)
    torch.testing.assert_close(alignment.map_from_window.rotation, true.rotation, atol=1e-4, rtol=0)
    torch.testing.assert_close(alignment.map_from_window.translation, true.translation, atol=1e-4, rtol=0)


def test_noisy_windows() -> None:
    errors: list[tuple[float, float]] = []
    for seed in range(12):
        shared, predicted, views, true = two_windows(seed, 1.0, 0.05)
        alignment = align_window(predicted, views, shared)
        assert alignment.accepted, alignment.reason
        scale = abs(alignment.map_from_window.scale / true.scale - 1)
        errors.append((scale, angle(alignment.map_from_window.rotation, true.rotation)))
    scale, degrees = np.sqrt(np.square(errors).mean(axis=0))
    assert scale < 0.03
    assert degrees < 2.0


def test_thirty_percent_outliers() -> None:
    shared, predicted, views, true = two_windows(1, 0.0, 0.3)
    alignment = align_window(predicted, views, shared, AlignConfig(min_inliers=0.3))
    assert alignment.accepted
    assert alignment.map_from_window.scale == pytest.approx(true.scale, rel=0.01)
    assert angle(alignment.map_from_window.rotation, true.rotation) < 0.5
    assert (alignment.map_from_window.translation - true.translation).norm() < 0.02


def test_uncertain_pixels_are_dropped() -> None:
    shared, predicted, views, true = two_windows(2, 0.0, 0.0)
    depth, confidence = predicted.depth.clone(), predicted.depth_confidence.clone()
    depth[:, :8] *= 5
    confidence[:, :8] = 0.1
    alignment = align_window(replace(predicted, depth=depth, depth_confidence=confidence), views, shared)
    assert alignment.inlier_share == pytest.approx(1)
    assert alignment.map_from_window.scale == pytest.approx(true.scale, rel=1e-4)


def test_fixed_scale() -> None:
    shared, predicted, views, _ = two_windows(3, 0.0, 0.0)
    assert align_window(predicted, views, shared, AlignConfig(fixed_scale=True)).map_from_window.scale == 1.0


def test_a_known_scale_is_kept_and_the_rest_fitted() -> None:
    shared, predicted, views, true = two_windows(3, 0.0, 0.0)
    alignment = align_window(predicted, views, shared, scale=true.scale)
    assert alignment.map_from_window.scale == true.scale and alignment.rms < 1e-4
    off = align_window(predicted, views, shared, scale=0.3 * true.scale)
    assert off.map_from_window.scale == 0.3 * true.scale and not off.accepted


def test_rejections_have_reasons() -> None:
    shared, predicted, views, _ = two_windows(4, 0.0, 0.0)
    assert "no keyframe" in align_window(predicted, window(50, 8), shared).reason
    smaller = replace(shared, node_depth=shared.node_depth[:, ::2], confidence=shared.confidence[:, ::2])
    assert "(12, 24)" in align_window(predicted, views, smaller).reason
    empty = replace(predicted, depth=predicted.depth * math.nan)
    assert "pixels" in align_window(empty, views, shared).reason
    collapsed = replace(predicted, depth=predicted.depth * 1e-30)
    assert not align_window(collapsed, views, shared).accepted
    noise = torch.randn(predicted.depth.shape, generator=torch.Generator().manual_seed(0)).mul(1.5).exp()
    scrambled = replace(predicted, depth=predicted.depth * noise)
    verdict = align_window(scrambled, views, shared)
    assert not verdict.accepted
    assert "%" in verdict.reason


def test_placed_frames_move_with_their_node() -> None:
    shared, *_ = two_windows(5, 0.0, 0.0)
    before = shared.points
    torch.testing.assert_close(shared.transformed(Similarity(2.5)).points, before * 2.5)
    torch.testing.assert_close(shared.points, before)
    shared.node.transform(Similarity(2.5))
    torch.testing.assert_close(shared.points, before * 2.5)


def test_map_frame_is_the_first_camera_turned_upright() -> None:
    forward, right, down = torch.eye(3)[[2, 0, 1]]
    turned = apply_similarity(map_from_first_camera(), torch.stack([forward, right, down]))
    assert turned.tolist() == [[1, 0, 0], [0, -1, 0], [0, 0, -1]]
    identity = compose(map_from_first_camera(), invert_similarity(map_from_first_camera()))
    torch.testing.assert_close(identity.rotation, torch.eye(3))


LANDMARKS = torch.tensor(np.random.default_rng(0).uniform([-2.9, -1.9, -1.1], [2.9, 1.9, 1.2], (400, 3)))


def tracked(predicted: Prediction, world_from_camera: torch.Tensor, scale: float) -> Prediction:
    """The prediction with landmarks of the room that its views see; feature i of any view is landmark i."""
    world = world_from_camera.double()
    in_first = transform_points(invert_rigid(world[0]), LANDMARKS)
    local = transform_points(invert_rigid(world), LANDMARKS.expand(len(world), -1, 3))
    pixels = local[..., :2] / local[..., 2:] * 24 + 12
    view, feature = ((local[..., 2] > 0.2) & ((pixels - 12).abs() < 12).all(-1)).nonzero().T
    seen, point = feature.unique(return_inverse=True)
    points = SparsePoints(in_first[seen] * scale, point, view, feature, pixels[view, feature])
    return replace(predicted, points_seen=points)


def two_tracked_windows(noise: float) -> tuple[PlacedFrames, Prediction, Window, Similarity]:
    shared, predicted, views, true = two_windows(0, noise, 0.0)
    poses = walk(12, yaw=0.0)
    first = replace(prediction(poses[:8], 0.7, 0, noise), keyframes=None)
    placed = PlacedFrames.of(tracked(first, poses[:8], 0.7), window(0, 8), shared.node)
    return placed, tracked(predicted, poses[4:], 1.3), views, true


def test_triangulated_points_join_windows_whatever_depth_says() -> None:
    shared, predicted, views, true = two_tracked_windows(0.0)
    wrong = replace(predicted, depth=predicted.depth * 1.3)
    assert align_window(wrong, views, replace(shared, node_points=None)).map_from_window.scale != pytest.approx(
        true.scale, rel=0.1
    )
    alignment = align_window(wrong, views, shared)
    assert alignment.accepted and alignment.inlier_share == pytest.approx(1) and alignment.rms < 1e-4
    assert alignment.map_from_window.scale == pytest.approx(true.scale, rel=1e-4)
    torch.testing.assert_close(alignment.map_from_window.rotation, true.rotation, atol=1e-4, rtol=0)
    torch.testing.assert_close(alignment.map_from_window.translation, true.translation, atol=1e-4, rtol=0)


def test_points_move_with_their_node_and_follow_the_choice_of_views() -> None:
    shared, predicted, views, true = two_tracked_windows(0.0)
    motion = similarity(5)
    moved = align_window(predicted, views, shared.transformed(motion)).map_from_window
    assert moved.scale == pytest.approx(compose(motion, true).scale, rel=1e-4)
    chosen = shared.select(torch.tensor([6, 4]))
    assert align_window(predicted, views, chosen).rms < 1e-4
    assert chosen.nbytes < shared.nbytes


def test_few_shared_points_leave_it_to_depth() -> None:
    shared, predicted, views, true = two_tracked_windows(0.0)
    assert predicted.points_seen is not None
    keep = predicted.points_seen.point < 20
    few = replace(
        predicted.points_seen,
        **{n: getattr(predicted.points_seen, n)[keep] for n in ("point", "view", "feature", "pixels")},
    )
    wrong = replace(few, positions=few.positions * 9)
    assert align_window(replace(predicted, points_seen=wrong), views, shared).map_from_window.scale == pytest.approx(
        true.scale, rel=1e-3
    )


def test_features_of_other_keyframes_are_not_shared() -> None:
    shared, predicted, _, _ = two_tracked_windows(0.0)
    assert "no keyframe" in align_window(predicted, window(50, 8), shared).reason
