"""A text query against one million voxels on the CPU."""

from __future__ import annotations

import torch

from benchmarks.common import Report, main, seconds
from ff3r_model.queries import QuerySet, TextSpace
from ff3r_model.types import Gaussians
from ff3r_model.voxel_map import MapConfig, VoxelMap
from ff3r_model.voxelize import VoxelizedGaussians

CHANNELS, WIDTH = 32, 64
"""Of the shipped nano network."""


def filled_map(voxels: int, space: TextSpace, seed: int = 0) -> VoxelMap:
    """A map of random voxels."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.arange(voxels, dtype=torch.int32)
    cells = torch.stack([row % 128, row // 128 % 128, row // 16384], dim=1)
    gaussians = Gaussians(
        means=cells * 0.05,
        scales=torch.full((voxels, 3), 0.01),
        quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(voxels, 1),
        harmonics=torch.zeros(voxels, 1, 3),
        opacities=torch.full((voxels,), 0.9),
        confidences=torch.zeros(voxels),
        features=torch.randn(voxels, space.channels, generator=generator),
    )
    voxel_map = VoxelMap(MapConfig(voxel_size=0.05, max_map_bytes=2**30), space.channels, space)
    voxel_map.integrate(VoxelizedGaussians(gaussians, cells, torch.zeros(voxels), 0.05), 0)
    return voxel_map


def measure(quick: bool, report: Report) -> None:
    """One query from the text's embedding to its mask; sixteen queries at once; the same without cached norms."""
    voxels = 10_000 if quick else 1_000_000
    generator = torch.Generator().manual_seed(1)
    space = TextSpace(torch.randn(WIDTH, CHANNELS, generator=generator))
    queries = QuerySet(lambda texts: torch.randn(len(texts), WIDTH, generator=generator), space)
    queries.set_threshold(0.9)
    voxel_map = filled_map(voxels, space)
    queries.add("red chair")
    expanded = seconds(lambda: _expand_then_compare(voxel_map, space, queries.active[0].embedding))
    one = seconds(lambda: queries.masks(voxel_map), repeats=5)
    report.add("query_ms_1m", one * 1e3, "ms", "scores and sparse mask of one query, four negatives, 1 M voxels")
    report.add("query_score_ms_1m", 1e3 * seconds(lambda: queries.score(voxel_map.features)), "ms", "norms not cached")
    report.add("query_expanded_ms_1m", expanded * 1e3, "ms", f"baseline: decode to {WIDTH}, then the cosine alone")
    report.add("query_speedup", expanded / one, "x")
    for number in range(15):
        queries.add(f"thing {number}")
    report.add("query_16_ms_1m", 1e3 * seconds(lambda: queries.masks(voxel_map)), "ms", "sixteen queries at once")


def _expand_then_compare(voxel_map: VoxelMap, space: TextSpace, text: torch.Tensor) -> torch.Tensor:
    decoded = voxel_map.features.float() @ space.decoder.T
    return torch.nn.functional.cosine_similarity(decoded, text[None], dim=1)


if __name__ == "__main__":
    main("query", measure)
