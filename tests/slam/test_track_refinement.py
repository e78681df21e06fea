"""Refinement by tracks of rendered rooms, whose cameras and depth are known exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.slam.posed_pictures import Posed
from benchmarks.slam.refinement import consecutive
from ff3r_model.core.geometry import invert_rigid, project, transform_points
from ff3r_model.core.types import Cameras, Gaussians, Prediction, SparsePoints, Window
from ff3r_model.evaluation.metrics import depth_rel, pair_errors
from ff3r_model.frames.prepare import prepare, prepare_picture
from ff3r_model.gaussians.transform import with_geometry
from ff3r_model.slam.reference.depth_scale import scale_from_depth
from ff3r_model.slam.refinement.bent_depth import bend
from ff3r_model.slam.refinement.canvas import Canvas
from ff3r_model.slam.refinement.features import find_features
from ff3r_model.slam.refinement.track_refinement import TrackConfig, TrackRefinement
from ff3r_model.synthetic import make_room, make_trajectory, pinhole, render

VIEWS, SIZE, LONG_SIDE = 5, (252, 336), 112
FIELD = 65.0


@pytest.fixture(scope="module")
def truth() -> tuple[Window, Prediction]:
    """A window without intrinsics, and a prediction that is right about everything."""
    room = make_room(1)
    poses = make_trajectory(room, 1, VIEWS, "robot", 0.25)
    views = render(room, poses, pinhole(*SIZE, field_of_view=FIELD).expand(VIEWS, 3, 3), *SIZE)
    made = [prepare(image, views.cameras.intrinsics[0], LONG_SIDE, 14) for image in views.images]
    pictures = torch.stack(
        [prepare_picture(image, crop) for image, (_, _, crop) in zip(views.images, made, strict=True)]
    )
    window = Window(
        torch.stack([image for image, _, _ in made]), tuple(range(VIEWS)), tuple(range(VIEWS)), pictures=pictures
    )
    intrinsics = torch.stack([matrix for _, matrix, _ in made if matrix is not None])
    cameras = Cameras(invert_rigid(poses) @ poses[0], intrinsics)
    return window, prediction(cameras, views.depth[:, 1::3, 1::3].contiguous())


def prediction(cameras: Cameras, depth: torch.Tensor) -> Prediction:
    count = depth.numel()
    gaussians = Gaussians(
        torch.zeros(count, 3), torch.full((count, 3), 0.01), torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        torch.zeros(count, 1, 3), torch.ones(count), torch.zeros(count), torch.zeros(count, 4),
    )  # fmt: skip
    given = Prediction(cameras, depth, torch.ones_like(depth), gaussians)
    return with_geometry(given, cameras, depth)


def poor(right: Prediction) -> Prediction:
    """Cameras that stand still and look ahead, a depth that is bent, a focal length 15 % too large."""
    intrinsics = right.cameras.intrinsics.clone()
    intrinsics[:, :2, :2] *= 1.15
    still = torch.eye(4).expand(VIEWS, 4, 4).clone()
    still[:, 0, 3] = 0.01 * torch.arange(VIEWS)
    bent = right.depth * torch.linspace(0.75, 1.3, right.depth.shape[2])
    return prediction(Cameras(still, intrinsics), bent)


def errors(refined: Prediction, right: Prediction) -> torch.Tensor:
    return pair_errors(refined.cameras.camera_from_world, right.cameras.camera_from_world)


@pytest.fixture(scope="module")
def refined(truth: tuple[Window, Prediction]) -> Prediction:
    window, right = truth
    return TrackRefinement()(poor(right), window)


def test_cameras_and_focal_length_are_found(truth: tuple[Window, Prediction], refined: Prediction) -> None:
    _, right = truth
    assert errors(refined, right).mean() < 2
    ratio = refined.cameras.intrinsics[:, 0, 0] / right.cameras.intrinsics[:, 0, 0]
    assert ratio.numpy() == pytest.approx(1, abs=0.05)
    assert torch.equal(refined.cameras.camera_from_world[0], torch.eye(4))


def test_depth_is_bent_and_gaussians_follow(truth: tuple[Window, Prediction], refined: Prediction) -> None:
    _, right = truth
    assert depth_rel(refined.depth, right.depth) < 0.5 * depth_rel(poor(right).depth, right.depth)
    local = transform_points(refined.cameras.camera_from_world, refined.points.flatten(1, 2))
    assert torch.allclose(local[..., 2], refined.depth.flatten(1), rtol=1e-3)
    # In the picture they are as large as before.
    growth = refined.depth / poor(right).depth
    zoom = poor(right).cameras.intrinsics[0, 0, 0] / refined.cameras.intrinsics[0, 0, 0]
    scales = refined.gaussians.scales[:, 0].view_as(growth)
    assert torch.allclose(scales, 0.01 * growth * zoom, rtol=0.02)


def test_dense_depth_is_better_than_bent_where_windows_are_trusted(
    truth: tuple[Window, Prediction], refined: Prediction, caplog: pytest.LogCaptureFixture
) -> None:
    window, right = truth
    # With the intrinsics given, whose error would bend all depths alike.
    known = replace(window, intrinsics=right.cameras.intrinsics)
    either = {depth: TrackRefinement(depth=depth)(poor(right), known).depth for depth in ("bent", "dense")}
    assert depth_rel(either["dense"], right.depth) < 0.95 * depth_rel(either["bent"], right.depth)
    dense = TrackRefinement(depth="dense")(poor(right), window)
    # Surer pixels weigh more where Gaussians are merged.
    surer = (dense.depth_confidence / refined.depth_confidence).flatten()
    assert 1 == surer.min() < surer.max() == 4
    assert torch.allclose(dense.gaussians.confidences - refined.gaussians.confidences, surer.log())
    local = transform_points(dense.cameras.camera_from_world, dense.points.flatten(1, 2))
    assert torch.allclose(local[..., 2], dense.depth.flatten(1), rtol=1e-3), "Gaussians follow"
    with caplog.at_level("INFO"):
        doubted = TrackRefinement(depth="dense", max_pose_error=0.1)(poor(right), window)
    assert torch.equal(doubted.depth, refined.depth) and "depth is bent, not dense" in caplog.text


def test_the_networks_depth_stays_where_that_is_wanted(truth: tuple[Window, Prediction]) -> None:
    window, right = truth
    kept = TrackRefinement(depth="network")(poor(right), window)
    assert torch.equal(kept.depth, poor(right).depth) and errors(kept, right).mean() < 2


def test_points_are_where_views_see_them(refined: Prediction) -> None:
    seen = refined.points_seen
    assert seen is not None and len(seen.positions) > 50 and int(seen.view.max()) == VIEWS - 1
    for view in range(VIEWS):
        mine = seen.view == view
        points = seen.positions[seen.point[mine]].float()
        there = transform_points(refined.cameras.camera_from_world[view], points)
        pixels, depth = project(there, refined.cameras.intrinsics[view])
        assert (pixels - seen.pixels[mine]).norm(dim=1).median() < 0.5 and (depth > 0).all()


def test_quality_claims_what_is_true(truth: tuple[Window, Prediction], refined: Prediction) -> None:
    quality = refined.quality
    assert quality is not None and quality.registered == (True,) * VIEWS
    assert errors(refined, truth[1]).mean() < quality.pose_error < 20
    assert quality.reprojection < 1 and quality.parallax > 1
    assert quality.pose_covariance.shape == (VIEWS, 6, 6) and quality.pose_covariance.isfinite().all()
    assert 0 < quality.focal_sigma < 0.2


def test_depth_images_are_compared_at_points_and_not_with_a_biased_depth(
    truth: tuple[Window, Prediction], refined: Prediction
) -> None:
    window, right = truth
    centres = [torch.pdist(invert_rigid(one.cameras.camera_from_world)[:, :3, 3].double()) for one in (right, refined)]
    scale = float(centres[0].sum() / centres[1].sum())
    biased = replace(refined, depth=1.06 * refined.depth)
    measured = replace(window, depth=right.depth.clone())
    assert scale_from_depth(measured, biased, 0.05) == pytest.approx(scale, rel=0.01)
    dense = scale_from_depth(measured, replace(biased, points_seen=None), 0.05)
    assert dense is not None and abs(dense / scale - 1) > 0.03, "the dense depth is biased"
    # Wrong in a quarter of the picture: the median of the others.
    assert measured.depth is not None
    measured.depth[:, :, :30] *= 2
    assert scale_from_depth(measured, biased, 0.05) == pytest.approx(scale, rel=0.02)


def test_few_points_leave_the_scale_to_the_dense_depth(truth: tuple[Window, Prediction], refined: Prediction) -> None:
    window, right = truth
    measured, points = replace(window, depth=right.depth), refined.points_seen
    assert points is not None
    few = SparsePoints(
        points.positions * 3, points.point[:20], points.view[:20], points.feature[:20], points.pixels[:20]
    )
    with_few = scale_from_depth(measured, replace(refined, points_seen=few), 0.05)
    assert with_few == scale_from_depth(measured, replace(refined, points_seen=None), 0.05)


def test_known_intrinsics_stay(truth: tuple[Window, Prediction]) -> None:
    window, right = truth
    known = replace(window, intrinsics=right.cameras.intrinsics)
    found = TrackRefinement()(poor(right), known)
    assert torch.allclose(found.cameras.intrinsics, right.cameras.intrinsics)
    assert errors(found, right).mean() < 1.5 and found.quality is not None and found.quality.focal_sigma == 0


def test_views_of_cameras_that_differ_are_taken_together(truth: tuple[Window, Prediction]) -> None:
    """One view's picture is zoomed by intrinsics of its own: the middle of it, enlarged."""
    window, right = truth
    assert window.pictures is not None
    pictures, images, intrinsics = window.pictures.clone(), window.images.clone(), right.cameras.intrinsics.clone()
    height, width = SIZE
    middle = pictures[2, height // 8 : -height // 8, width // 8 : -width // 8]
    pictures[2] = torch.nn.functional.interpolate(middle[None, None].float(), SIZE, mode="bilinear")[0, 0].byte()
    intrinsics[2, :2, :2] *= height / middle.shape[0]
    found = TrackRefinement()(poor(right), replace(window, images=images, pictures=pictures, intrinsics=intrinsics))
    assert errors(found, right).mean() < 2


def test_a_blank_view_follows_the_others(truth: tuple[Window, Prediction]) -> None:
    window, right = truth
    assert window.pictures is not None
    pictures = window.pictures.clone()
    pictures[3] = 128
    for gaps in ("flow", "network"):
        found = TrackRefinement(TrackConfig(gaps=gaps))(right, replace(window, pictures=pictures))
        assert found.quality is not None and found.quality.registered == (True, True, True, False, True)
        assert errors(found, right).mean() < 4, "the network's word, at the size of the others"
        assert found.quality.pose_error > 5, "what no track determines is not claimed"
        assert found.quality.pose_covariance[3].isnan().all()


def test_without_texture_the_network_and_the_prior_are_all_there_is(truth: tuple[Window, Prediction]) -> None:
    window, right = truth
    blank = replace(window, pictures=torch.full_like(window.pictures, 128), images=torch.full_like(window.images, 0.5))
    found = TrackRefinement()(right, blank)
    assert torch.allclose(found.cameras.camera_from_world, right.cameras.camera_from_world, atol=1e-5)
    assert found.quality is not None and found.quality.pose_error == 180 and not any(found.quality.registered)
    assert found.points_seen is None


def test_what_a_run_believes_outlives_a_window_and_not_a_reset(truth: tuple[Window, Prediction]) -> None:
    window, right = truth
    refinement = TrackRefinement()
    refinement(poor(right), window)
    true_focal = float(right.cameras.intrinsics[0, 0, 0]) / LONG_SIDE
    belief = refinement.belief.focal(1.0)
    assert belief.pixels == pytest.approx(true_focal, rel=0.1) and belief.log_sigma < 0.2
    refinement.reset()
    assert refinement.belief.focal(1.0).log_sigma > 0.4


def test_a_network_that_explains_the_tracks_keeps_its_cameras(truth: tuple[Window, Prediction]) -> None:
    window, right = truth
    trusting = TrackRefinement(TrackConfig(gaps="network"))
    kept = trusting(right, window)
    assert torch.allclose(kept.cameras.camera_from_world, right.cameras.camera_from_world, atol=3e-3)
    assert torch.allclose(kept.cameras.intrinsics, right.cameras.intrinsics, rtol=1e-3)
    assert kept.points_seen is not None and kept.quality is not None and kept.quality.reprojection < 0.5
    trusting.reset()
    assert errors(trusting(poor(right), window), right).mean() < 2


def test_small_pictures_are_sharpened_by_flow(truth: tuple[Window, Prediction]) -> None:
    """Frames from the archive are as small as the network's images."""
    window, right = truth
    found = TrackRefinement()(poor(right), replace(window, pictures=None))
    assert errors(found, right).mean() < 5 and found.points_seen is not None


GREY = np.full((60, 80, 3), 0.5)


def test_depth_passes_through_measured_pixels_and_keeps_its_shape() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 2, (60, 80))
    column, row = rng.uniform(0, 80, 400), rng.uniform(0, 60, 400)
    field = 1.4 * np.exp(0.004 * column)
    pixels = np.stack([column, row], axis=1)
    measured = depth[row.astype(int), column.astype(int)] * field
    measured[::10] *= 3
    ratio = bend(depth, GREY, pixels, measured) / depth / (1.4 * np.exp(0.004 * (np.arange(80) + 0.5)))
    assert np.abs(np.log(ratio)).mean() < 0.05
    assert bend(depth, GREY, pixels[:0], measured[:0]) is depth
    two = bend(depth, GREY, pixels[:2], 2 * depth[row.astype(int), column.astype(int)][:2])
    assert np.allclose(two, 2 * depth)


def test_depth_is_bent_up_to_the_edges_of_the_picture() -> None:
    """Two walls, of two colours, of which one is twice as far as predicted; points lie far from the edge."""
    halves = GREY.copy()
    halves[:, 40:] = [0.9, 0.2, 0.1]
    rng = np.random.default_rng(1)
    pixels = np.concatenate([rng.uniform([5, 0], [20, 60], (30, 2)), rng.uniform([60, 0], [75, 60], (30, 2))])
    bent = bend(np.ones((60, 80)), halves, pixels, np.repeat([1.0, 2.0], 30))
    assert np.abs(bent[:, :38] - 1).max() < 0.1 and np.abs(bent[:, 42:] - 2).max() < 0.2


def test_features_lie_where_they_are_drawn() -> None:
    picture = np.full((90, 120), 100, np.uint8)
    picture[40:50, 60:70] = 220
    found = find_features(picture, 50)
    assert np.linalg.norm(found.pixels - [65, 45], axis=1).min() < 0.7
    assert np.linalg.norm(found.descriptors, axis=1) == pytest.approx(1, abs=1e-5)
    assert len(find_features(np.zeros((90, 120), np.uint8), 50)) == 0


def test_pixels_of_pictures_and_images_relate(truth: tuple[Window, Prediction]) -> None:
    window, right = truth
    canvas = Canvas.of(replace(window, intrinsics=right.cameras.intrinsics))
    assert canvas.scale == pytest.approx(3, abs=0.05) and canvas.long_side == 336
    back = canvas.image_intrinsics(1.0, VIEWS)
    assert np.allclose(back, right.cameras.intrinsics.numpy(), rtol=1e-5)
    assert canvas.to_images(np.array([[300.0, 150]]), np.array([2])) == pytest.approx(np.array([[100, 50]]), rel=0.02)


def test_the_benchmarks_windows_are_cut_by_numbers(tmp_path: Path) -> None:
    numbers = [*range(0, 300, 20), 301]
    posed = Posed("far", {number: tmp_path for number in numbers}, {}, torch.eye(3), 20)
    windows = posed.windows()
    assert windows[0] == tuple(range(0, 160, 20)) and len(windows) == 9
    assert windows[-1] == (160, 180, 200, 220, 240, 260, 280, 301), "about 20 apart"
    assert consecutive(windows) == [windows[0], windows[4], windows[8]]


def test_points_of_a_wrong_structure_change_no_depth_by_more_than_a_factor() -> None:
    depth = np.full((24, 32), 2.0)
    pixels = np.random.default_rng(0).uniform([0, 0], [32, 24], (60, 2))
    image = np.full((24, 32, 3), 0.5)
    assert bend(depth, image, pixels, np.full(60, 20.0)).max() == pytest.approx(5.0)
    assert bend(depth, image, pixels, np.full(60, 0.1)).min() == pytest.approx(0.8)
    assert bend(depth, image, pixels, np.full(60, 3.0)) == pytest.approx(3.0)
