"""A small atlas of tileable grey patterns with their mip levels, shared by every room."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

SIDE = 128
"""Texels along a pattern's side; a power of two, so that wrapping is a bit mask."""
LEVELS = 7
"""Mip levels: 128 down to 2 texels."""
STRIDE = sum((SIDE >> k) ** 2 for k in range(LEVELS))
"""Texels of one pattern over all its levels."""

PATTERNS = (
    "clouds", "grain", "patches", "checker", "stripes", "tiles", "planks", "wood", "dots", "weave", "marble",
)  # fmt: skip
PATTERN_ID = {name: index for index, name in enumerate(PATTERNS)}


def _noise(rng: np.random.Generator, cells_y: int, cells_x: int) -> np.ndarray:
    """Periodic value noise in [0, 1] with the given number of cells along each side."""
    grid = rng.random((cells_y, cells_x))
    for axis, cells in ((0, cells_y), (1, cells_x)):
        position = (np.arange(SIDE) + 0.5) * cells / SIDE
        low = np.floor(position).astype(int)
        weight = position - low
        weight = weight * weight * (3 - 2 * weight)
        shape = (-1, 1) if axis == 0 else (1, -1)
        weight = weight.reshape(shape)
        grid = grid.take(low % cells, axis) * (1 - weight) + grid.take((low + 1) % cells, axis) * weight
    return grid


def _clouds(rng: np.random.Generator, cells: tuple[int, ...] = (4, 8, 16, 32)) -> np.ndarray:
    layers = [_noise(rng, n, n) / (1 + 0.4 * k) for k, n in enumerate(cells)]
    return _stretch(sum(layers[1:], layers[0]))


def _stretch(image: np.ndarray) -> np.ndarray:
    low, high = image.min(), image.max()
    return (image - low) / max(high - low, 1e-9)


def _patches(rng: np.random.Generator, count: int = 70) -> np.ndarray:
    """Periodic Voronoi cells of random shade."""
    y, x = np.mgrid[:SIDE, :SIDE]
    seeds = rng.random((count, 2)) * SIDE
    dx = np.abs(x[..., None] - seeds[:, 0])
    dy = np.abs(y[..., None] - seeds[:, 1])
    distance = np.minimum(dx, SIDE - dx) ** 2 + np.minimum(dy, SIDE - dy) ** 2
    return rng.random(count)[distance.argmin(-1)]


def _cells(rng: np.random.Generator, width: int, height: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """A random shade per brick-like cell, and a mask of the joints between cells."""
    y, x = np.mgrid[:SIDE, :SIDE]
    row = y // height
    x = (x + row * shift) % SIDE
    shade = rng.random((SIDE // height, SIDE // width))[row, x // width]
    return shade, ((x % width) < 1) | ((y % height) < 1)


def _draw(name: str, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    clouds = _clouds(rng)
    if name == "grain":
        return _stretch(0.6 * _clouds(rng, (16, 32, 64)) + 0.4 * _noise(rng, 6, 6))
    if name == "patches":
        return 0.8 * _patches(rng) + 0.2 * clouds
    if name == "checker":
        shade, _ = _cells(rng, 16, 16, 0)
        return 0.55 * ((x // 16 + y // 16) % 2) + 0.3 * shade + 0.15 * clouds
    if name == "stripes":
        shade, _ = _cells(rng, 8, SIDE, 0)
        return 0.45 * ((x // 8) % 2) + 0.3 * shade + 0.25 * clouds
    if name == "tiles":
        shade, joint = _cells(rng, 16, 16, 0)
        return np.where(joint, 1.0, 0.55 * shade + 0.2 * clouds)
    if name == "planks":
        shade, joint = _cells(rng, 64, 8, 24)
        return np.where(joint, 1.0, 0.5 * shade + 0.3 * _noise(rng, 64, 8))
    if name == "wood":
        return _stretch(_noise(rng, 24, 3) + 0.5 * _noise(rng, 64, 6) + 0.5 * _noise(rng, 6, 4))
    if name == "dots":
        shade, _ = _cells(rng, 16, 16, 0)
        inside = ((x % 16) - 7.5) ** 2 + ((y % 16) - 7.5) ** 2 < 22
        return np.where(inside, 0.5 + 0.5 * shade, 0.25 * clouds)
    if name == "weave":
        return 0.3 * ((x // 4 + y // 4) % 2) + 0.7 * _clouds(rng, (8, 16, 32))
    if name == "marble":
        return 0.5 + 0.5 * np.sin(2 * np.pi * (3 * x / SIDE + 1.6 * clouds))
    return clouds


@cache
def atlas() -> Float[Tensor, "patterns stride"]:
    """Every pattern's texels in [0, 1], the mip levels one after the other from fine to coarse."""
    rng = np.random.default_rng(20260)
    rows = []
    for name in PATTERNS:
        image = np.clip(_draw(name, rng), 0, 1)
        levels = [image]
        for _ in range(LEVELS - 1):
            image = image.reshape(image.shape[0] // 2, 2, -1, 2).mean((1, 3))
            levels.append(image)
        rows.append(np.concatenate([level.ravel() for level in levels]))
    return torch.tensor(np.stack(rows), dtype=torch.float32)


def sample(
    texels: Float[Tensor, " texels"], pattern: Int[Tensor, " n"], u: Float[Tensor, " n"], v: Float[Tensor, " n"],
    footprint: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:  # fmt: skip
    """Bilinear values of the flattened atlas at texel coordinates, at the mip level whose texels match a pixel.

    `footprint` is a pixel's width in texels of the finest level.
    """
    level = footprint.clamp(min=1.0).log2().add_(0.3).to(torch.int32).clamp_(0, LEVELS - 1)
    side = torch.bitwise_right_shift(torch.full_like(level, SIDE), level)
    scale = side.to(u.dtype) / SIDE
    start = (SIDE * SIDE - side * side) * 4 // 3 + pattern * STRIDE
    u, v = u * scale - 0.5, v * scale - 0.5
    u0, v0 = u.floor(), v.floor()
    fu, fv = u - u0, v - v0
    mask = side - 1
    x0, y0 = u0.to(torch.int32) & mask, v0.to(torch.int32) & mask
    x1, y1 = (x0 + 1) & mask, (y0 + 1) & mask
    row0, row1 = start + y0 * side, start + y1 * side
    t00, t01, t10, t11 = (texels.index_select(0, i) for i in (row0 + x0, row0 + x1, row1 + x0, row1 + x1))
    near = torch.lerp(t00, t01, fu)
    return torch.lerp(near, torch.lerp(t10, t11, fu), fv)
