"""The compositor against closed forms, a brute-force loop over pixels in float64, finite differences, and gsplat."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ff3r_model.core.geometry import rigid
from ff3r_model.core.types import SH_C0, Cameras, Gaussians
from ff3r_model.gaussians import rasterize_gsplat, rasterize_torch
from ff3r_model.gaussians.projected import ProjectedGaussians
from ff3r_model.gaussians.render import RenderConfig, Rendering, render
from ff3r_model.gaussians.spherical_harmonics import basis

HEIGHT, WIDTH = 12, 16
LOW_PASS = 0.3


def cameras(views: int = 1, focal: float = 14.0) -> Cameras:
    """Cameras near the origin that look along z, each a little aside and turned."""
    poses = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    for view in range(1, views):
        angle = 0.1 * view
        turn = torch.tensor(
            [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]],
            dtype=torch.float64,
        )
        poses[view] = rigid(turn, torch.tensor([0.2 * view, -0.1 * view, 0.05], dtype=torch.float64))
    intrinsics = torch.tensor([[focal, 0, 7.7], [0, 1.1 * focal, 6.2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(poses, intrinsics.repeat(views, 1, 1))


def scatter(count: int, seed: int = 0, bands: int = 4, channels: int = 3) -> Gaussians:
    """Random Gaussians in front of the cameras, some behind, beside, faint or opaque."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    means = torch.stack([4 * random(count) - 2, 3 * random(count) - 1.5, 5 * random(count) - 0.5], dim=1)
    return Gaussians(
        means=means,
        scales=0.02 + 0.3 * random(count, 3),
        quaternions=torch.nn.functional.normalize(random(count, 4) - 0.5, dim=1),
        harmonics=random(count, bands, 3) - 0.3,
        opacities=random(count) ** 0.5,
        confidences=random(count),
        features=random(count, channels) - 0.5,
    )


def rotation(q: Tensor) -> Tensor:
    """From wxyz, entry by entry."""
    w, x, y, z = (q / q.norm()).tolist()
    return torch.tensor(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ],
        dtype=torch.float64,
    )


def brute_force(gaussians: Gaussians, pose: Tensor, k: Tensor, height: int, width: int) -> dict[str, Tensor]:
    """One camera, one pixel and one Gaussian at a time."""
    splats = []
    for i in range(len(gaussians)):
        point = pose[:3, :3] @ gaussians.means[i] + pose[:3, 3]
        x, y, z = point.tolist()
        if z <= 0.01 or gaussians.opacities[i] < 1 / 255:
            continue
        spread = pose[:3, :3] @ rotation(gaussians.quaternions[i]) @ torch.diag(gaussians.scales[i])
        fx, fy, cx, cy = (float(k[a]) for a in ((0, 0), (1, 1), (0, 2), (1, 2)))
        margin_x, margin_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
        tx = min(max(x / z, -cx / fx - margin_x), (width - cx) / fx + margin_x)
        ty = min(max(y / z, -cy / fy - margin_y), (height - cy) / fy + margin_y)
        jacobian = torch.tensor([[fx / z, 0, -fx * tx / z], [0, fy / z, -fy * ty / z]], dtype=torch.float64)
        covariance = jacobian @ spread @ spread.T @ jacobian.T + LOW_PASS * torch.eye(2, dtype=torch.float64)
        centre = -pose[:3, :3].T @ pose[:3, 3]
        toward = gaussians.means[i] - centre
        weights = basis((toward / toward.norm())[None], gaussians.harmonics.shape[1])[0]
        color = (weights @ gaussians.harmonics[i] + 0.5).clamp(min=0)
        conic = covariance.inverse()
        shape = (fx * x / z + cx, fy * y / z + cy, float(conic[0, 0]), float(conic[0, 1]), float(conic[1, 1]))
        splats.append((z, shape, float(gaussians.opacities[i]), color, gaussians.features[i]))
    splats.sort(key=lambda item: item[0])
    out = {
        "colors": torch.zeros(height, width, 3, dtype=torch.float64),
        "features": torch.zeros(height, width, gaussians.features.shape[1], dtype=torch.float64),
        "depth": torch.zeros(height, width, dtype=torch.float64),
        "alpha": torch.zeros(height, width, dtype=torch.float64),
    }
    for row in range(height):
        for column in range(width):
            left = 1.0
            for z, (u, v, a, b, c), opacity, color, feature in splats:
                dx, dy = column + 0.5 - u, row + 0.5 - v
                alpha = min(0.999, opacity * math.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy)))
                if alpha < 1 / 255:
                    continue
                if left * (1 - alpha) <= 1e-4:
                    break
                weight = left * alpha
                out["colors"][row, column] += weight * color
                out["features"][row, column] += weight * feature
                out["depth"][row, column] += weight * z
                out["alpha"][row, column] += weight
                left *= 1 - alpha
    out["depth"] = torch.where(out["alpha"] > 0, out["depth"] / out["alpha"], out["depth"])
    return out


def one(z: float, opacity: float, color: float, scale: float = 0.2, x: float = 0.0) -> Gaussians:
    """A round grey Gaussian on the axis of a camera whose principal point it then covers."""
    return Gaussians(
        means=torch.tensor([[x, 0.0, z]]),
        scales=torch.full((1, 3), scale),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]),
        harmonics=torch.full((1, 1, 3), (color - 0.5) / SH_C0),
        opacities=torch.tensor([opacity]),
        confidences=torch.zeros(1),
        features=torch.tensor([[color, -color]]),
    )


def join(*parts: Gaussians) -> Gaussians:
    names = Gaussians.__dataclass_fields__
    return Gaussians(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def frontal(size: int = 9, focal: float = 20.0) -> Cameras:
    """A camera at the origin whose optical axis hits the centre of the middle pixel."""
    intrinsics = torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]])
    return Cameras(torch.eye(4)[None], intrinsics)


def test_one_gaussian_is_the_projected_bell() -> None:
    z, opacity, scale, focal = 2.0, 0.7, 0.2, 20.0
    seen = render(one(z, opacity, 0.8, scale), frontal(focal=focal), 9, 9)
    variance = (focal * scale / z) ** 2 + LOW_PASS
    grid = torch.arange(9) - 4.0
    expected = opacity * torch.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * variance))
    expected = torch.where(expected >= 1 / 255, expected, torch.zeros(()))
    assert torch.allclose(seen.alpha[0], expected, atol=1e-6)
    assert torch.allclose(seen.colors[0], 0.8 * expected[..., None].expand(9, 9, 3), atol=1e-6)
    assert torch.allclose(seen.features[0], torch.stack([0.8 * expected, -0.8 * expected], dim=-1), atol=1e-6)
    assert torch.allclose(seen.depth[0], torch.where(expected > 0, z, 0.0))


@pytest.mark.parametrize("nearest_last", [False, True])
def test_two_gaussians_are_painted_by_depth_whatever_their_order(nearest_last: bool) -> None:
    near, far = one(1.0, 0.6, 1.0), one(3.0, 0.5, 0.25)
    seen = render(join(far, near) if nearest_last else join(near, far), frontal(), 9, 9)
    middle = (0, 4, 4)
    weights = (0.6, 0.4 * 0.5)
    assert float(seen.alpha[middle]) == pytest.approx(sum(weights), abs=1e-6)
    assert float(seen.colors[middle][0]) == pytest.approx(weights[0] + 0.25 * weights[1], abs=1e-6)
    assert float(seen.depth[middle]) == pytest.approx((weights[0] + 3 * weights[1]) / sum(weights), abs=1e-5)


def test_nothing_is_seen_of_what_is_hidden_faint_or_behind() -> None:
    wall = join(*[one(1.0 + 0.01 * i, 0.95, 0.5, scale=5.0) for i in range(4)])
    seen = render(join(wall, one(9.0, 1.0, 1.0)), frontal(), 9, 9)
    assert float(seen.alpha[0, 4, 4]) == pytest.approx(1 - 0.05**3, abs=1e-6), "a fourth would leave less than 1e-4"
    nothing = render(join(one(-1.0, 1.0, 1.0), one(1.0, 0.003, 1.0), one(1.0, 1.0, 1.0, x=9.0)), frontal(), 9, 9)
    assert not nothing.alpha.any() and not nothing.depth.any() and not nothing.colors.any()


@pytest.mark.parametrize(("seed", "bands"), [(0, 4), (1, 1), (2, 9)])
def test_agrees_with_a_loop_over_pixels(seed: int, bands: int) -> None:
    gaussians, views = scatter(60, seed, bands), cameras(2)
    seen = render(gaussians, views, HEIGHT, WIDTH)
    for view in range(2):
        expected = brute_force(gaussians, views.camera_from_world[view], views.intrinsics[view], HEIGHT, WIDTH)
        assert (expected["alpha"] > 0.9).any() and (expected["alpha"] < 0.5).any(), "the scene says something"
        for name, value in expected.items():
            assert torch.allclose(getattr(seen, name)[view], value, atol=1e-9), name


def test_float32_is_close_to_float64() -> None:
    gaussians, views = scatter(400, 3), cameras(1)
    exact = render(gaussians, views, HEIGHT, WIDTH)
    single = Gaussians(**{name: getattr(gaussians, name).float() for name in Gaussians.__dataclass_fields__})
    seen = render(single, Cameras(views.camera_from_world.float(), views.intrinsics.float()), HEIGHT, WIDTH)
    difference = (seen.colors.double() - exact.colors).abs()
    assert difference.median() < 1e-6 and difference.max() < 0.01, "a Gaussian at a threshold may fall either side"


def test_gradients_by_finite_differences() -> None:
    """In everything: all attributes that are rendered, poses and intrinsics."""
    gaussians, views = scatter(12, 5, channels=2), cameras(1)
    gaussians = replace(gaussians, scales=gaussians.scales + 0.2, opacities=gaussians.opacities * 0.8)
    names = ("means", "scales", "quaternions", "harmonics", "opacities", "features")

    def picture(pose: Tensor, intrinsics: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        changed = replace(gaussians, **dict(zip(names, values, strict=True)))
        seen = render(changed, Cameras(pose, intrinsics), 6, 8)
        return seen.colors, seen.depth, seen.alpha, seen.features

    inputs = [views.camera_from_world, views.intrinsics * 0.5, *(getattr(gaussians, name) for name in names)]
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(picture, inputs, eps=1e-7, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_low_pass_and_near_plane_can_be_chosen() -> None:
    scene = one(1.0, 0.9, 1.0, scale=0.01)
    sharp, soft = (render(scene, frontal(), 9, 9, config=RenderConfig(low_pass=s)) for s in (0.05, 2.0))
    assert sharp.alpha.sum() < soft.alpha.sum()
    assert not render(scene, frontal(), 9, 9, config=RenderConfig(near=1.5)).alpha.any()


def test_agrees_with_gsplat() -> None:
    """Images within 1e-3 and gradients within 1e-2, relative."""
    if not torch.cuda.is_available():
        pytest.skip("gsplat renders on a CUDA device alone, and there is none")
    pytest.importorskip("gsplat", reason="gsplat is not installed")
    gaussians, views = scatter(300, 7, channels=40), cameras(2)
    slow, fast = (differentiated(gaussians, views, device) for device in ("cpu", "cuda"))
    for ours, theirs in zip(slow, fast, strict=True):
        assert (ours - theirs).norm() < 1e-2 * ours.norm()
    for ours, theirs in zip(slow[:4], fast[:4], strict=True):
        assert (ours - theirs).abs().mean() < 1e-3 * ours.abs().mean()


def test_gsplat_is_given_the_same_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for gsplat that paints what it is given with the compositor: same picture, same gradients."""

    def rasterization(*, means: Tensor, covars: Tensor, viewmats: Tensor, Ks: Tensor, **given: Any) -> tuple[Any, ...]:
        assert given["quats"] is None and given["scales"] is None and given["packed"] is False
        assert torch.equal(viewmats, torch.eye(4, dtype=means.dtype)[None]) and not Ks.requires_grad
        axes = torch.linalg.cholesky(covars)
        image = rasterize_torch.rasterize(
            ProjectedGaussians(
                means, axes, given["opacities"], given["colors"], Ks[0],
                given["height"], given["width"], given["near_plane"], given["eps2d"],
            )
        )  # fmt: skip
        return image[None], None, None

    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(rasterization=rasterization))
    generator = torch.Generator().manual_seed(2)
    points = torch.randn(30, 3, generator=generator, dtype=torch.float64) + torch.tensor([0.0, 0, 4])
    axes = 0.3 * torch.randn(30, 3, 3, generator=generator, dtype=torch.float64)
    opacities, values = (torch.rand(30, *s, generator=generator, dtype=torch.float64) for s in ((), (5,)))
    intrinsics = torch.tensor([[20.0, 0, 12], [0, 18, 8], [0, 0, 1]], dtype=torch.float64)
    pictures = []
    for rasterize in (rasterize_torch.rasterize, rasterize_gsplat.rasterize):
        inputs = [x.clone().requires_grad_() for x in (points, axes, opacities, values, intrinsics)]
        image = rasterize(ProjectedGaussians(*inputs, height=16, width=24, near=0.5, low_pass=0.3))
        image.square().sum().backward()
        lens = inputs[4].grad[[0, 1, 0, 1], [0, 1, 2, 2]]  # focal lengths and principal point; there is no skew
        pictures.append([image.detach(), *(x.grad for x in inputs[:4]), lens])
    for ours, theirs in zip(*pictures, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def differentiated(gaussians: Gaussians, views: Cameras, device: str) -> list[Tensor]:
    """Images, then gradients of a weighted sum of them by everything."""
    names = list(Gaussians.__dataclass_fields__)
    values = [getattr(gaussians, name).float().to(device).requires_grad_() for name in names]
    lenses = [x.float().to(device).requires_grad_() for x in (views.camera_from_world, views.intrinsics)]
    seen = render(Gaussians(**dict(zip(names, values, strict=True))), Cameras(*lenses), HEIGHT, WIDTH)
    images = [getattr(seen, name) for name in Rendering.__dataclass_fields__]
    generator = torch.Generator().manual_seed(0)
    loss = sum((image * torch.rand(image.shape, generator=generator).to(device)).sum() for image in images)
    assert isinstance(loss, Tensor)
    loss.backward()
    return [x.detach().cpu() for x in images] + [x.grad.cpu() for x in (*values, *lenses) if x.grad is not None]
