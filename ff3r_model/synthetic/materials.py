"""Materials of surfaces: paints of parts turned into rows of a material table."""

from __future__ import annotations

import numpy as np

from ff3r_model.synthetic.textures import PATTERN_ID
from ff3r_model.synthetic.vocabulary import draw_rgb

COLUMNS = 12
"""Of a material row: first RGB, second RGB, pattern, texels per metre, texture offset u v, glow, blotches."""

OBJECT_PATTERNS = ("clouds", "grain", "patches", "checker", "stripes", "wood", "dots", "weave", "marble")
SURFACE_PATTERNS = {
    "wall": ("clouds", "grain", "patches", "stripes", "tiles", "planks", "dots", "marble"),
    "floor": ("planks", "planks", "tiles", "checker", "wood", "patches", "marble"),
    "ceiling": ("clouds", "grain", "tiles", "planks"),
}
FIXED = {
    "metal": ("gray", "grain", 0.0),
    "wood": ("brown", "wood", 0.0),
    "dark": ("black", "grain", 0.0),
    "white": ("white", "grain", 0.0),
    "paper": ("white", "stripes", 0.0),
    "pot": ("brown", "grain", 0.0),
    "water": ("blue", "clouds", 0.1),
    "fire": ("orange", "clouds", 0.9),
    "screen": ("black", "patches", 0.3),
    "desktop": ("blue", "patches", 0.5),
}
"""Colour name, pattern and glow of the paints that do not follow the instance's colour."""


def second_tone(rgb: np.ndarray, contrast: float) -> np.ndarray:
    """The other end of a texture: darker, or lighter where the first tone is already dark."""
    return rgb * (1 - contrast) if rgb.max() > 0.25 else rgb + contrast * 0.3


def row(
    rgb: np.ndarray, second: np.ndarray, pattern: str, density: float, rng: np.random.Generator, glow: float = 0.0
) -> np.ndarray:
    """One row of the material table."""
    offset = rng.uniform(0, 128, 2)
    blotches = rng.uniform(0.15, 0.35)
    return np.array([*rgb, *second, PATTERN_ID[pattern], density, *offset, glow, blotches])


class Palette:
    """The materials of one instance, drawn once per paint."""

    def __init__(self, color: str, rng: np.random.Generator) -> None:
        self.rng = rng
        self.rgb = draw_rgb(color, rng)
        self.pattern = str(rng.choice(OBJECT_PATTERNS))
        self.density = float(rng.uniform(90, 220))
        self.contrast = float(rng.uniform(0.25, 0.6))
        self.rows: dict[str, np.ndarray] = {}

    def material(self, paint: str) -> np.ndarray:
        """The material row of a paint."""
        if paint not in self.rows:
            self.rows[paint] = self._draw(paint)
        return self.rows[paint]

    def _draw(self, paint: str) -> np.ndarray:
        rng, rgb = self.rng, self.rgb
        if paint in FIXED:
            color, pattern, glow = FIXED[paint]
            fixed = draw_rgb(color, rng)
            return row(fixed, second_tone(fixed, 0.4), pattern, self.density, rng, glow)
        if paint == "books":
            first, second = (draw_rgb(str(rng.choice(["red", "blue", "green", "yellow", "white"])), rng) for _ in "ab")
            return row(first, second, "stripes", 220.0, rng)
        if paint == "sky":
            pale = rgb + 0.35 * (1 - rgb)
            return row(pale, pale * 0.75, "clouds", 60.0, rng, 0.8)
        if paint == "shade":
            rgb = rgb * 0.65 if rgb.max() > 0.25 else rgb + 0.12
            return row(rgb, second_tone(rgb, 0.3), "grain", self.density, rng)
        glow = 0.6 if paint == "lit" else 0.0
        return row(rgb, second_tone(rgb, self.contrast), self.pattern, self.density, rng, glow)


def surface_row(kind: str, color: str, rng: np.random.Generator) -> np.ndarray:
    """The material of a wall, floor or ceiling."""
    rgb = draw_rgb(color, rng)
    if kind != "floor" and color not in ("white", "gray"):
        rgb = rgb + rng.uniform(0.2, 0.5) * (1 - rgb)
    contrast = rng.uniform(0.2, 0.4) if kind == "ceiling" else rng.uniform(0.25, 0.55)
    density = rng.uniform(35, 80)
    return row(rgb, second_tone(rgb, contrast), str(rng.choice(SURFACE_PATTERNS[kind])), density, rng)
