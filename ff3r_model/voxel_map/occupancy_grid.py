"""The map and its masks seen from above: level grids as nav_msgs/OccupancyGrid and Nav2's costmap filters have them.

A cell is −1 where nothing is known, and 0 to 100 otherwise: 100 is occupied, or a full match. A costmap filter makes
base + multiplier · value of it, and passes over −1. The z axis of the map must point up.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from ff3r_model.voxel_map.hash_index import pack
from ff3r_model.voxel_map.queries import Mask
from ff3r_model.voxel_map.voxel_map import VoxelMap

log = logging.getLogger(__name__)

MAX_GRID_SIDE = 4096
"""Cells along a side of a grid; what lies further from the middle is cut off."""
UNKNOWN, FREE, OCCUPIED = -1, 0, 100
FLOOR_SHARE = 0.3
"""Stray voxels below the floor are fewer; a room's floor is among its fullest layers."""

_EDGE = 1e-6
"""A point this share of a grid cell below the edge of two cells belongs to the upper one."""


@dataclass(frozen=True)
class Grid:
    """A level grid as Nav2 has it: rows along y, columns along x, cell (0, 0) at the lower left."""

    origin: tuple[float, float]
    """x and y of the lower left corner of cell (0, 0)."""
    resolution: float
    data: Int8[Tensor, "rows columns"]
    """0 to 100, −1 where nothing is known."""


@dataclass(frozen=True)
class GridConfig:
    """What of the map a grid shows; lengths and heights in the map's unit. All of it is ours."""

    resolution: float = 0.1
    """Edge of a cell. Finer than the voxels, a voxel covers several cells."""
    band: tuple[float, float] = (0.1, 1.5)
    """Heights in which a robot would hit something, or in which a query's voxels count."""
    floor: tuple[float, float] = (-0.15, 0.1)
    """Heights of what a robot drives on: cells with such voxels and none in the band are free."""
    min_members: float = 2.0
    """Gaussians that a voxel must have been merged from to count as an obstacle: a single one may be an outlier."""
    match: int | None = None
    """Value of a query's cells; None: 100 · score. 100 makes every match lethal for a keepout filter."""

    def __post_init__(self) -> None:
        if not self.resolution > 0:
            raise ValueError(f"the resolution must be positive, not {self.resolution}")
        if self.match is not None and not 0 <= self.match <= OCCUPIED:
            raise ValueError(f"a match is shown by a value of 0 to 100, not {self.match}")


def occupancy_grid(voxel_map: VoxelMap, config: GridConfig) -> Grid:
    """Where a robot can and cannot drive.

    Occupied: a voxel of at least `min_members` Gaussians lies in the band. Free: none does, but floor was seen.
    Neither counts where a window brought it that is not trusted.
    Everything else is unknown, also what lies under a table's top or behind it: rays that passed there prove little
    when the floor itself was not seen.
    """
    heights, trusted = _heights(voxel_map), voxel_map.trusted.cpu()
    solid = _within(heights, config.band) & (voxel_map.members >= config.min_members).cpu() & trusted
    floor = _places(voxel_map, _within(heights, config.floor) & trusted, config.resolution)
    solid_places = _places(voxel_map, solid, config.resolution)
    canvas = _Canvas(torch.cat([floor, solid_places]), config.resolution)
    canvas.paint(floor, FREE)
    canvas.paint(solid_places, OCCUPIED)
    return canvas.grid()


def floor_height(voxel_map: VoxelMap) -> float:
    """z of the floor: the lowest layer of voxels that holds at least FLOOR_SHARE of what the fullest one holds."""
    layers = voxel_map.cells()[:, 2].cpu()
    if not len(layers):
        return 0.0
    low = int(layers.min())
    counts = torch.bincount(layers - low)
    layer = int((counts >= FLOOR_SHARE * counts.max()).nonzero()[0])
    return (low + layer) * voxel_map.config.voxel_size


class MaskGrids:
    """Grids of masks, all over one ground: what the map has seen in the band, found once per change of the map.

    What windows brought that are not trusted is neither seen nor a match, as in `occupancy_grid`.
    """

    def __init__(self, voxel_map: VoxelMap, config: GridConfig) -> None:
        self.config = config
        trusted = voxel_map.trusted
        self._untrusted = pack(voxel_map.cells((~trusted).nonzero().squeeze(1)).cpu())
        seen = _within(_heights(voxel_map), config.band) & trusted.cpu()
        self._seen = _places(voxel_map, seen, config.resolution)
        self._canvas = _Canvas(self._seen, config.resolution)
        self._canvas.paint(self._seen, FREE)

    def grid(self, mask: Mask) -> Grid:
        """The largest score of the mask's voxels in each column of the band; 0 where others were seen, else −1."""
        config = self.config
        chosen = _within(mask.indices[:, 2].double() * mask.voxel_size, config.band)
        rows = (chosen & ~torch.isin(pack(mask.indices), self._untrusted)).nonzero().squeeze(1)
        places, which = _spread(mask.indices[rows], mask.voxel_size, config.resolution)
        canvas = self._canvas.copy()
        scores = (OCCUPIED * mask.scores[rows].double()).round()
        canvas.paint(places, scores[which] if config.match is None else config.match)
        return canvas.grid()


class _Canvas:
    """A grid being painted, large enough for all places, up to MAX_GRID_SIDE cells a side."""

    def __init__(self, places: Int[Tensor, "n 2"], resolution: float) -> None:
        self._resolution = resolution
        self._low, sides = _bounds(places) if len(places) else (torch.zeros(2, dtype=torch.int64),) * 2
        self._sides = sides
        self._values = torch.full((int(sides[1]), int(sides[0])), UNKNOWN, dtype=torch.int16)

    def copy(self) -> _Canvas:
        """Another canvas with the same picture."""
        other = object.__new__(_Canvas)
        other._resolution, other._low, other._sides = self._resolution, self._low, self._sides
        other._values = self._values.clone()
        return other

    def paint(self, places: Int[Tensor, "n 2"], value: int | Float[Tensor, " n"]) -> None:
        """Raise cells to a value each; what lies outside is left out."""
        local = places - self._low
        inside = ((local >= 0) & (local < self._sides)).all(dim=1)
        flat = local[inside] @ torch.tensor([1, self._values.shape[1]])
        if isinstance(value, int):
            painted = torch.full_like(flat, value, dtype=torch.int16)
        else:
            painted = value[inside].to(torch.int16)
        self._values.view(-1).scatter_reduce_(0, flat, painted, "amax")

    def grid(self) -> Grid:
        """The picture."""
        x, y = (self._low * self._resolution).tolist()
        return Grid((float(x), float(y)), self._resolution, self._values.to(torch.int8))


def _heights(voxel_map: VoxelMap) -> Float[Tensor, " n"]:
    """z of the voxels' centres."""
    return voxel_map.cells()[:, 2].cpu().double() * voxel_map.config.voxel_size


def _within(heights: Float[Tensor, " n"], band: tuple[float, float]) -> Tensor:
    return (heights >= band[0]) & (heights <= band[1])


def _places(voxel_map: VoxelMap, chosen: Tensor, resolution: float) -> Int[Tensor, "m 2"]:
    rows = chosen.nonzero().squeeze(1)
    cells = voxel_map.cells(rows.to(voxel_map.device)).cpu()
    return _spread(cells, voxel_map.config.voxel_size, resolution)[0]


def _spread(
    cells: Int[Tensor, "n 3"], voxel_size: float, resolution: float
) -> tuple[Int[Tensor, "m 2"], Int[Tensor, " m"]]:
    """The grid cells under voxels, and which voxel each is under: that of its centre, or where voxels are the larger
    ones, those of points so near to each other that none is left out."""
    count = max(1, math.ceil(voxel_size / resolution - _EDGE))
    offsets = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
    points = (cells[:, None, :2] + torch.cartesian_prod(offsets, offsets).view(-1, 2)) * voxel_size
    places = torch.floor(points / resolution + _EDGE).long().flatten(0, 1)
    return places, torch.arange(len(cells)).repeat_interleave(count * count)


def _bounds(places: Int[Tensor, "n 2"]) -> tuple[Int[Tensor, " 2"], Int[Tensor, " 2"]]:
    """Lower corner and sides of the grid, cut around the median place where it would be too large."""
    low, high = places.amin(dim=0), places.amax(dim=0) + 1
    middle = places.median(dim=0).values
    cut_low, cut_high = low.maximum(middle - MAX_GRID_SIDE // 2), high.minimum(middle + MAX_GRID_SIDE // 2)
    if not (torch.equal(low, cut_low) and torch.equal(high, cut_high)):
        log.warning("a grid of %d × %d cells is cut to %d a side", *(high - low).tolist(), MAX_GRID_SIDE)
    return cut_low, cut_high - cut_low
