"""Grids from above against loops over voxels and cells, a room whose solids are known, and what Nav2 expects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3r_model.core.geometry import invert_rigid, transform_points, unproject
from ff3r_model.core.types import Gaussians
from ff3r_model.gaussians.voxelize import VoxelizedGaussians
from ff3r_model.synthetic import make_room, make_trajectory, pinhole, render
from ff3r_model.voxel_map.config import MapConfig
from ff3r_model.voxel_map.occupancy_grid import MAX_GRID_SIDE, Grid, GridConfig, MaskGrids, floor_height, occupancy_grid
from ff3r_model.voxel_map.queries import Mask, Query
from ff3r_model.voxel_map.voxel_map import VoxelMap

Cells = list[tuple[int, int, int]]


def gaussians(means: torch.Tensor) -> Gaussians:
    count = len(means)
    return Gaussians(
        means=means,
        scales=torch.full((count, 3), 0.01),
        quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        harmonics=torch.zeros(count, 1, 3),
        opacities=torch.ones(count),
        confidences=torch.zeros(count),
        features=torch.ones(count, 2),
    )


def voxels_at(cells: Cells, voxel_size: float = 0.1, members: float = 10.0) -> VoxelizedGaussians:
    places = torch.tensor(cells, dtype=torch.int32).view(-1, 3)
    mass = torch.full((len(places),), math.log(members))
    return VoxelizedGaussians(gaussians(places * voxel_size), places, mass, voxel_size)


def map_of(cells: Cells, voxel_size: float = 0.1, members: float = 10.0) -> VoxelMap:
    voxel_map = VoxelMap(MapConfig(voxel_size=voxel_size, max_map_bytes=2**24, max_keyframes=0), 2)
    voxel_map.integrate(voxels_at(cells, voxel_size, members), 0)
    return voxel_map


def mask_of(indices: Cells, scores: list[float], voxel_size: float = 0.1) -> Mask:
    query = Query(1, "chair", torch.zeros(24))
    cells = torch.tensor(indices, dtype=torch.int32).view(-1, 3)
    return Mask(query, 0.5, voxel_size, torch.full((3,), -voxel_size / 2).double(), cells, torch.tensor(scores), True)


def listed(grid: Grid) -> dict[tuple[int, int], int]:
    """Known cells by the (row, column) that they would have in a grid whose corner is at the map's origin."""
    row, column = round(grid.origin[1] / grid.resolution), round(grid.origin[0] / grid.resolution)
    return {(r + row, c + column): int(grid.data[r, c]) for r, c in (grid.data >= 0).nonzero().tolist()}


def under(cell: tuple[int, int, int], voxel_size: float, resolution: float) -> set[tuple[int, int]]:
    """Grid cells that a voxel counts for: a fine enough lattice of points in it, at least its centre."""
    count = max(1, math.ceil(voxel_size / resolution - 1e-6))
    steps = [(step + 0.5) / count - 0.5 for step in range(count)]
    along = [[math.floor((cell[axis] + step) * voxel_size / resolution + 1e-6) for step in steps] for axis in (1, 0)]
    return {(row, column) for row in along[0] for column in along[1]}


RANDOM_CELLS = st.lists(st.tuples(*[st.integers(-20, 20)] * 3), min_size=1, max_size=40, unique=True)


@settings(max_examples=30, deadline=None)
@given(cells=RANDOM_CELLS, resolution=st.floats(0.03, 0.7), seed=st.integers(0, 99))
def test_masks_equal_a_loop(cells: Cells, resolution: float, seed: int) -> None:
    """The largest score in the band's column; 0 where voxels of no match were seen in the band."""
    scores = torch.rand(len(cells), generator=torch.Generator().manual_seed(seed)).tolist()
    voxel_map, config = map_of(cells), GridConfig(resolution=resolution, band=(-0.75, 0.75))
    hits = cells[::2]
    grid = MaskGrids(voxel_map, config).grid(mask_of(hits, scores[: len(hits)]))
    expected: dict[tuple[int, int], int] = {}
    values = dict(zip(hits, scores, strict=False))
    for cell in cells:
        if abs(cell[2] * 0.1) <= 0.75:
            for place in under(cell, 0.1, resolution):
                value = round(100.0 * float(np.float32(values[cell]))) if cell in values else 0
                expected[place] = max(expected.get(place, -1), value)
    assert listed(grid) == expected
    assert grid.data.dtype == torch.int8


@settings(max_examples=30, deadline=None)
@given(cells=RANDOM_CELLS, resolution=st.floats(0.03, 0.7))
def test_occupancy_equals_a_loop(cells: Cells, resolution: float) -> None:
    config = GridConfig(resolution=resolution, band=(0.25, 1.05), floor=(-0.35, 0.25))
    expected: dict[tuple[int, int], int] = {}
    for cell in cells:
        height = cell[2] * 0.1
        value = 100 if 0.25 <= height <= 1.05 else 0 if -0.35 <= height <= 0.25 else None
        for place in under(cell, 0.1, resolution) if value is not None else ():
            expected[place] = max(expected.get(place, 0), value)
    assert listed(occupancy_grid(map_of(cells), config)) == expected


def test_corner_and_orientation() -> None:
    """Rows along y, columns along x; centres on the edge between grid cells belong to the upper one."""
    voxel_map = map_of([(0, 0, 0), (0, 0, 3), (0, 0, 9), (2, 1, 1), (1, 0, 1), (1, 1, 20)])
    mask = mask_of([(0, 0, 0), (0, 0, 3), (0, 0, 9), (2, 1, 1)], [0.6, 0.8, 1.0, 0.7])
    grid = MaskGrids(voxel_map, GridConfig(resolution=0.1, band=(-0.05, 0.5))).grid(mask)
    assert grid.data.tolist() == [[80, 0, -1], [-1, -1, 70]]
    assert grid.origin == pytest.approx((0.0, 0.0))
    shifted = map_of([(-3, 5, 2), (-1, 5, 2)])
    grid = MaskGrids(shifted, GridConfig(resolution=0.1)).grid(mask_of([(-1, 5, 2)], [0.9]))
    assert (grid.data.tolist(), grid.origin) == ([[0, -1, 90]], pytest.approx((-0.3, 0.5)))


def test_grids_of_one_map_do_not_paint_on_each_other() -> None:
    grids = MaskGrids(map_of([(0, 0, 2), (1, 0, 2)]), GridConfig())
    first, second = grids.grid(mask_of([(0, 0, 2)], [1.0])), grids.grid(mask_of([(1, 0, 2)], [0.5]))
    assert (first.data.tolist(), second.data.tolist()) == ([[100, 0]], [[0, 50]])
    assert grids.grid(mask_of([], [])).data.tolist() == [[0, 0]]


def test_single_gaussians_are_no_obstacle() -> None:
    assert listed(occupancy_grid(map_of([(0, 0, 5)], members=1.5), GridConfig())) == {}
    assert listed(occupancy_grid(map_of([(0, 0, 5)], members=2.5), GridConfig())) == {(0, 0): 100}


def test_what_untrusted_windows_brought_is_neither_obstacle_nor_floor() -> None:
    config, voxel_map = GridConfig(resolution=0.1), map_of([(0, 0, 5), (3, 0, 0)])
    assert listed(occupancy_grid(voxel_map, config)) == {(0, 0): 100, (0, 3): 0}
    voxel_map.untrusted.add(0)
    assert listed(occupancy_grid(voxel_map, config)) == {}
    restored = VoxelMap.restored(voxel_map.header(), voxel_map.tensors(), None)
    assert restored.untrusted == {0}


def test_what_untrusted_windows_brought_is_in_no_mask_grid() -> None:
    """Neither as a match nor as seen; what trusted windows brought beside and above it stays."""
    cells = [(0, 0, 2), (1, 0, 2), (0, 0, 5), (2, 0, 2)]
    voxel_map = map_of(cells[:2])
    voxel_map.integrate(voxels_at(cells[2:]), window_id=1)
    mask, config = mask_of(cells, [0.3, 0.6, 0.9, 0.8]), GridConfig(resolution=0.1)
    assert listed(MaskGrids(voxel_map, config).grid(mask)) == {(0, 0): 90, (0, 1): 60, (0, 2): 80}
    voxel_map.untrusted.add(1)
    assert listed(MaskGrids(voxel_map, config).grid(mask)) == {(0, 0): 30, (0, 1): 60}


def test_a_keepout_filter_finds_its_values() -> None:
    """Nav2: base + multiplier · value; for a keepout (0, 1) 100 is lethal, 0 free, and −1 is passed over."""
    voxel_map = map_of([(0, 0, 2), (1, 0, 2)])
    grid = MaskGrids(voxel_map, GridConfig(match=100)).grid(mask_of([(0, 0, 2)], [0.6]))
    assert grid.data.tolist() == [[100, 0]]
    speed = MaskGrids(voxel_map, GridConfig(match=30)).grid(mask_of([(0, 0, 2)], [0.6]))
    percent_of_full_speed = 100 - 1 * speed.data[0].int()  # base 100, multiplier −1
    assert percent_of_full_speed.tolist() == [70, 100]
    for values in (grid.data, speed.data):
        assert values.amin() >= -1
        assert values.amax() <= 100


def test_nothing_and_too_much(caplog: pytest.LogCaptureFixture) -> None:
    empty = map_of([])
    assert occupancy_grid(empty, GridConfig()).data.shape == (0, 0)
    assert MaskGrids(empty, GridConfig()).grid(mask_of([], [])).data.shape == (0, 0)
    assert MaskGrids(empty, GridConfig()).grid(mask_of([(0, 0, 2)], [1.0])).data.shape == (0, 0)
    cells = [(0, 0, 2), (1, 0, 2), (0, 1, 2), (900_000, 900_000, 2)]
    grid = MaskGrids(map_of(cells), GridConfig()).grid(mask_of(cells, [1.0] * 4))
    assert max(grid.data.shape) <= MAX_GRID_SIDE
    assert (grid.data == 100).sum() == 3
    assert "cut" in caplog.text
    with pytest.raises(ValueError, match="resolution"):
        GridConfig(resolution=0.0)
    with pytest.raises(ValueError, match="101"):
        GridConfig(match=101)


def test_a_rooms_floor_is_free_and_its_furniture_is_not() -> None:
    """A tour of a room without tables to look under, and its solids as they are: free and occupied within a cell."""
    room = make_room(5)
    poses, matrix = make_trajectory(room, 1, 40, step=0.25), pinhole(64, 64, 90.0).expand(40, 3, 3)
    views = render(room, poses, matrix, 64, 64)
    points = transform_points(
        invert_rigid(views.cameras.camera_from_world), unproject(views.depth, matrix).flatten(1, 2)
    )
    voxel_map = VoxelMap(MapConfig(max_map_bytes=2**24, max_keyframes=0), 2)
    voxel_map.integrate(gaussians(points.flatten(0, 1)), 0)
    grid = occupancy_grid(voxel_map, GridConfig())
    rows, columns = torch.meshgrid(*map(torch.arange, grid.data.shape), indexing="ij")
    x, y = (grid.origin[0] + (columns + 0.5) * 0.1).flatten(), (grid.origin[1] + (rows + 0.5) * 0.1).flatten()
    column_of_points = torch.stack(
        [torch.stack([x, y, torch.full_like(x, z)], dim=1) for z in np.arange(0.15, 1.5, 0.1)]
    )
    clearance = room.clearance(column_of_points.flatten(0, 1).float()).view(len(column_of_points), -1).amin(dim=0)
    values = grid.data.flatten()
    assert (values == 0).sum() > 300
    assert (values == 100).sum() > 100
    assert (clearance[values == 0] > 0).double().mean() > 0.98
    assert clearance[values == 0].min() > -0.05
    assert clearance[values == 100].max() < 0.1
    free = clearance > 0.14  # the lowest height is 0.15 above the floor
    assert (values[free] == 0).double().mean() > 0.6


def test_the_floor_is_the_lowest_full_layer() -> None:
    """A room's floor counts, strays below it do not."""
    side = torch.arange(20)
    floor = torch.cartesian_prod(side, side, torch.tensor([-10]))
    wall = torch.cartesian_prod(side, torch.tensor([0]), torch.arange(-10, 15))
    strays = torch.tensor([[3, 3, -14], [8, 2, -12]])
    cells = torch.cat([floor, wall[1:], strays]).unique(dim=0)
    assert floor_height(map_of(cells.tolist(), voxel_size=0.1)) == pytest.approx(-1.0)
