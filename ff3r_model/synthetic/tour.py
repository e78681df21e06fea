"""A closed path round a room that keeps away from walls and furniture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from ff3r_model.synthetic.rooms import Room

CELL = 0.15
"""Metres between the grid points on which tours are planned."""
CLEARANCES = (0.5, 0.4, 0.32)
"""Metres kept from walls and solids: the first that leaves enough free floor."""
ENOUGH_FLOOR = 2.0
"""Square metres."""
STEP_OVER = 0.05
"""Things lower than this (rugs) are driven over."""
WAYPOINTS = 7
SMOOTHING = 0.35
"""Standard deviation in metres of the path's smoothing, halved until the path stays clear."""
SAMPLING = 0.02
"""Metres between the points that are smoothed and checked."""


@dataclass(frozen=True)
class Tour:
    """A closed polyline on the floor."""

    points: np.ndarray
    """n×2, metres; the last joins the first."""

    @property
    def length(self) -> float:
        return float(np.linalg.norm(np.roll(self.points, -1, axis=0) - self.points, axis=1).sum())

    def resampled(self, spacing: float) -> np.ndarray:
        """Points equally far apart along the tour, at least four."""
        closed = np.concatenate([self.points, self.points[:1]])
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
        count = max(4, round(along[-1] / spacing))
        wanted = np.linspace(0, along[-1], count, endpoint=False)
        return np.column_stack([np.interp(wanted, along, closed[:, k]) for k in range(2)])


def plan_tour(room: Room, rng: np.random.Generator, height: float) -> Tour:
    """A smooth loop through the largest free area, clear of everything from the floor to `height`."""
    grid, clearance = _clearance_grid(room, height)
    for needed in CLEARANCES:
        free = _largest_area(clearance >= needed)
        if free.sum() * CELL**2 >= ENOUGH_FLOOR:
            break
    cells = np.argwhere(free)
    if len(cells) == 0:
        cells = np.argwhere(clearance == clearance.max())[:1]
        needed = float(clearance.max())
    stops = _waypoints(cells, clearance[tuple(cells.T)], rng)
    path = _connect(cells, clearance[tuple(cells.T)], stops)
    return _smooth(room, Tour(grid[tuple(cells[path].T)]), height, needed)


def _column_clearance(room: Room, xy: np.ndarray, height: float) -> np.ndarray:
    """The least distance to anything over all heights up to `height`, for floor positions n×2."""
    levels = np.arange(0.12, height + 0.2, 0.2)
    walls = np.stack([xy[:, 0] - float(room.low[0]), xy[:, 1] - float(room.low[1])])
    walls = np.minimum(walls, np.stack([float(room.high[0]) - xy[:, 0], float(room.high[1]) - xy[:, 1]])).min(0)
    points = np.concatenate([np.column_stack([xy, np.full(len(xy), z)]) for z in levels])
    solids = room.solid_distance(torch.tensor(points, dtype=torch.float32, device=room.low.device), STEP_OVER)
    return np.minimum(walls, solids.cpu().numpy().reshape(len(levels), -1).min(0))


def _clearance_grid(room: Room, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Grid positions (nx×ny×2) and the clearance at each."""
    low, high = room.low.cpu().numpy(), room.high.cpu().numpy()
    axes = [np.arange(low[k] + CELL, high[k], CELL) for k in range(2)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return grid, _column_clearance(room, grid.reshape(-1, 2), height).reshape(grid.shape[:2])


def _largest_area(free: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    parts, _ = label(free)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (parts == sizes.argmax()) & free


def _waypoints(cells: np.ndarray, clearance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of far-out, uncramped cells in all directions round the middle, in order of direction."""
    offset = cells - cells.mean(0)
    angle = np.arctan2(offset[:, 1], offset[:, 0]) + rng.uniform(0, 2 * np.pi)
    sector = (angle / (2 * np.pi) * WAYPOINTS).astype(int) % WAYPOINTS
    worth = np.linalg.norm(offset, axis=1) * CELL - 1.5 * np.maximum(0, 0.8 - clearance)
    worth = worth + rng.uniform(0, 0.3, len(cells))
    stops = [np.flatnonzero(sector == k)[worth[sector == k].argmax()] for k in range(WAYPOINTS) if (sector == k).any()]
    return np.array(stops[:: int(rng.choice([-1, 1]))])


def _connect(cells: np.ndarray, clearance: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Indices of the cells on a loop through the stops, along paths that prefer open floor."""
    number = -np.ones(cells.max(0) + 3, dtype=int)
    number[tuple((cells + 1).T)] = np.arange(len(cells))
    starts, ends, costs = [], [], []
    for step in ((0, 1), (1, 0), (1, 1), (1, -1)):
        neighbour = number[tuple((cells + 1 + step).T)]
        here = np.flatnonzero(neighbour >= 0)
        there = neighbour[here]
        starts.append(here)
        ends.append(there)
        costs.append(np.hypot(*step) * (1 + 0.4 / np.minimum(clearance[here], clearance[there]) ** 2))
    edges = (np.concatenate(starts), np.concatenate(ends))
    graph = coo_array((np.concatenate(costs), edges), shape=(len(cells), len(cells))).tocsr()
    _, before = dijkstra(graph, directed=False, indices=stops, return_predecessors=True)
    path: list[int] = []
    for k, stop in enumerate(stops):
        leg, cell = [], int(stops[(k + 1) % len(stops)])
        while cell != stop and cell >= 0:
            cell = int(before[k, cell])
            leg.append(cell)
        path += leg[::-1]
    return np.array(path or [int(stops[0])])


def _smooth(room: Room, tour: Tour, height: float, needed: float) -> Tour:
    points = tour.resampled(SAMPLING)
    sigma = SMOOTHING
    while sigma > SAMPLING:
        smoothed = gaussian_filter1d(points, sigma / SAMPLING, axis=0, mode="wrap")
        if _column_clearance(room, smoothed[::5], height).min() >= needed - 0.06:
            return Tour(smoothed)
        sigma /= 2
    return Tour(points)
