"""Semantic-aware voxelization on the CPU against the published way, at 2 and 4 million Gaussians with 64-d features."""

from __future__ import annotations

import json
import sys

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.common import Report, fresh_process, interleaved_seconds, main, peak_bytes
from ff3r_model.core.types import Gaussians
from ff3r_model.gaussians.voxelize import VoxelizeConfig, voxelize

CHANNELS = 64
SIDE = 448
"""Pixels a side of a view; 10 views make 2 million Gaussians, 20 make 4 million."""
MEMBERS = 4
"""About how many Gaussians share a voxel."""
ROOM = (6.0, 4.0, 2.5)


def scene(views: int, side: int = SIDE, seed: int = 0) -> tuple[Gaussians, float]:
    """One Gaussian per pixel of views into a box room, in the pixels' order as a network gives them, and an ε."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    means = torch.cat([_view(side, generator) for _ in range(views)])
    count = len(means)
    gaussians = Gaussians(
        means=means,
        scales=normal(count, 3).exp() * 0.01,
        quaternions=torch.nn.functional.normalize(normal(count, 4), dim=1),
        harmonics=normal(count, 1, 3),
        opacities=torch.rand(count, generator=generator),
        confidences=normal(count),
        features=normal(count, CHANNELS),
    )
    width, depth, height = ROOM
    area = 2 * (width * depth + width * height + depth * height)
    return gaussians, (MEMBERS * area / count) ** 0.5


def _view(side: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """What a camera of 90° sees from a random place in the room, in a random direction, with 1 % of depth noise."""
    room = torch.tensor(ROOM)
    centre = room * (0.2 + 0.6 * torch.rand(3, generator=generator))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
    grid = torch.linspace(-1, 1, side)
    rays = torch.stack(
        [grid[None, :].expand(side, side), grid[:, None].expand(side, side), torch.ones(side, side)], dim=2
    )
    directions = rays.flatten(0, 1) @ turn.T
    distances = (torch.where(directions > 0, room, 0.0) - centre) / directions
    noise = 1 + 0.01 * torch.randn(side * side, generator=generator)
    return centre + directions * (distances.amin(dim=1) * noise)[:, None]


def published(gaussians: Gaussians, epsilon: float) -> tuple[Int[Tensor, "m 3"], dict[str, Float[Tensor, "m c"]]]:
    """As the published code does it: unique rows, scatter-softmax of the confidence, one scatter per attribute."""
    cells = torch.round(gaussians.means / epsilon).int()
    unique, inverse, counts = torch.unique(cells, dim=0, return_inverse=True, return_counts=True)
    voxels = len(counts)
    confidence = gaussians.confidences
    highest = confidence.new_full((voxels,), -torch.inf).scatter_reduce(0, inverse, confidence, "amax")
    weights = torch.exp(confidence - highest[inverse])
    sums = confidence.new_zeros(voxels).scatter_add(0, inverse, weights)
    weights = weights / (sums[inverse] + 1e-6)
    merged = {}
    for name in Gaussians.__dataclass_fields__:
        values = getattr(gaussians, name).reshape(len(inverse), -1)
        index = inverse[:, None].expand_as(values)
        merged[name] = values.new_zeros(voxels, values.shape[1]).scatter_add(0, index, values * weights[:, None])
    return unique, merged


def measure(quick: bool, report: Report) -> None:
    """Speed-ups, absolute figures, and how time and memory grow."""
    side = 32 if quick else SIDE
    sizes = {"2m": 10, "4m": 20}
    ours_seconds = {}
    for label, views in sizes.items():
        ours_seconds[label], theirs = _both(*scene(views, side))
        report.add(f"voxelize_ms_{label}", ours_seconds[label] * 1e3, "ms", "with the semantic term")
        report.add(f"voxelize_published_ms_{label}", theirs * 1e3, "ms", "unique(dim=0), scatter softmax, without it")
        report.add(f"voxelize_speedup_{label}", theirs / ours_seconds[label], "x")
    peaks = {
        label: fresh_process("benchmarks.voxel_map.voxelize", "--peak", str(views), str(side))
        for label, views in sizes.items()
    }
    for label, peak in peaks.items():
        report.add(f"voxelize_peak_mb_{label}", peak["ours"] / 2**20, "MiB", "above the input, output included")
        report.add(f"voxelize_published_peak_mb_{label}", peak["published"] / 2**20, "MiB")
    report.add("voxelize_time_growth", ours_seconds["4m"] / ours_seconds["2m"], "x", "4M against 2M; 2 is linear")
    report.add("voxelize_memory_growth", peaks["4m"]["ours"] / peaks["2m"]["ours"], "x", "4M against 2M; 2 is linear")


def _both(gaussians: Gaussians, epsilon: float) -> list[float]:
    """Seconds of our way and of the published one."""
    config = VoxelizeConfig(epsilon)
    return interleaved_seconds([lambda: voxelize(gaussians, config), lambda: published(gaussians, epsilon)])


def peaks(views: int, side: int) -> dict[str, float]:
    """Peak memory of both ways, in this process."""
    gaussians, epsilon = scene(views, side)
    ours = peak_bytes(lambda: voxelize(gaussians, VoxelizeConfig(epsilon)))
    return {"ours": ours, "published": peak_bytes(lambda: published(gaussians, epsilon))}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(json.dumps(peaks(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main("voxelize", measure)
