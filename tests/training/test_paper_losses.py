"""Each of the paper's losses against a version of the equation that goes through pixels one at a time."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS

from ff3r_model.core.geometry import rigid
from ff3r_model.core.types import Cameras
from ff3r_model.training.objectives.loss import total_loss
from ff3r_model.training.objectives.paper import PaperConfig, PaperObjective
from ff3r_model.training.objectives.paper_losses import camera_loss, confident, depth_loss, feature_loss, rgb_loss
from ff3r_model.training.objectives.perceptual import LPIPS, TrunkError, perceptual_distance
from ff3r_model.training.objectives.warping import correspondences, sample_pairs, warping_loss

HEIGHT, WIDTH = 7, 9


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


class Constant(nn.Module):
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return torch.tensor(0.3, dtype=images.dtype)


def test_rgb() -> None:
    ours, theirs = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    total = sum(abs(float(ours[i]) - float(theirs[i])) for i in product(range(2), range(3), range(4), range(5)))
    loss = rgb_loss(ours, theirs, Constant(), 0.05)
    assert float(loss) == pytest.approx(total / 120 + 0.05 * 0.3)


def test_feature() -> None:
    ours, theirs = random(2, 6, 3, 4) - 0.5, random(2, 6, 3, 4, seed=1) - 0.5
    theirs[1, :, 2, 3] = 0
    cells = [cell for cell in product(range(2), range(3), range(4)) if cell != (1, 2, 3)]
    expected = [1 - cosine(ours[v, :, r, c], theirs[v, :, r, c]) for v, r, c in cells]
    assert float(feature_loss(ours, theirs)) == pytest.approx(sum(expected) / len(cells))
    assert float(feature_loss(ours, torch.zeros_like(ours))) == 0


def scene() -> tuple[Tensor, Tensor, Cameras]:
    """Features, depth and cameras of three views that see mostly the same; one corner's depth is unknown."""
    poses = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    for view, angle in ((1, 0.06), (2, -0.1)):
        turn = [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
        poses[view] = rigid(torch.tensor(turn).double(), torch.tensor([0.1 * view, -0.05, 0.02 * view]).double())
    intrinsics = torch.tensor([[8.0, 0, 4.4], [0, 7.5, 3.6], [0, 0, 1]], dtype=torch.float64).repeat(3, 1, 1)
    depth = 2 + 0.15 * random(3, HEIGHT, WIDTH, seed=3)
    depth[0, :2, :2] = 0
    return random(3, 4, HEIGHT, WIDTH, seed=2) - 0.5, depth, Cameras(poses, intrinsics)


def bilinear(image: Tensor, u: float, v: float) -> Tensor:
    """With the border's value beyond the outermost centres."""
    x, y = min(max(u - 0.5, 0), WIDTH - 1), min(max(v - 0.5, 0), HEIGHT - 1)
    left, top = min(int(x), WIDTH - 2), min(int(y), HEIGHT - 2)
    a, b = x - left, y - top
    upper = (1 - a) * image[:, top, left] + a * image[:, top, left + 1]
    return (1 - b) * upper + b * ((1 - a) * image[:, top + 1, left] + a * image[:, top + 1, left + 1])


def test_warping() -> None:
    features, depth, cameras = scene()
    tolerance, total, count, refused = 0.04, 0.0, 0, {"outside": 0, "hidden": 0, "unknown": 0}
    for i, j in ((0, 1), (1, 0), (0, 2), (2, 0)):
        k, pose = cameras.intrinsics, cameras.camera_from_world
        for row, column in product(range(HEIGHT), range(WIDTH)):
            z = depth[i, row, column]
            if z == 0:
                refused["unknown"] += 1
                continue
            ray = torch.linalg.inv(k[i]) @ torch.tensor([column + 0.5, row + 0.5, 1]).double()
            world = torch.linalg.inv(pose[i]) @ torch.cat([ray * z, torch.ones(1).double()])
            x, y, s = (k[j] @ (pose[j] @ world)[:3]).tolist()
            u, v = x / s, y / s
            if not (0 < u < WIDTH and 0 < v < HEIGHT):
                refused["outside"] += 1
            elif depth[j, int(v), int(u)] == 0 or abs(float(depth[j, int(v), int(u)]) - s) >= tolerance * s:
                refused["hidden"] += 1
            else:
                total += 1 - cosine(features[i, :, row, column], bilinear(features[j], u, v))
                count += 1
    assert count > 50 and all(refused.values()), "the scene tries everything"
    loss = warping_loss(features, depth, cameras, torch.tensor([[0, 1], [0, 2]]), tolerance)
    assert float(loss) == pytest.approx(total / count, rel=1e-9)


def test_warping_of_what_agrees_costs_nothing_and_of_nothing_too() -> None:
    """A wall seen straight on: features that are linear in the world agree exactly wherever both views see them."""
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = -0.25
    cameras = Cameras(poses, torch.tensor([[8.0, 0, 4.5], [0, 8, 3.5], [0, 0, 1]]).repeat(2, 1, 1))
    depth = torch.full((2, HEIGHT, WIDTH), 2.0)
    columns = (torch.arange(WIDTH) + 0.5 - 4.5) / 8 * 2
    across = torch.stack([columns, columns + 0.25])[:, None].expand(2, HEIGHT, WIDTH)
    features = torch.stack([across, torch.ones_like(across)], dim=1)
    pairs = torch.tensor([[0, 1]])
    assert float(warping_loss(features, depth, cameras, pairs, 0.05)) < 1e-6
    assert float(warping_loss(features.flip(3), depth, cameras, pairs, 0.05)) > 0.01
    found = correspondences(depth, cameras, pairs[:, 0], pairs[:, 1], 0.05)
    assert torch.allclose(found.pixels[0, 3, 5], torch.tensor([4.5, 3.5])) and not found.seen[0, :, 0].any()
    behind = torch.stack([depth[0], depth[0] / 2])
    assert float(warping_loss(features.requires_grad_(), behind, cameras, pairs, 0.05).detach()) == 0


def test_pairs_are_different_and_none_is_drawn_twice() -> None:
    pairs = sample_pairs(5, 7)
    assert len({tuple(pair) for pair in pairs.tolist()}) == 7 and (pairs[:, 0] < pairs[:, 1]).all()
    assert len(sample_pairs(3, 10)) == 3


def test_camera() -> None:
    encodings, teacher, gamma, delta = 3 * random(4, 2, 3, 9) - 1.5, random(2, 3, 9, seed=1) - 0.5, 0.6, 0.8
    total = 0.0
    for k in range(4):
        errors = []
        for b, v in product(range(2), range(3)):
            same = float(encodings[k, b, v, 3:7] @ teacher[b, v, 3:7]) >= 0
            for entry in range(9):
                wanted = float(teacher[b, v, entry]) * (-1 if 3 <= entry < 7 and not same else 1)
                error = abs(float(encodings[k, b, v, entry]) - wanted)
                errors.append(0.5 * error**2 if error <= delta else delta * (error - 0.5 * delta))
        total += gamma ** (3 - k) * sum(errors) / len(errors)
    assert float(camera_loss(encodings, teacher, gamma, delta)) == pytest.approx(
        total / sum(gamma**k for k in range(4))
    )
    flipped = teacher.clone()
    flipped[..., 3:7] *= -1
    assert torch.equal(camera_loss(encodings, flipped, gamma, delta), camera_loss(encodings, teacher, gamma, delta))


def test_depth_of_the_most_confident() -> None:
    ours, theirs, confidence = random(2, 4, 5), 1 + random(2, 4, 5, seed=1), random(2, 4, 5, seed=2)
    theirs[0, 0] = 0
    cells = [cell for cell in product(range(2), range(4), range(5)) if theirs[cell] > 0]
    kept = sorted(cells, key=lambda cell: -float(confidence[cell]))[: round(0.7 * len(cells))]
    mask = confident(confidence, theirs, 0.7)
    assert {tuple(cell) for cell in mask.nonzero().tolist()} == set(kept)
    expected = sum((float(ours[cell]) - float(theirs[cell])) ** 2 for cell in kept) / len(kept)
    assert float(depth_loss(ours, theirs, mask)) == pytest.approx(expected)
    assert int(confident(torch.ones_like(theirs), theirs, 0.7).sum()) == len(cells), "ties are kept"
    nothing = confident(confidence, torch.zeros_like(theirs), 0.7)
    assert not nothing.any() and float(depth_loss(ours, theirs, nothing)) == 0


def test_total() -> None:
    terms = {name: torch.tensor(value) for name, value in
             {"rgb": 1.0, "feature": 2.0, "warp": 3.0, "depth": 4.0, "camera": 5.0}.items()}  # fmt: skip
    losses = PaperObjective(PaperConfig()).losses
    assert float(total_loss(losses, terms)) == pytest.approx(1 + 0.1 * 2 + 0.1 * 3 + 1 * 4 + 10 * 5)
    del terms["depth"], terms["camera"]
    losses = PaperObjective(PaperConfig(distillation=False)).losses
    assert float(total_loss(losses, terms)) == pytest.approx(1.5)


def test_ssim_stands_in_for_lpips_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    distance = perceptual_distance(None)
    assert "SSIM" in caplog.text
    image = random(1, 3, 24, 24).float()
    noisy = (image + 0.3 * random(1, 3, 24, 24, seed=1).float()).requires_grad_()
    assert float(distance(image, image)) == pytest.approx(0, abs=1e-5)
    distance(noisy, image).backward()
    assert noisy.grad is not None and noisy.grad.abs().sum() > 0


def vgg(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """A file of torchvision's VGG-16 with random weights, without the classifier that LPIPS does not need."""
    generator = torch.Generator().manual_seed(0)
    layers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    weights: dict[str, Tensor] = {}
    for layer, before, after in zip(layers, widths[:-1], widths[1:], strict=True):
        weights[f"features.{layer}.weight"] = (
            torch.randn(after, before, 3, 3, generator=generator) * (9 * before) ** -0.5
        )
        weights[f"features.{layer}.bias"] = 0.1 * torch.randn(after, generator=generator)
    torch.save(weights, folder / "vgg.pth")
    return folder / "vgg.pth", weights


def test_lpips_is_torchmetrics_with_the_same_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, weights = vgg(tmp_path)
    for name in ("kaiming_normal_", "normal_", "kaiming_uniform_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)  # 138 M random numbers for nothing
    theirs = _LPIPS(pretrained=True, net="vgg", pnet_rand=True)
    trunk = {name: weights[f"features.{name.split('.', 1)[1]}"] for name in theirs.net.state_dict()}
    theirs.net.load_state_dict(trunk)
    ours = LPIPS(path)
    images = [random(2, 3, 32, 48, seed=seed).float() for seed in (0, 1)]
    expected = theirs(*images, normalize=True).mean()
    assert expected > 0.01
    assert float(ours(*images)) == pytest.approx(float(expected), rel=1e-4)
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_a_file_that_is_no_trunk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrunkError, match=r"no\.pth is not there"):
        LPIPS(tmp_path / "no.pth")
    torch.save({"conv": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(TrunkError, match=r"no 'features.0.weight'"):
        LPIPS(tmp_path / "other.pth")
