"""Surfaces of walls, floors and ceilings as procedural pictures that tile: planks, tiles, plaster, carpet, brick."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

SIDE = 256
Picture = UInt8[ndarray, "256 256 3"]
Color = Float[ndarray, " 3"]
_WOODS = ((0.55, 0.38, 0.22), (0.72, 0.55, 0.36), (0.40, 0.26, 0.16), (0.80, 0.68, 0.50), (0.62, 0.58, 0.52))


def noise(rng: np.random.Generator, scale: float, stretch: float = 1.0) -> Float[ndarray, "256 256"]:
    """Smooth noise that tiles, of unit variance; `scale` is its grain in pixels, `stretch` its length along x."""
    field = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
    wrapped = np.tile(field, (3, 3))
    smooth = cv2.GaussianBlur(wrapped, (0, 0), scale * stretch, sigmaY=scale)[SIDE : 2 * SIDE, SIDE : 2 * SIDE]
    return (smooth - smooth.mean()) / (smooth.std() + 1e-6)


def planks(rng: np.random.Generator) -> Picture:
    """Floorboards: rows of staggered boards with grain."""
    base, rows = np.array(_WOODS[rng.integers(len(_WOODS))]), int(rng.choice([4, 8, 16]))
    grain, high = noise(rng, 1.0, 20.0), SIDE // rows
    value = 1 + 0.08 * grain
    for row in range(rows):
        band = slice(row * high, (row + 1) * high)
        start = int(rng.integers(SIDE))
        value[band] *= rng.uniform(0.85, 1.1)
        value[band, start : start + 2] *= 0.6
        value[row * high, :] *= 0.65
    return _painted(base, value)


def tiles(rng: np.random.Generator) -> Picture:
    """Square tiles with joints, each of a slightly different shade, or of two colours."""
    count = int(rng.choice([2, 4, 8]))
    side, joint = SIDE // count, int(rng.integers(1, 4))
    shade = rng.uniform(0.9, 1.08, (count, count))
    if rng.random() < 0.3:
        shade *= np.where(np.add.outer(np.arange(count), np.arange(count)) % 2, 1.0, rng.uniform(0.25, 0.8))
    value = np.kron(shade, np.ones((side, side))) * (1 + 0.03 * noise(rng, float(rng.uniform(1, 12))))
    line = np.arange(SIDE) % side < joint
    value[line[:, None] | line[None, :]] *= rng.uniform(0.5, 0.9)
    return _painted(_calm(rng), value)


def brick(rng: np.random.Generator) -> Picture:
    """Rows of bricks in running bond."""
    base = np.array([0.6, 0.32, 0.25]) * rng.uniform(0.7, 1.2) if rng.random() < 0.6 else _calm(rng)
    value, joint = np.ones((SIDE, SIDE)), np.zeros((SIDE, SIDE), bool)
    for row in range(16):
        band = slice(row * 16, row * 16 + 16)
        for column in range(4):
            start = (column * 64 + (row % 2) * 32) % SIDE
            value[band, start : start + 64] = rng.uniform(0.8, 1.15)
            joint[band, start : start + 2] = True
        joint[row * 16 : row * 16 + 2] = True
    value *= 1 + 0.1 * noise(rng, 1.5)
    value[joint] = rng.uniform(1.1, 1.5)
    return _painted(base, value)


def plaster(rng: np.random.Generator) -> Picture:
    """A painted wall: hardly any texture."""
    value = 1 + rng.uniform(0.005, 0.04) * noise(rng, float(rng.uniform(0.7, 10)))
    return _painted(_calm(rng), value)


def carpet(rng: np.random.Generator) -> Picture:
    """Fine grain, with larger spots."""
    value = 1 + 0.12 * noise(rng, 0.7) + rng.uniform(0, 0.15) * noise(rng, float(rng.uniform(4, 20)))
    return _painted(rng.uniform(0.1, 0.8, 3), value)


def wallpaper(rng: np.random.Generator) -> Picture:
    """Stripes, or a repeated ornament."""
    value = 1 + 0.01 * noise(rng, 1.0)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    period = SIDE / rng.choice([4, 8, 16])
    wave = np.sin(2 * np.pi * x / period)
    if rng.random() < 0.5:
        wave = wave * np.sin(2 * np.pi * y / period)
    return _painted(_calm(rng), value * np.where(wave > rng.uniform(-0.3, 0.6), rng.uniform(0.7, 0.95), 1.0))


def marble(rng: np.random.Generator) -> Picture:
    """Veins in stone."""
    veins = np.exp(-8 * np.abs(noise(rng, float(rng.uniform(6, 20))) + 0.4 * noise(rng, 3.0)))
    return _painted(_calm(rng), 1 - rng.uniform(0.1, 0.4) * veins + 0.03 * noise(rng, 2.0))


def outdoors(rng: np.random.Generator) -> Picture:
    """What one sees through a window, roughly: sky, a horizon, trees or houses, ground."""
    rows = np.linspace(0, 1, SIDE)[:, None, None]
    sky = np.array([0.45, 0.65, 0.95]) * (1 - rows) + np.array([0.9, 0.93, 0.97]) * rows
    cloud = np.clip(noise(rng, 14.0, 3.0), 0, 1)[..., None] * rng.uniform(0, 0.8)
    picture = sky * (1 - cloud) + 0.95 * cloud
    skyline = (SIDE * (0.55 + 0.06 * noise(rng, 9.0)[0])).astype(int)
    things = np.array([0.15, 0.3, 0.12]) if rng.random() < 0.6 else rng.uniform(0.3, 0.7, 3)
    below = np.arange(SIDE)[:, None] > skyline[None]
    picture[below] = (things * (1 + 0.3 * noise(rng, 2.0)[..., None]))[below]
    ground = np.arange(SIDE) > SIDE * 0.68
    picture[ground] = (rng.uniform(0.2, 0.5, 3) * (1 + 0.15 * noise(rng, 3.0)[..., None]))[ground]
    return _bytes(picture)


def painting(rng: np.random.Generator) -> Picture:
    """Something to hang on a wall: blots of colour."""
    layers = [noise(rng, float(rng.uniform(4, 40)))[..., None] * rng.normal(0, 0.25, 3) for _ in range(3)]
    return _bytes(rng.uniform(0.2, 0.8, 3) + sum(layers))


FLOORS: tuple[Callable[[np.random.Generator], Picture], ...] = (planks, planks, tiles, tiles, carpet, marble)
WALLS: tuple[Callable[[np.random.Generator], Picture], ...] = (plaster, plaster, plaster, wallpaper, tiles, brick)


def _calm(rng: np.random.Generator) -> Color:
    """A light colour of little saturation, as most walls have it; now and then any."""
    if rng.random() < 0.2:
        return rng.uniform(0.15, 0.95, 3)
    return np.clip(rng.uniform(0.55, 0.95) + rng.normal(0, 0.06, 3), 0.05, 1)


def _painted(base: Color, value: ndarray) -> Picture:
    return _bytes(base * value[..., None])


def _bytes(picture: ndarray) -> Picture:
    return (255 * np.clip(picture, 0, 1)).astype(np.uint8)
