"""What a map of a million voxels takes: saving, loading, moving, fading, showing, seen from above."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.common import Report, main
from benchmarks.voxel_map.query import SIZES, filled_map
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Cameras, Similarity
from ff3r_model.voxel_map.file import read_map
from ff3r_model.voxel_map.occupancy_grid import GridConfig, MaskGrids, occupancy_grid
from ff3r_model.voxel_map.queries import Mask, Query
from ff3r_model.voxel_map.voxel_map import VoxelMap


def measure(quick: bool, report: Report) -> None:
    """Everything that goes through a whole map, on one of nano's features."""
    channels, width = SIZES["nano"]
    space = TextSpace(torch.randn(width, channels, generator=torch.Generator().manual_seed(0)))
    voxel_map = filled_map(10_000 if quick else 1_000_000, space)
    _files(report, voxel_map)
    _shown(report, voxel_map)
    _add(report, "million_fade", lambda: voxel_map.fade(*_window()), "eight views of 112 × 112 before an end wall")
    tilt = torch.tensor([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    before = len(voxel_map)
    _add(
        report, "million_move", lambda: voxel_map.transform({0: Similarity(1.0, tilt, torch.ones(3))}), "all, re-fused"
    )
    report.add("million_move_left", len(voxel_map) / before, "", "share of the voxels that met no other")


def _files(report: Report, voxel_map: VoxelMap) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.ff3r"
        _add(report, "million_save", lambda: voxel_map.save(path), f"{len(voxel_map):,} voxels, checksum and fsync")
        size = path.stat().st_size
        report.add("million_file_bytes_per_voxel", size / len(voxel_map), "B")
        _add(report, "million_load", lambda: VoxelMap.load(path), "checksum, norms and index anew")
        _add(report, "million_read", lambda: read_map(path), "baseline: the tensors alone")
        content = path.read_bytes()
        _add(
            report,
            "million_write_plain",
            lambda: (Path(folder) / "plain").write_bytes(content),
            "baseline: bytes alone",
        )


def _shown(report: Report, voxel_map: VoxelMap) -> None:
    _add(
        report,
        "million_cloud",
        lambda: voxel_map.gaussians(voxel_map.spread_rows(100_000)),
        "100,000 Gaussians for a cloud",
    )
    _add(report, "million_cloud_all", voxel_map.gaussians, "baseline: all of them")
    config = GridConfig(resolution=0.05)
    _add(report, "million_occupancy", lambda: occupancy_grid(voxel_map, config), "the whole grid")
    _add(report, "million_mask_ground", lambda: MaskGrids(voxel_map, config), "once per publication")
    cells = voxel_map.cells()[::20]
    centre = torch.full((3,), -0.025, dtype=torch.float64)
    mask = Mask(Query(1, "thing", torch.zeros(1)), 0.5, 0.05, centre, cells, torch.ones(len(cells)), True)
    grids = MaskGrids(voxel_map, config)
    _add(report, "million_mask", lambda: grids.grid(mask), "each query's grid, a mask of 5 %")


def _window() -> tuple[Cameras, torch.Tensor, torch.Tensor]:
    poses = torch.eye(4).repeat(8, 1, 1)
    poses[:, :3, 3] = torch.tensor([-3.0, -3.0, 1.0])
    intrinsics = torch.tensor([[80.0, 0, 56], [0, 80, 56], [0, 0, 1]]).expand(8, 3, 3)
    depth = torch.full((8, 112, 112), 3.0)
    return Cameras(poses, intrinsics), depth, torch.ones_like(depth)


def _add(report: Report, key: str, function: Callable[[], object], note: str) -> None:
    """Wall-clock and processor time of one call."""
    wall, own = time.perf_counter(), time.process_time()
    function()
    report.add(f"{key}_ms", 1e3 * (time.perf_counter() - wall), "ms", note)
    report.add(f"{key}_cpu_ms", 1e3 * (time.process_time() - own), "ms")


if __name__ == "__main__":
    main("million", measure)
