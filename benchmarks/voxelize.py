"""Semantic-aware voxelization on the CPU against the published way, at 2 and 4 million Gaussians with 64-d features."""

from __future__ import annotations

import json
import sys

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.common import Report, fresh_process, interleaved_seconds, main, peak_bytes
from ff3r_model.types import Gaussians
from ff3r_model.voxelize import VoxelizeConfig, voxelize

CHANNELS = 64
MEMBERS = 4
"""Mean number of Gaussians per occupied voxel: eight views that overlap by half."""


def scene(count: int, seed: int = 0) -> tuple[Gaussians, float]:
    """Gaussians on the six faces of a box room, in random order, and the ε that puts about `MEMBERS` into a voxel."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    means = torch.rand(count, 3, generator=generator) * torch.tensor([6.0, 4.0, 2.5])
    axis = torch.randint(0, 3, (count, 1), generator=generator)
    means.scatter_(1, axis, 0.01 * torch.randn(count, 1, generator=generator))
    area = 6 * 4 + 4 * 2.5 + 6 * 2.5
    gaussians = Gaussians(
        means=means,
        scales=normal(count, 3).exp() * 0.01,
        quaternions=torch.nn.functional.normalize(normal(count, 4), dim=1),
        harmonics=normal(count, 1, 3),
        opacities=torch.rand(count, generator=generator),
        confidences=normal(count),
        features=normal(count, CHANNELS),
    )
    return gaussians, (MEMBERS * area / count) ** 0.5


def published(gaussians: Gaussians, epsilon: float) -> tuple[Int[Tensor, "m 3"], dict[str, Float[Tensor, "m c"]]]:
    """As the published code does it: unique rows, scatter-softmax of the confidence alone, one scatter per attribute."""
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
        values = getattr(gaussians, name).flatten(1) if getattr(gaussians, name).ndim > 1 else getattr(gaussians, name)[:, None]
        index = inverse[:, None].expand_as(values)
        merged[name] = values.new_zeros(voxels, values.shape[1]).scatter_add(0, index, values * weights[:, None])
    return unique, merged


def measure(quick: bool, report: Report) -> None:
    """Speed-ups, absolute figures, and how time and memory grow."""
    sizes = {"2m": 20_000, "4m": 40_000} if quick else {"2m": 2_000_000, "4m": 4_000_000}
    ours_seconds = {}
    for label, count in sizes.items():
        gaussians, epsilon = scene(count)
        config = VoxelizeConfig(epsilon)
        ours, theirs = interleaved_seconds(
            [lambda: voxelize(gaussians, config), lambda: published(gaussians, epsilon)], repeats=3  # noqa: B023
        )
        ours_seconds[label] = ours
        report.add(f"voxelize_ms_{label}", ours * 1e3, "ms", "with the semantic term")
        report.add(f"voxelize_published_ms_{label}", theirs * 1e3, "ms", "torch.unique(dim=0) + scatter softmax, without it")
        report.add(f"voxelize_speedup_{label}", theirs / ours, "x")
        del gaussians
    peaks = {label: fresh_process("benchmarks.voxelize", "--peak", str(count)) for label, count in sizes.items()}
    for label, peak in peaks.items():
        report.add(f"voxelize_peak_mb_{label}", peak["ours"] / 2**20, "MiB", "above the input, output included")
        report.add(f"voxelize_published_peak_mb_{label}", peak["published"] / 2**20, "MiB")
    report.add("voxelize_time_growth", ours_seconds["4m"] / ours_seconds["2m"], "x", "4M against 2M; 2 is linear")
    report.add("voxelize_memory_growth", peaks["4m"]["ours"] / peaks["2m"]["ours"], "x", "4M against 2M; 2 is linear")


def peaks(count: int) -> dict[str, float]:
    """Peak memory of both ways, in this process."""
    gaussians, epsilon = scene(count)
    ours = peak_bytes(lambda: voxelize(gaussians, VoxelizeConfig(epsilon)))
    return {"ours": ours, "published": peak_bytes(lambda: published(gaussians, epsilon))}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(json.dumps(peaks(int(sys.argv[2]))))
    else:
        main("voxelize", measure)
