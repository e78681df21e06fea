"""The words of the synthetic world: what things are called and which colours the colour names mean."""

from __future__ import annotations

import colorsys

import numpy as np

CLASSES: tuple[str, ...] = (
    "wall", "floor", "ceiling", "door", "window", "rug",
    "chair", "table", "sofa", "bed", "cabinet", "bookshelf", "desk", "lamp", "plant", "television",
    "pillow", "box", "ball", "vase", "stool", "refrigerator", "sink", "toilet", "bathtub", "picture",
    "clock", "trash can", "monitor", "mug", "bottle", "book", "curtain", "fireplace",
)  # fmt: skip
"""Class names; a class id is an index into this tuple."""

COLORS: tuple[str, ...] = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray",
)  # fmt: skip
"""Colour names; a colour id is an index into this tuple."""

CLASS_ID: dict[str, int] = {name: index for index, name in enumerate(CLASSES)}
COLOR_ID: dict[str, int] = {name: index for index, name in enumerate(COLORS)}

HSV_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-0.02, 0.015), (0.78, 0.95), (0.60, 0.85)),
    "orange": ((0.060, 0.085), (0.80, 0.95), (0.88, 1.00)),
    "yellow": ((0.140, 0.165), (0.65, 0.95), (0.85, 1.00)),
    "green": ((0.290, 0.400), (0.55, 0.90), (0.38, 0.72)),
    "blue": ((0.580, 0.660), (0.60, 0.90), (0.50, 0.90)),
    "purple": ((0.750, 0.800), (0.45, 0.80), (0.42, 0.70)),
    "pink": ((0.900, 0.950), (0.30, 0.50), (0.90, 1.00)),
    "brown": ((0.050, 0.080), (0.55, 0.72), (0.32, 0.50)),
    "black": ((0.000, 1.000), (0.00, 0.10), (0.06, 0.14)),
    "white": ((0.000, 1.000), (0.00, 0.06), (0.90, 1.00)),
    "gray": ((0.000, 1.000), (0.00, 0.08), (0.42, 0.62)),
}
"""Hue, saturation and value that a colour name covers; the ranges do not touch, so a name is well defined."""

_NEUTRAL = ("white", "gray", "black")

CLASS_COLORS: dict[str, tuple[str, ...]] = {
    "wall": ("white", "white", "gray", "yellow", "blue", "green", "pink", "orange", "brown"),
    "floor": ("brown", "brown", "gray", "gray", "white", "orange", "red", "black", "green"),
    "ceiling": ("white", "white", "white", "gray", "yellow"),
    "window": ("blue", "blue", "white", "gray"),
    "plant": ("green",),
    "television": ("black", "black", "black", "gray"),
    "monitor": ("black", "black", "gray", "blue"),
    "refrigerator": (*_NEUTRAL, "white", "gray", "red", "blue"),
    "sink": ("white", "white", "gray", "blue", "pink"),
    "toilet": ("white", "white", "white", "pink", "blue", "green"),
    "bathtub": ("white", "white", "white", "pink", "blue", "gray"),
    "fireplace": ("red", "gray", "white", "brown", "black"),
}
"""Classes with typical colours (repeated names are likelier); every other class takes any colour."""


def draw_color(class_name: str, rng: np.random.Generator) -> str:
    """A colour name for one instance of a class."""
    return str(rng.choice(CLASS_COLORS.get(class_name, COLORS)))


def draw_rgb(color_name: str, rng: np.random.Generator) -> np.ndarray:
    """An RGB in [0, 1] that the colour name covers."""
    hue, saturation, value = (float(rng.uniform(*bounds)) for bounds in HSV_RANGES[color_name])
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
