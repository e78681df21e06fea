"""A long run: a camera that never comes back sees ten times what the map may hold."""

from __future__ import annotations

import statistics
import time

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.common import Report, main
from ff3r_model.types import Gaussians
from ff3r_model.voxel_map import MapConfig, VoxelMap
from ff3r_model.voxelize import VoxelizeConfig, voxelize

CHANNELS = 32
VOXEL = 0.05
TIMES_THE_CAP = 10


def corridor(window: int, count: int, step: float) -> Gaussians:
    """What a window sees of an endless corridor: floor and walls, two thirds of it seen by the window before."""
    generator = torch.Generator().manual_seed(window)

    def random(*shape: int) -> Float[Tensor, "..."]:
        return torch.rand(*shape, generator=generator)

    along, across, side = random(count) * 3 * step + window * step, random(count) * 3, torch.arange(count) % 3
    zero = torch.zeros(count)
    y = torch.where(side == 0, across - 1.5, torch.where(side == 1, zero - 1.5, zero + 1.5))
    z = torch.where(side == 0, zero, across)
    return Gaussians(
        means=torch.stack([along, y, z], dim=1),
        scales=random(count, 3) * 0.02 + 1e-3,
        quaternions=torch.nn.functional.normalize(random(count, 4) + 0.1, dim=1),
        harmonics=random(count, 1, 3),
        opacities=random(count),
        confidences=random(count),
        features=random(count, CHANNELS),
    )


def measure(quick: bool, report: Report) -> None:
    """Bytes against the cap, and time per window at the end of the run against its beginning."""
    cap, count, step = (2 * 2**20, 5_000, 4.0) if quick else (24 * 2**20, 60_000, 8.0)
    voxel_map = VoxelMap(MapConfig(voxel_size=VOXEL, max_map_bytes=cap), CHANNELS)
    added, window, times, highest = 0, 0, [], 0
    while added < TIMES_THE_CAP * voxel_map.max_rows:
        voxels = voxelize(corridor(window, count, step), VoxelizeConfig(VOXEL))
        start = time.perf_counter()
        added += voxel_map.integrate(voxels, window).added
        times.append(time.perf_counter() - start)
        highest, window = max(highest, voxel_map.nbytes), window + 1
    full = times[len(times) // 5 :]
    half = len(full) // 2
    report.add("mapping_windows", window, "", f"{TIMES_THE_CAP} times the {voxel_map.max_rows:,} voxels under the cap")
    report.add("mapping_bytes_share_of_cap", highest / cap, "", "highest ever; at most 1")
    report.add("mapping_ms_per_window", statistics.median(full) * 1e3, "ms", "integration alone, median")
    report.add("mapping_ms_worst", max(full) * 1e3, "ms")
    growth = statistics.median(full[half:]) / statistics.median(full[:half])
    report.add("mapping_time_growth", growth, "x", "second half of the run against the first; 1 is flat")


if __name__ == "__main__":
    main("mapping_long", measure)
