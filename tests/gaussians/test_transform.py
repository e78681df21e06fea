"""Gaussians that move: with a frame as ellipsoids, with their cameras as if decoded there."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import (
    apply_similarity,
    quaternion_to_matrix,
)
from ff3r_model.core.types import Gaussians, Similarity
from ff3r_model.gaussians.transform import transform_gaussians, with_geometry
from ff3r_model.network.decode import predict
from ff3r_model.network.gaussian_head import RawGaussians
from ff3r_model.network.model import NetworkOutput

VIEWS, HEIGHT, WIDTH, CHANNELS = 3, 6, 8, 5


def encoding(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    quaternions = Rotation.random(VIEWS, random_state=seed).as_quat() * rng.uniform(0.5, 2, (VIEWS, 1))
    fields_of_view = rng.uniform(0.5, 1.5, (VIEWS, 2))
    return torch.tensor(np.concatenate([rng.normal(size=(VIEWS, 3)), quaternions, fields_of_view], axis=1)).float()


def output(seed: int = 0, bands: int = 4, lifting: bool = False) -> NetworkOutput:
    generator = torch.Generator().manual_seed(seed)

    def normal(channels: int) -> torch.Tensor:
        return torch.randn(1, VIEWS, channels, HEIGHT, WIDTH, generator=generator)

    raw = RawGaussians(normal(3), normal(4), normal(3 * bands), normal(1), normal(1), normal(CHANNELS))
    wrong = torch.full((1, VIEWS, 9), math.nan)
    return NetworkOutput(
        pose_encodings=torch.stack([wrong, encoding(seed)[None]]),
        depth=torch.rand(1, VIEWS, HEIGHT, WIDTH, generator=generator) + 1,
        depth_confidence=torch.rand(1, VIEWS, HEIGHT, WIDTH, generator=generator) + 1,
        gaussians=None if lifting else raw,
        semantics=None,
        lifted=torch.randn(1, VIEWS, CHANNELS, 3, 4, generator=generator) if lifting else None,
        tokens=torch.randn(1, VIEWS, 7, 12, generator=generator),
    )


def gaussians(count: int = 20, bands: int = 4, channels: int = 3) -> Gaussians:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Gaussians(
        normal(count, 3), normal(count, 3).exp(), torch.nn.functional.normalize(normal(count, 4), dim=1),
        normal(count, bands, 3), normal(count).sigmoid(), normal(count), normal(count, channels),
    )  # fmt: skip


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
