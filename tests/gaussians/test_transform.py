"""Gaussians that move: with a frame as ellipsoids, with their cameras as if decoded there."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import (
    apply_similarity,
    quaternion_to_matrix,
)
from ff3r_model.core.types import Gaussians, Similarity
from ff3r_model.gaussians.transform import transform_gaussians, with_geometry
from ff3r_model.network.decode import predict
from tests.support.network_output import output
from tests.support.random_gaussians import gaussians


def test_transformed_gaussians_are_the_same_ellipsoids() -> None:
    rotation = torch.tensor(Rotation.random(random_state=3).as_matrix(), dtype=torch.float32)
    similarity = Similarity(2.5, rotation, torch.tensor([1.0, -2, 3]))
    before = gaussians()
    after = transform_gaussians(similarity, before)

    def covariances(these: Gaussians) -> torch.Tensor:
        axes = quaternion_to_matrix(these.quaternions) * these.scales[:, None, :]
        return axes @ axes.mT

    torch.testing.assert_close(
        covariances(after), 2.5**2 * rotation @ covariances(before) @ rotation.T, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(after.means, apply_similarity(similarity, before.means))
    torch.testing.assert_close(after.features, before.features)
    same = transform_gaussians(Similarity(), before)
    for field in fields(Gaussians):
        torch.testing.assert_close(getattr(same, field.name), getattr(before, field.name), atol=1e-5, rtol=1e-5)


def test_geometry_corrected_afterwards_is_geometry_decoded() -> None:
    first, second = output(0, bands=1), output(1, bands=1)
    second = replace(second, gaussians=first.gaussians)
    want = predict(second)
    got = with_geometry(predict(first), want.cameras, want.depth, want.depth_confidence)
    for field in fields(Gaussians):
        a, b = getattr(got.gaussians, field.name), getattr(want.gaussians, field.name)
        if field.name == "quaternions":
            a, b = quaternion_to_matrix(a), quaternion_to_matrix(b)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    kept = with_geometry(predict(first), want.cameras, want.depth)
    assert torch.equal(kept.gaussians.confidences, predict(first).gaussians.confidences)


def test_what_is_not_to_be_trusted_stays_so() -> None:
    """A confidence of 0, of what moves, is not raised by a sensor that measures depth; all stay finite."""
    given = predict(output(0, bands=1))
    moves = torch.zeros_like(given.depth, dtype=torch.bool)
    moves[0, :3] = True
    masked = replace(given, depth_confidence=given.depth_confidence.masked_fill(moves, 0))
    got = with_geometry(masked, given.cameras, given.depth, torch.full_like(given.depth, 7.0))
    assert torch.equal(got.depth_confidence == 0, moves)
    assert got.gaussians.confidences.isfinite().all()
    raised = got.gaussians.confidences > given.gaussians.confidences
    assert torch.equal(raised.view_as(moves), ~moves & (given.depth_confidence < 7))
