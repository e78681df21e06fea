"""gsplat's pictures and gradients against the CPU renderer's, of the same Gaussians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from benchmarks.common import interleaved_seconds
from benchmarks.gpu.network import Figures, NotMeasured
from benchmarks.network.engine import waiting
from ff3r_model.core.types import Cameras, Gaussians
from ff3r_model.gaussians.render import Rendering, render

CHANNELS = 32


def gaussians(count: int) -> Gaussians:
    """Small ones before the camera."""
    draw = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw)

    return Gaussians(
        means=(uniform(count, 3) - 0.5) * torch.tensor([4.0, 3.0, 2.0]) + torch.tensor([0.0, 0.0, 3.0]),
        scales=0.01 + 0.03 * uniform(count, 3),
        quaternions=torch.nn.functional.normalize(torch.randn(count, 4, generator=draw), dim=1),
        harmonics=uniform(count, 4, 3) - 0.5,
        opacities=uniform(count),
        confidences=uniform(count),
        features=uniform(count, CHANNELS) - 0.5,
    )


def agreement(count: int, height: int, width: int, device: torch.device) -> Figures:
    """Largest differences of colour and depth, relative difference of gradients, and times of a picture."""
    if device.type != "cuda":
        raise NotMeasured("gsplat rasterizes on NVIDIA GPUs alone")
    here, cameras = gaussians(count), camera(height, width)
    there = Gaussians(**{field.name: getattr(here, field.name).to(device) for field in fields(here)})
    seen = Cameras(cameras.camera_from_world.to(device), cameras.intrinsics.to(device))
    ours, theirs = render(here, cameras, height, width), render(there, seen, height, width)
    slow: Callable[[], Rendering] = lambda: render(here, cameras, height, width)  # noqa: E731
    fast = waiting(lambda: render(there, seen, height, width), device)
    cpu, gpu = interleaved_seconds([slow, fast], repeats=3)
    own, other = gradient(here, cameras, height, width), gradient(there, seen, height, width).cpu()
    return {
        "colour_error": float((ours.colors - theirs.colors.cpu()).abs().max()),
        "depth_error": float((ours.depth - theirs.depth.cpu()).abs().max()),
        "gradient_error": float((own - other).norm() / own.norm()),
        "cpu_ms": 1e3 * cpu,
        "gsplat_ms": 1e3 * gpu,
    }


def camera(height: int, width: int) -> Cameras:
    """One at the origin, 70 degrees wide."""
    focal = width / 2 / 0.7
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Cameras(torch.eye(4)[None], intrinsics[None])


def gradient(scene: Gaussians, cameras: Cameras, height: int, width: int) -> Tensor:
    """Of a picture's squared norm, by the means."""
    means = scene.means.detach().requires_grad_()
    render(replace(scene, means=means), cameras, height, width).colors.square().sum().backward()
    assert means.grad is not None
    return means.grad
