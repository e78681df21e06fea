"""Geometric verification against visits whose true similarity is known, and visits that have nothing to do with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy import ndarray
from scipy.spatial.transform import Rotation

from ff3r_model.core.types import Similarity
from ff3r_model.slam.geometric_verification import LEAST_ERROR, Sighting, VerificationConfig, Verified, verify
from ff3r_model.slam.landmarks import Landmarks

CONFIG = VerificationConfig()
TRUE = Similarity(0.4, torch.from_numpy(Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()), torch.tensor([3.0, -1, 2]))
"""there_from_here."""


def descriptors(count: int, seed: int) -> ndarray:
    values = np.sqrt(np.random.default_rng(seed).dirichlet(np.full(128, 0.3), count))
    return np.clip(np.rint(values * 512), 0, 255).astype(np.uint8)


def visit(
    points: ndarray, names: ndarray, views: list[int], frame: Similarity | None = None, noise: float = 0.0
) -> list[Sighting]:
    """Views from places along x, all of which see all points; `frame`: the visit's from the world."""
    rng, found = np.random.default_rng(len(points) + views[0]), []
    for view in views:
        turn = Rotation.from_rotvec([0.0, 0.03 * view, 0.0]).as_matrix()
        centre = np.array([0.25 * view, 0.0, 0.0])
        local = (points - centre) @ turn
        local[:, :2] += noise * local[:, 2:] * rng.standard_normal((len(local), 2))
        local *= 1 + 5 * noise * rng.standard_normal((len(local), 1))
        pose, scale = np.eye(4), 1.0
        pose[:3, :3], pose[:3, 3] = turn, centre
        if frame is not None:
            scale, rotation = frame.scale, frame.rotation.numpy()
            pose[:3, :3], pose[:3, 3] = rotation @ turn, scale * rotation @ centre + frame.translation.numpy()
        landmarks = Landmarks(torch.from_numpy(scale * local).float(), torch.from_numpy(names))
        found.append(Sighting(view, torch.from_numpy(pose), landmarks))
    return found


def cloud(count: int, seed: int = 0, width: float = 1.0) -> ndarray:
    return np.random.default_rng(seed).uniform([-width, -width, 3.0], [width, width, 5.0], (count, 3))


def error(found: Verified) -> tuple[float, float, float]:
    """Degrees, distance at the points' middle as a share of their depth, share of scale."""
    turn = Rotation.from_matrix((found.there_from_here.rotation.T @ TRUE.rotation).numpy()).magnitude()
    middle = torch.tensor([0.0, 0, 4], dtype=torch.float64)
    at = [each.scale * each.rotation.double() @ middle + each.translation for each in (found.there_from_here, TRUE)]
    return float(np.degrees(turn)), float((at[0] - at[1]).norm()) / 1.6, abs(found.there_from_here.scale / 0.4 - 1)


def test_the_similarity_of_two_visits_is_found() -> None:
    points, names = cloud(80), descriptors(80, 1)
    found = verify(visit(points, names, [0, 1, 2]), visit(points, names, [4, 5, 6], TRUE), CONFIG)
    assert not found.refusal and found.points == 80 and found.share == 1
    assert max(error(found)) < 1e-3
    assert found.rms == LEAST_ERROR and found.reach == pytest.approx(1.6, rel=0.1), "in the earlier visit's unit"


def test_noise_and_wrong_matches_do_not_lead_astray() -> None:
    """A pixel of noise across, five times that in depth, and two of five points whose descriptor is another's."""
    points, names = cloud(120), descriptors(120, 1)
    mixed = names.copy()
    mixed[:48] = names[np.roll(np.arange(48), 1)]
    here, there = visit(points, names, [0, 1, 2], noise=0.002), visit(points, mixed, [4, 5, 6], TRUE, noise=0.002)
    found = verify(here, there, CONFIG)
    assert not found.refusal and found.points >= 60
    degrees, place, scale = error(found)
    assert degrees < 1 and place < 0.02 and scale < 0.03


def test_a_scale_that_is_known_stays() -> None:
    points, names = cloud(80), descriptors(80, 1)
    here, there = visit(points, names, [0, 1, 2], noise=0.002), visit(points, names, [4, 5], TRUE, noise=0.002)
    found = verify(here, there, CONFIG, scale=0.4)
    assert not found.refusal and found.there_from_here.scale == 0.4 and max(error(found)) < 1


@pytest.mark.parametrize("seed", range(20))
def test_what_only_looks_alike_is_refused(seed: int) -> None:
    """The same descriptors on points that lie anywhere else, all of them or all but a few."""
    names, points, others = descriptors(100, seed), cloud(100, seed), cloud(100, 1000 + seed)
    others[:15] = points[:15]
    found = verify(visit(points, names, [0, 1, 2]), visit(others, names, [4, 5, 6], TRUE), CONFIG)
    assert found.refusal


def test_other_points_share_nothing() -> None:
    here, there = visit(cloud(80), descriptors(80, 1), [0, 1]), visit(cloud(80), descriptors(80, 2), [2, 3], TRUE)
    assert verify(here, there, CONFIG).refusal
    nothing = [replace(each, landmarks=Landmarks.none()) for each in there]
    assert "hardly any points" in verify(here, nothing, CONFIG).refusal


def test_a_poster_is_no_place() -> None:
    points, names = cloud(80, width=0.12), descriptors(80, 1)
    found = verify(visit(points, names, [0, 1, 2]), visit(points, names, [4, 5, 6], TRUE), CONFIG)
    assert "on a spot" in found.refusal


def test_one_view_is_not_enough() -> None:
    points, names = cloud(80), descriptors(80, 1)
    found = verify(visit(points, names, [0]), visit(points, names, [4, 5, 6], TRUE), CONFIG)
    assert "second view" in found.refusal


def test_few_points_or_a_small_share_are_not_enough() -> None:
    points, names = cloud(19), descriptors(19, 1)
    found = verify(visit(points, names, [0, 1]), visit(points, names, [4, 5], TRUE), CONFIG)
    assert "19 points agree, 20 are needed" in found.refusal
    points, others, names = cloud(200), cloud(200, 7), descriptors(200, 1)
    others[:50] = points[:50]
    found = verify(visit(points, names, [0, 1]), visit(others, names, [4, 5], TRUE), CONFIG)
    assert "of the matches agree" in found.refusal
