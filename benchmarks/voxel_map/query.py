"""A text query against one million voxels on the CPU, at the sizes of nano and of the full network."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.common import Report, main
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Gaussians
from ff3r_model.gaussians.voxelize import VoxelizedGaussians
from ff3r_model.voxel_map.config import MapConfig
from ff3r_model.voxel_map.queries import QuerySet
from ff3r_model.voxel_map.voxel_map import VoxelMap

SIZES = {"nano": (32, 64), "full": (64, 512)}
"""Channels of a voxel's feature and width of the text's space."""
THINGS = 60
"""Kinds of things in the map; a query asks for one of them, eight others are the negatives."""
NOISE = 0.5
"""Of a voxel's feature, against the length of its kind's: about what keeps a mask at its kind's share of the map."""


class Words:
    """Embeddings of THINGS words, each the same at every call; others are drawn anew."""

    def __init__(self, width: int) -> None:
        self.generator = torch.Generator().manual_seed(1)
        self.known: dict[str, Tensor] = {}
        self.width = width

    def __call__(self, texts: list[str]) -> Float[Tensor, "n width"]:
        for text in texts:
            self.known.setdefault(text, torch.randn(self.width, generator=self.generator))
        return torch.stack([self.known[text] for text in texts])


def filled_map(voxels: int, space: TextSpace, seed: int = 0, words: Words | None = None) -> VoxelMap:
    """A map of things, each voxel's feature that of a kind, as near as the space allows, and noise."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.arange(voxels, dtype=torch.int32)
    cells = torch.stack([row % 128, row // 128 % 128, row // 16384], dim=1)
    kinds = (words or Words(space.width))([f"thing {number}" for number in range(THINGS)])
    compact = torch.nn.functional.normalize(torch.linalg.lstsq(space.decoder, kinds.T).solution.T, dim=1)
    noise = torch.randn(voxels, space.channels, generator=generator) * NOISE / space.channels**0.5
    gaussians = Gaussians(
        means=cells * 0.05,
        scales=torch.full((voxels, 3), 0.01),
        quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(voxels, 1),
        harmonics=torch.zeros(voxels, 1, 3),
        opacities=torch.full((voxels,), 0.9),
        confidences=torch.zeros(voxels),
        features=compact[torch.randint(THINGS, (voxels,), generator=generator)] + noise,
    )
    voxel_map = VoxelMap(MapConfig(voxel_size=0.05, max_map_bytes=2**30), space.channels, space)
    voxel_map.integrate(VoxelizedGaussians(gaussians, cells, torch.zeros(voxels), 0.05), 0)
    return voxel_map


def measure(quick: bool, report: Report) -> None:
    """From a text's embedding to its mask: one query after another, sixteen at once, the first after a change."""
    voxels, count = (10_000, 3) if quick else (1_000_000, 20)
    for name, (channels, width) in SIZES.items():
        _measure_size(report, name, voxels, channels, width, count)


def _measure_size(report: Report, name: str, voxels: int, channels: int, width: int, count: int) -> None:
    words = Words(width)
    space = TextSpace(torch.randn(width, channels, generator=torch.Generator().manual_seed(0)))
    voxel_map = filled_map(voxels, space, words=words)
    queries = QuerySet(words, space)
    queries.set_threshold(0.5)
    queries.add("thing 0")
    queries.masks(voxel_map)  # what is kept while the map stays as it is
    expanded, masks, fresh, own = [], [], [], []
    for number in range(count):
        queries.clear()
        query = queries.add(f"thing {number}")
        start = time.process_time()
        masks.append(_seconds(lambda: queries.masks(voxel_map)))
        own.append(time.process_time() - start)
        voxel_map.revision += 1
        fresh.append(_seconds(lambda: queries.masks(voxel_map)))
        if number % 7 == 0:
            embedding = query.embedding
            expanded.append(_seconds(lambda embedding=embedding: _expand_then_compare(voxel_map, space, embedding)))
    share = len(queries.masks(voxel_map)[0].indices) / voxels
    p50, p95 = _percentile(masks, 0.5), _percentile(masks, 0.95)
    baseline = _percentile(expanded, 0.5)
    note = f"of {count} queries, {voxels:,} voxels, {len(queries.config.negatives)} negatives, masks of {share:.1%}"
    report.add(f"query_{name}_ms_p95", p95 * 1e3, "ms", note)
    report.add(f"query_{name}_ms_p50", p50 * 1e3, "ms")
    report.add(f"query_{name}_cpu_ms_p50", _percentile(own, 0.5) * 1e3, "ms", "processor time of the same queries")
    report.add(
        f"query_{name}_fresh_ms_p50", _percentile(fresh, 0.5) * 1e3, "ms", "the first query after the map changed"
    )
    report.add(f"query_{name}_expanded_ms", baseline * 1e3, "ms", f"baseline: decode to {width}, then the cosine alone")
    report.add(f"query_{name}_speedup", baseline / p50, "x", "medians")
    report.add(f"query_{name}_speedup_p95", baseline / p95, "x", "slow queries against the baseline's median")
    queries.clear()
    for number in range(16):
        queries.add(f"thing {number}")
    together = _percentile([_seconds(lambda: queries.masks(voxel_map)) for _ in range(3)], 0.5)
    report.add(f"query_{name}_16_ms", together * 1e3, "ms", "sixteen queries at once")


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _percentile(times: list[float], share: float) -> float:
    return float(np.quantile(times, share))


def _expand_then_compare(voxel_map: VoxelMap, space: TextSpace, text: Float[Tensor, " width"]) -> Float[Tensor, " n"]:
    """In blocks, or a million voxels would need two gigabytes."""
    blocks = (block.float() @ space.decoder.T for block in voxel_map.features.split(2**14))
    return torch.cat([torch.nn.functional.cosine_similarity(block, text[None], dim=1) for block in blocks])


if __name__ == "__main__":
    main("query", measure)
