"""Long runs: a camera that never comes back sees ten times what the map may hold; ten thousand small windows."""

from __future__ import annotations

import time

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.common import Report, main, resident_bytes
from ff3r_model.core.types import Cameras, Gaussians
from ff3r_model.voxel_map.config import MapConfig
from ff3r_model.voxel_map.voxel_map import VoxelMap

CHANNELS = 32
VOXEL = 0.05
TIMES_THE_CAP = 10
PARTS = 10
"""A run is judged part by part, by the faster half of each: what else the machine does slows windows, never speeds."""
WARM_UP = 0.3
"""Share of the run before the map is full and its memory settled."""
SIDE = 24
"""Pixels a side of a view of the windows that fade."""


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


def ahead(window: int, step: float) -> tuple[Cameras, Float[Tensor, "2 h w"]]:
    """Two views along the corridor, past the walls as far as a window reaches, and what they measure: its open end."""
    pose = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 1.0], [1, 0, 0, 0], [0, 0, 0, 1]]).repeat(2, 1, 1)
    pose[:, 2, 3] = -(window * step + torch.tensor([0.0, 0.1]))
    intrinsics = torch.tensor([[SIDE * 2.0, 0, SIDE / 2], [0, SIDE * 2.0, SIDE / 2], [0, 0, 1]]).expand(2, 3, 3)
    return Cameras(pose, intrinsics), torch.full((2, SIDE, SIDE), 3 * step)


def measure(quick: bool, report: Report) -> None:
    """Bytes against the cap, time per window, and how both change on the way."""
    cap, count, step = (2 * 2**20, 5_000, 4.0) if quick else (24 * 2**20, 60_000, 8.0)
    voxel_map = VoxelMap(MapConfig(voxel_size=VOXEL, max_map_bytes=cap, max_keyframes=0), CHANNELS)
    windows = int(TIMES_THE_CAP * voxel_map.max_rows / (0.3 * count))
    _run(report, "mapping", voxel_map, windows, count, step)
    cap, windows = (2**20, 60) if quick else (2 * 2**20, 10_000)
    voxel_map = VoxelMap(MapConfig(voxel_size=VOXEL, max_map_bytes=cap, max_keyframes=0), CHANNELS)
    _run(report, "small_windows", voxel_map, windows, 400, 0.3)


def _run(report: Report, name: str, voxel_map: VoxelMap, windows: int, count: int, step: float) -> None:
    """Integration and fading alone, in processor time, which other programs on the machine disturb little."""
    times, memory, highest, added = [], [], 0, 0
    for window in range(windows):
        seen, (cameras, depth) = corridor(window, count, step), ahead(window, step)
        before = voxel_map.rows.keys.clone()
        start = time.process_time()
        voxel_map.integrate(seen, window)
        voxel_map.fade(cameras, depth, torch.ones_like(depth))
        times.append(time.process_time() - start)
        added += int((~torch.isin(voxel_map.rows.keys, before)).sum())
        highest = max(highest, voxel_map.nbytes)
        if window % max(1, windows // 100) == 0:
            memory.append(resident_bytes())
    settled = memory[int(WARM_UP * len(memory)) :]
    parts = [
        np.sort(part)[: max(1, len(part) // 2)].mean()
        for part in np.array_split(times[int(WARM_UP * windows) :], PARTS)
    ]
    cap = voxel_map.config.max_map_bytes
    note = (
        f"{windows:,} windows, {added / voxel_map.max_rows:.1f} times the {voxel_map.max_rows:,} voxels under the cap"
    )
    report.add(f"{name}_bytes_share_of_cap", highest / cap, "", "highest ever; at most 1")
    report.add(f"{name}_ms_per_window", float(np.median(times)) * 1e3, "ms", note)
    report.add(f"{name}_ms_worst", max(times) * 1e3, "ms", "with an eviction")
    report.add(f"{name}_time_growth", parts[-1] / parts[0], "x", "last tenth of the settled run against its first")
    report.add(f"{name}_time_spread", max(parts) / min(parts), "x", "slowest tenth against the fastest; 1 is flat")
    report.add(
        f"{name}_memory_growth", max(settled) / settled[0], "x", "of the process, after the map is full; 1 is flat"
    )


if __name__ == "__main__":
    main("slam.long_run", measure)
