"""Structure from motion of scenes whose cameras and points are known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy import ndarray

from ff3r_model.evaluation.metrics import pair_errors
from ff3r_model.slam.refinement.features import Features
from ff3r_model.slam.refinement.lens import Focal, Lens, Radial, undistorted
from ff3r_model.slam.refinement.matching import MatchCache, Pairs, match, pairs_to_match, verified
from ff3r_model.slam.refinement.pose_error import relative_errors
from ff3r_model.slam.refinement.self_calibration import PRIOR_FOCAL, LensBelief, focal_from_pairs, fused
from ff3r_model.slam.refinement.structure_adjustment import (
    Observations,
    Structure,
    _jacobians,
    _Problem,
    adjust_structure,
    pose_covariance,
    rotations,
)
from ff3r_model.slam.refinement.structure_from_motion import Reconstruction, reconstruct
from ff3r_model.slam.refinement.tracks import Tracks, join_tracks
from ff3r_model.slam.refinement.triangulation import parallax, triangulate

SIZE, FOCAL = (640, 480), 520.0
CENTRE = np.array(SIZE) / 2


@dataclass(frozen=True)
class Scene:
    """What views see of random points, each with a descriptor of its own."""

    truth: Structure
    features: list[Features]
    identity: list[ndarray]
    """Which point each feature is of; -1 for a made-up one."""


def scene(
    seed: int, views: int = 5, points: int = 250, noise: float = 0.3, wrong: int = 0, radial: float = 0.0
) -> Scene:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (views, 1, 1))
    poses[1:, :3, :3] = rotations(0.12 * rng.standard_normal((views - 1, 3)))
    poses[1:, :3, 3] = 0.5 * rng.uniform(-1, 1, (views - 1, 3))
    cloud = rng.uniform([-2.5, -2, 2.5], [2.5, 2, 6], (points, 3))
    truth = Structure(poses, cloud, math.log(FOCAL), 1.0, CENTRE, radial)
    looks = rng.standard_normal((points, 128))
    features, identity = [], []
    for view in range(views):
        observed = Observations(np.full(points, view), np.arange(points), np.zeros((points, 2)))
        pixels = -truth.residuals(observed)
        inside = np.flatnonzero(((pixels > 0) & (pixels < SIZE)).all(axis=1) & (truth.seen_from(observed)[:, 2] > 0.3))
        at = pixels[inside] + noise * rng.standard_normal((len(inside), 2))
        descriptors = looks[inside]
        # Some features look like points that they are not of.
        swapped = rng.permutation(len(inside))[:wrong]
        descriptors[swapped] = descriptors[rng.permutation(swapped)]
        descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        features.append(Features(at, descriptors.astype(np.float32)))
        identity.append(inside)
    return Scene(truth, features, identity)


def pairs_of(features: list[Features]) -> Pairs:
    found = {
        (i, j): verified(features[i], features[j], match(features[i], features[j], 0.85), 1.5)
        for i in range(len(features))
        for j in range(i + 1, len(features))
    }
    return {pair: matches for pair, matches in found.items() if len(matches)}


def solve(given: Scene, lens: Lens, start: float = FOCAL) -> Reconstruction:
    pairs = pairs_of(given.features)
    first = Structure(np.zeros((0, 4, 4)), np.zeros((0, 3)), math.log(start), 1.0, CENTRE)
    found = reconstruct(given.features, pairs, join_tracks(given.features, pairs), first, lens)
    assert found is not None
    return found


def worst(found: Structure, truth: Structure) -> float:
    """Degrees, over all pairs of views."""
    poses = (torch.from_numpy(one.camera_from_world) for one in (found, truth))
    return float(pair_errors(*poses).max())


def known(focal: float = FOCAL) -> Lens:
    return Lens(Focal(math.log(focal), 0.0))


def test_exact_tracks_lead_to_exact_cameras() -> None:
    given = scene(1, noise=0.0)
    found = solve(given, known())
    assert found.registered.all() and worst(found.structure, given.truth) < 1e-3
    miss = np.linalg.norm(found.structure.residuals(found.observations()), axis=1)
    assert miss.max() < 1e-3


def test_noise_and_wrong_matches_cost_little() -> None:
    for seed in range(3):
        given = scene(seed, wrong=60)
        found = solve(given, known())
        assert found.registered.all() and worst(found.structure, given.truth) < 1.5


def test_a_focal_length_that_is_not_known_is_found() -> None:
    for seed, start in ((3, 400.0), (4, 700.0)):
        given = scene(seed)
        found = solve(given, Lens(Focal(math.log(0.85 * 640), 0.45)), start)
        assert found.structure.focal[0] == pytest.approx(FOCAL, rel=0.05)
        assert worst(found.structure, given.truth) < 3


def test_distortion_is_undone() -> None:
    tangents = np.random.default_rng(0).uniform(-0.7, 0.7, (50, 2))
    for radial in (-0.1, 0.1):
        seen = tangents * (1 + radial * np.square(tangents).sum(axis=1, keepdims=True))
        assert np.allclose(undistorted(seen, radial), tangents, atol=1e-4)


@pytest.mark.parametrize("radial", [-0.08, 0.06])
def test_a_lens_that_distorts_is_found(radial: float) -> None:
    given = scene(12, noise=0.2, radial=radial)
    free = solve(given, Lens(known().focal, Radial(0.0, 0.05)))
    assert free.structure.radial == pytest.approx(radial, abs=0.01)
    straight = solve(given, known())
    assert worst(free.structure, given.truth) < min(0.3, worst(straight.structure, given.truth) / 2)
    unknown = solve(given, Lens(Focal(math.log(0.85 * 640), 0.45), Radial(0.0, 0.05)), 560.0)
    assert unknown.structure.focal[0] == pytest.approx(FOCAL, rel=0.05)


def test_derivatives_are_those_of_the_projection() -> None:
    """Against central differences, of all unknowns, away from and at the widest angle."""
    truth = scene(13, points=40, radial=-0.07).truth
    rng = np.random.default_rng(0)
    view, point = np.indices((5, 40)).reshape(2, -1)
    observed = Observations(view, point, rng.uniform(0, 480, (200, 2)))
    lens = Lens(Focal(truth.log_focal, 0.3), Radial(0.0, 0.1))
    problem = _Problem(observed, lens, 0, 5, 40)
    by_camera, by_point, by_lens = _jacobians(truth, observed)
    steps = 1e-6 * rng.standard_normal(32)
    moves = 1e-6 * rng.standard_normal((40, 3))
    steps[:6] = 0
    ahead, behind = (problem.moved(truth, sign * steps[problem.free], sign * moves) for sign in (1, -1))
    change = (behind.residuals(observed) - ahead.residuals(observed)) / 2
    expected = np.einsum("nij,nj->ni", by_camera, steps[:30].reshape(5, 6)[view])
    expected += np.einsum("nij,nj->ni", by_point, moves[point]) + by_lens @ steps[30:]
    assert np.allclose(change, expected, rtol=1e-4, atol=1e-7)


def test_a_view_of_another_place_is_left_out() -> None:
    given, other = scene(5), scene(6)
    found = solve(replace(given, features=[*given.features, other.features[0]]), known())
    assert found.registered.tolist() == [True] * 5 + [False]


def test_nothing_comes_of_views_that_share_nothing() -> None:
    features = [scene(seed).features[0] for seed in range(3)]
    pairs = pairs_of(features)
    start = Structure(np.zeros((0, 4, 4)), np.zeros((0, 3)), math.log(FOCAL), 1.0, CENTRE)
    assert reconstruct(features, pairs, join_tracks(features, pairs), start, known()) is None


def test_a_camera_that_only_turns_claims_nothing() -> None:
    """No parallax, no points: it must not make any up."""
    given = scene(7)
    poses = given.truth.camera_from_world.copy()
    poses[:, :3, 3] = 0
    turned = replace(given.truth, camera_from_world=poses)
    features = []
    for view, identity in enumerate(given.identity):
        observed = Observations(np.full(len(identity), view), identity, np.zeros((len(identity), 2)))
        noise = 0.3 * np.random.default_rng(view).standard_normal((len(identity), 2))
        features.append(replace(given.features[view], pixels=noise - turned.residuals(observed)))
    pairs = pairs_of(features)
    start = Structure(np.zeros((0, 4, 4)), np.zeros((0, 3)), math.log(FOCAL), 1.0, CENTRE)
    found = reconstruct(features, pairs, join_tracks(features, pairs), start, known())
    assert found is None or found.used.any(axis=1).sum() < 30


def test_tracks_join_matches_and_drop_those_that_contradict() -> None:
    features = [
        Features(np.arange(2.0 * count).reshape(count, 2), np.zeros((count, 128), np.float32)) for count in (3, 3, 2)
    ]
    pairs = {(0, 1): np.array([[0, 0], [1, 1]]), (1, 2): np.array([[0, 1], [1, 0]]), (0, 2): np.array([[2, 0]])}
    tracks = join_tracks(features, pairs)
    # 0-0-1 is a track; 1-1-0-2 would see the first view twice.
    assert tracks.feature.tolist() == [[0, 0, 1]]
    assert tracks.seen.all() and tracks.pixels[0].tolist() == [[0, 1], [0, 1], [2, 3]]
    assert len(join_tracks(features, {})) == 0


def test_triangulation_finds_exact_points_and_outvotes_a_wrong_ray() -> None:
    given = scene(8, noise=0.0).truth
    points, views = len(given.points), len(given.camera_from_world)
    grid = np.indices((points, views)).reshape(2, -1)
    pixels = -given.residuals(Observations(grid[1], grid[0], np.zeros((points * views, 2)))).reshape(points, views, 2)
    everywhere = np.ones((points, views), bool)
    tracks = Tracks(pixels, everywhere, np.zeros((points, views), int))
    assert np.allclose(triangulate(given, tracks, everywhere), given.points, atol=1e-5)
    pixels[:, 2] += 40
    wrong = triangulate(given, replace(tracks, pixels=pixels), everywhere)
    assert np.median(np.linalg.norm(wrong - given.points, axis=1)) < 0.05


def test_parallax_is_the_widest_angle() -> None:
    origins = np.array([[-1.0, 0, 0], [1, 0, 0], [0, 0, 0]])
    angles = parallax(np.array([[0.0, 0, 1], [0, 0, 1]]), origins, np.array([[True, True, True], [True, False, False]]))
    assert angles == pytest.approx([90, 0], abs=1e-4)


def test_adjustment_goes_back_to_the_truth_and_holds_the_first() -> None:
    truth = scene(9).truth
    points, views = len(truth.points), len(truth.camera_from_world)
    view, point = np.indices((views, points)).reshape(2, -1)
    observed = Observations(view, point, -truth.residuals(Observations(view, point, np.zeros((len(view), 2)))))
    rng = np.random.default_rng(0)
    poses = truth.camera_from_world.copy()
    poses[1:, :3, :3] = rotations(0.03 * rng.standard_normal((views - 1, 3))) @ poses[1:, :3, :3]
    off = replace(truth, camera_from_world=poses, points=truth.points + 0.05 * rng.standard_normal((points, 3)))
    found = adjust_structure(off, observed, known(), iterations=30)
    assert worst(found, truth) < 0.01 and np.array_equal(found.camera_from_world[0], poses[0])
    assert found.log_focal == truth.log_focal
    zoomed = replace(off, log_focal=off.log_focal + 0.1)
    free = adjust_structure(zoomed, observed, Lens(Focal(zoomed.log_focal, 0.5)), iterations=40)
    assert free.log_focal == pytest.approx(truth.log_focal, abs=0.01)


def test_claimed_errors_are_those_that_noise_causes() -> None:
    errors, claims = [], []
    for seed in range(6):
        truth = scene(20 + seed).truth
        points, views = len(truth.points), len(truth.camera_from_world)
        view, point = np.indices((views, points)).reshape(2, -1)
        exact = -truth.residuals(Observations(view, point, np.zeros((len(view), 2))))
        observed = Observations(view, point, exact + np.random.default_rng(seed).standard_normal(exact.shape))
        found = adjust_structure(truth, observed, known(), iterations=20)
        claims.append(relative_errors(found.camera_from_world, pose_covariance(found, observed, known())))
        poses = (torch.from_numpy(one.camera_from_world) for one in (found, truth))
        errors.append(pair_errors(*poses).numpy())
    ratio = np.concatenate(errors) / np.concatenate(claims)
    assert 0.5 < np.sqrt(np.mean(ratio**2)) < 1.5


def test_the_focal_length_is_read_from_fundamental_matrices() -> None:
    given = scene(10, points=400)
    pairs = pairs_of(given.features)
    belief = Focal(math.log(0.85 * 640), 0.45)
    assert focal_from_pairs(given.features, pairs, CENTRE, 1.0, belief) == pytest.approx(FOCAL, rel=0.15)
    assert focal_from_pairs(given.features, {}, CENTRE, 1.0, belief) == pytest.approx(0.85 * 640)


def test_belief_in_a_focal_length_grows_and_outvotes() -> None:
    belief = LensBelief()
    assert belief.focal(640.0).pixels == pytest.approx(PRIOR_FOCAL * 640)
    for truth in (0.80, 0.82, 0.81, 8.0, 0.79):
        prior = belief.focal(640.0)
        belief.learn_focal(prior, fused([prior, Focal(math.log(640 * truth), 0.05)]), 640.0)
    after = belief.focal(640.0)
    assert after.pixels == pytest.approx(0.805 * 640, rel=0.03) and 0.01 < after.log_sigma < 0.06
    count = belief.estimates
    belief.learn_focal(after, after, 640.0)
    assert belief.estimates == count, "a window that adds nothing says nothing"


def test_belief_in_a_distortion_grows_and_outvotes() -> None:
    belief = LensBelief()
    assert belief.radial.mean == 0 and belief.radial.sigma > 0.02
    for truth in (-0.06, -0.05, 0.2, -0.055):
        prior = belief.radial
        information = 0.01**-2
        gained = prior.sigma**-2 + information
        mean = (prior.mean * prior.sigma**-2 + truth * information) / gained
        belief.learn_radial(prior, Radial(mean, gained**-0.5))
    assert belief.radial.mean == pytest.approx(-0.055, abs=0.01) and belief.radial.sigma < 0.01


def test_matches_of_shared_keyframes_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pictures = [(255 * rng.random((60, 80))).astype(np.uint8) for _ in range(4)]
    looked: list[int] = []
    module = "ff3r_model.slam.refinement.matching"
    monkeypatch.setattr(f"{module}.find_features", lambda picture, most: looked.append(most) or scene(1).features[0])
    cache = MatchCache(100, 0.85, 1.5)
    features, pairs = cache.look([5, 6, 7], pictures[:3])
    assert len(looked) == 3 and len(features) == 3 and set(pairs) == {(0, 1), (0, 2), (1, 2)}
    cache.look([6, 7, 8], pictures[:3])
    assert len(looked) == 4 and set(cache.matches) == {(5, 6), (5, 7), (6, 7), (6, 8), (7, 8)}


def test_long_windows_match_neighbours_and_some_beyond() -> None:
    assert len(pairs_to_match(9)) == 36, "all"
    pairs = pairs_to_match(64)
    assert (0, 8) in pairs and (0, 16) in pairs and (0, 17) not in pairs and (0, 9) not in pairs
    assert all(first < second for first, second in pairs) and len(set(pairs)) == len(pairs) < 800


def test_a_long_window_is_thinned_and_still_right() -> None:
    given = scene(11, views=20, points=600)
    found = solve(given, known())
    assert found.registered.all() and worst(found.structure, given.truth) < 1.5
    assert len(found.tracks.thinned(50)) < len(found.tracks)
    assert found.tracks.thinned(50).seen.sum(axis=0).min() >= 50
