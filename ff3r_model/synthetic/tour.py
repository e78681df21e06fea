"""Path planning: a closed tour of a room that keeps away from walls and furniture."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import torch

from ff3r_model.synthetic.viewpoints import Walkable

CELL = 0.15
"""Metres between the grid points on which tours are planned."""
CLEARANCES = (0.5, 0.4, 0.32)
"""Metres kept from walls and solids: the first that leaves enough free floor."""
ENOUGH_FLOOR = 2.0
"""Square metres."""
STEP_OVER = 0.05
"""Things lower than this (rugs) are driven over."""
WAYPOINTS = 7
CRAMPED = 0.4
"""A path's price per metre is 1 + CRAMPED / clearance²."""
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


def plan_tour(room: Walkable, rng: np.random.Generator, height: float) -> Tour:
    """A smooth loop through the largest free area, clear of everything from the floor to `height`."""
    grid, clearance = _clearance_grid(room, height)
    for needed in CLEARANCES:
        cells = _largest_area(clearance >= needed)
        if len(cells) * CELL**2 >= ENOUGH_FLOOR:
            break
    if len(cells) == 0:
        cells, needed = [int(clearance.argmax())], float(clearance.max())
    price = {cell: 1 + CRAMPED / clearance.flat[cell] ** 2 for cell in cells}
    stops = _waypoints(np.array(cells), clearance, rng)
    path = [cell for k, stop in enumerate(stops) for cell in _route(price, stop, stops[k - 1], clearance.shape[1])]
    return _smooth(room, Tour(grid.reshape(-1, 2)[path]), height, needed)


def _column_clearance(room: Walkable, xy: np.ndarray, height: float) -> np.ndarray:
    """The least distance to anything over all heights up to `height`, for floor positions n×2."""
    levels = np.arange(0.12, height + 0.2, 0.2)
    walls = np.stack([xy[:, 0] - float(room.low[0]), xy[:, 1] - float(room.low[1])])
    walls = np.minimum(walls, np.stack([float(room.high[0]) - xy[:, 0], float(room.high[1]) - xy[:, 1]])).min(0)
    points = np.concatenate([np.column_stack([xy, np.full(len(xy), z)]) for z in levels])
    solids = room.solid_distance(torch.tensor(points, dtype=torch.float32, device=room.low.device), STEP_OVER)
    return np.minimum(walls, solids.cpu().numpy().reshape(len(levels), -1).min(0))


def _clearance_grid(room: Walkable, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Grid positions (nx×ny×2) and the clearance at each."""
    low, high = room.low.cpu().numpy(), room.high.cpu().numpy()
    axes = [np.arange(low[k] + CELL, high[k], CELL) for k in range(2)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return grid, _column_clearance(room, grid.reshape(-1, 2), height).reshape(grid.shape[:2])


def _largest_area(free: np.ndarray) -> list[int]:
    """Flat indices of the cells of the largest connected part of a mask that leaves the grid's border free."""
    remaining = dict.fromkeys(np.flatnonzero(free).tolist(), 1.0)
    largest: list[int] = []
    while remaining:
        area = sorted(_search(remaining, next(iter(remaining)), None, free.shape[1]))
        largest = max(largest, area, key=len)
        remaining = {cell: 1.0 for cell in remaining.keys() - set(area)}
    return largest


def _search(price: dict[int, float], start: int, goal: int | None, row: int) -> dict[int, int]:
    """Dijkstra's search over grid cells (flat indices, `row` to a row): each cell reached and the cell before it."""
    moves = [(dy * row + dx, float(np.hypot(dx, dy))) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dx or dy]
    before, cost, heap = {start: start}, {start: 0.0}, [(0.0, start)]
    while heap:
        spent, cell = heapq.heappop(heap)
        if cell == goal:
            break
        for move, length in moves:
            neighbour = cell + move
            if neighbour not in price:
                continue
            total = spent + length * max(price[cell], price[neighbour])
            if total < cost.get(neighbour, np.inf):
                before[neighbour], cost[neighbour] = cell, total
                heapq.heappush(heap, (total, neighbour))
    return before


def _route(price: dict[int, float], goal: int, start: int, row: int) -> list[int]:
    """The cheapest cells from start to goal, without the start (but with it where the two are one)."""
    before = _search(price, start, goal, row)
    route = [goal]
    while before[route[-1]] != start:
        route.append(before[route[-1]])
    return route[::-1]


def _waypoints(cells: np.ndarray, clearance: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Far-out, uncramped cells in all directions round the middle, in order of direction."""
    offset = np.column_stack(np.unravel_index(cells, clearance.shape)) * CELL
    offset = offset - offset.mean(0)
    angle = np.arctan2(offset[:, 1], offset[:, 0]) + rng.uniform(0, 2 * np.pi)
    sector = (angle / (2 * np.pi) * WAYPOINTS).astype(int) % WAYPOINTS
    worth = np.linalg.norm(offset, axis=1) - 1.5 * np.maximum(0, 0.8 - clearance.flat[cells])
    worth = worth + rng.uniform(0, 0.3, len(cells))
    stops = [int(cells[sector == k][worth[sector == k].argmax()]) for k in range(WAYPOINTS) if (sector == k).any()]
    return stops[:: int(rng.choice([-1, 1]))]


def _smooth(room: Walkable, tour: Tour, height: float, needed: float) -> Tour:
    """The tour blurred as much as its clearance allows."""
    points = tour.resampled(SAMPLING)
    sigma = SMOOTHING
    while sigma > SAMPLING:
        smoothed = _blurred(points, sigma / SAMPLING)
        if _column_clearance(room, smoothed[::5], height).min() >= needed - 0.06:
            return Tour(smoothed)
        sigma /= 2
    return Tour(points)


def _blurred(points: np.ndarray, sigma: float) -> np.ndarray:
    """A closed sequence of points convolved with a Gaussian of `sigma` samples."""
    frequency = 2 * np.pi * np.fft.rfftfreq(len(points))
    spectrum = np.fft.rfft(points, axis=0) * np.exp(-((sigma * frequency) ** 2) / 2)[:, None]
    return np.fft.irfft(spectrum, len(points), axis=0)
