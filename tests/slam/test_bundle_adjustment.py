"""Bundle adjustment against exact geometry and against automatic differentiation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, project, rigid, skew, transform_points, unproject
from ff3r_model.core.types import Cameras
from ff3r_model.slam.refinement.bundle_adjustment import BundleConfig, Matches, _linearise, _State, adjust

VIEWS, POINTS, SIZE = 4, 80, 112


def turned(vector: Tensor) -> Tensor:
    """Rotations by vectors of radians."""
    return torch.linalg.matrix_exp(skew(vector.double()))


def scene(seed: int, depth_noise: float = 0.0) -> tuple[Cameras, Matches]:
    """Cameras that look at random points, and what each sees of every other's pixels, exactly."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1

    poses = rigid(turned(0.2 * uniform(VIEWS, 3)), 0.3 * uniform(VIEWS, 3))
    poses[0] = torch.eye(4)
    intrinsics = torch.tensor([[90.0, 0, 56], [0, 90, 56], [0, 0, 1]], dtype=torch.float64).expand(VIEWS, 3, 3)
    pairs = torch.tensor([(i, j) for i in range(VIEWS) for j in range(VIEWS) if i != j])
    pixels = SIZE / 2 + SIZE / 2 * uniform(len(pairs), POINTS, 2)
    depth = 1.2 + 0.6 * uniform(len(pairs), POINTS)
    rays = (pixels - 56) / 90
    here = torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1) * depth[..., None]
    relative = poses[pairs[:, 1]] @ invert_rigid(poses[pairs[:, 0]])
    observed, _ = project(transform_points(relative, here), intrinsics[pairs[:, 1]])
    noisy = depth * (1 + depth_noise * uniform(*depth.shape))
    return Cameras(poses, intrinsics), Matches(
        pairs[:, 0], pairs[:, 1], pixels, observed, noisy, torch.ones_like(depth)
    )


def disturbed(cameras: Cameras, size: float) -> Cameras:
    generator = torch.Generator().manual_seed(9)
    vectors = size * torch.randn(2, VIEWS, 3, generator=generator, dtype=torch.float64)
    vectors[:, 0] = 0
    return replace(cameras, camera_from_world=rigid(turned(vectors[0]), vectors[1]) @ cameras.camera_from_world)


def apart(a: Cameras, b: Cameras) -> float:
    return float((a.camera_from_world - b.camera_from_world).abs().max())


def test_exact_matches_lead_back_to_the_exact_cameras() -> None:
    truth, matches = scene(1)
    found = adjust(matches, disturbed(truth, 0.05), BundleConfig(iterations=20), known_intrinsics=True)
    assert apart(found.cameras, truth) < 0.02 * apart(disturbed(truth, 0.05), truth)
    assert torch.equal(found.cameras.camera_from_world[0], truth.camera_from_world[0])


def test_wrong_depths_hardly_move_the_cameras() -> None:
    truth, matches = scene(2, depth_noise=0.3)
    start = disturbed(truth, 0.05)
    found = adjust(matches, start, BundleConfig(iterations=20), known_intrinsics=True)
    trusting = adjust(matches, start, BundleConfig(iterations=20, depth_noise=1e-3), known_intrinsics=True)
    assert apart(found.cameras, truth) < 0.5 * apart(trusting.cameras, truth)


def test_wrong_depths_do_not_shorten_the_path() -> None:
    ratios = []
    for seed in range(6):
        truth, matches = scene(seed, depth_noise=0.4)
        found = adjust(matches, truth, BundleConfig(iterations=20), known_intrinsics=True).cameras
        lengths = [camera.camera_from_world[1:, :3, 3].norm(dim=1) for camera in (found, truth)]
        ratios.append(float((lengths[0] / lengths[1]).mean()))
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.03)


def test_a_focal_length_is_found_unless_it_is_known() -> None:
    truth, matches = scene(3)
    wrong = truth.intrinsics.clone()
    wrong[:, :2, :2] *= 1.15
    start = replace(truth, intrinsics=wrong)
    free = adjust(matches, start, BundleConfig(iterations=20)).cameras.intrinsics[:, 0, 0]
    assert torch.allclose(free, truth.intrinsics[:, 0, 0], rtol=0.02)
    fixed = adjust(matches, start, known_intrinsics=True).cameras.intrinsics
    assert torch.equal(fixed, wrong)


def test_wrong_matches_are_outvoted() -> None:
    truth, matches = scene(4)
    observed = matches.observed.clone()
    observed[:, ::4] += 15
    found = adjust(replace(matches, observed=observed), disturbed(truth, 0.02), known_intrinsics=True)
    assert apart(found.cameras, truth) < 0.01


def test_a_views_depth_scale_is_found() -> None:
    truth, matches = scene(5)
    depth = torch.where((matches.source == 2)[:, None], matches.depth / 1.1, matches.depth)
    found = adjust(replace(matches, depth=depth), truth, BundleConfig(depth_noise=0.02), known_intrinsics=True)
    ratio = found.depth_scale[2] / found.depth_scale[[0, 1, 3]].mean()
    assert float(ratio) == pytest.approx(1.1, rel=0.02)


def test_padding_counts_for_nothing() -> None:
    truth, matches = scene(6)
    start = disturbed(truth, 0.05)
    valid = matches.valid.clone()
    valid[:, 40:] = 0
    garbage = replace(matches, observed=torch.where(valid[..., None] > 0, matches.observed, 1e4 + matches.observed))
    short = Matches(
        matches.source,
        matches.target,
        *(getattr(matches, name)[:, :40] for name in ("pixels", "observed", "depth", "valid")),
    )
    padded, cut = adjust(replace(garbage, valid=valid), start), adjust(short, start)
    assert apart(padded.cameras, cut.cameras) < 1e-9


def test_the_jacobian_is_what_differentiation_finds() -> None:
    cameras, matches = scene(7)
    one = Matches(*(getattr(matches, name)[:1, :1] if name not in ("source", "target") else getattr(matches, name)[:1]
                    for name in matches.__dataclass_fields__))  # fmt: skip
    source, target = int(one.source), int(one.target)

    def missed(step: Tensor) -> Tensor:
        poses = list(cameras.camera_from_world.unbind(0))
        for view, twist in ((source, step[:6]), (target, step[6:12])):
            generator = torch.cat([torch.cat([skew(twist[3:]), twist[:3, None]], dim=1), torch.zeros(1, 4).double()])
            poses[view] = torch.linalg.matrix_exp(generator) @ poses[view]
        scales = torch.zeros(VIEWS, dtype=torch.float64).index_put((one.source,), step[12:13])
        return _linearise(
            _State(torch.stack(poses), scales, step[13], torch.zeros_like(one.depth)), one, cameras.intrinsics
        )[0].flatten()

    zero = torch.zeros(14, dtype=torch.float64)
    none = torch.zeros(VIEWS, dtype=torch.float64)
    state = _State(cameras.camera_from_world, none, zero[13], torch.zeros_like(one.depth))
    analytic = _linearise(state, one, cameras.intrinsics)[1][0, 0]
    assert torch.allclose(-torch.autograd.functional.jacobian(missed, zero), analytic, atol=1e-6)


def test_unproject_and_the_matches_agree_on_pixels() -> None:
    """The scene above and the library mean the same by a pixel: its centre at integer + 0.5."""
    depth = torch.full((1, 4, 4), 2.0, dtype=torch.float64)
    intrinsics = torch.tensor([[[90.0, 0, 2], [0, 90, 2], [0, 0, 1]]], dtype=torch.float64)
    expected = torch.tensor([(0.5 - 2) / 90 * 2, (0.5 - 2) / 90 * 2, 2], dtype=torch.float64)
    assert torch.allclose(unproject(depth, intrinsics)[0, 0, 0], expected)
