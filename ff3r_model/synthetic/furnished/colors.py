"""Colour names of things with many colours: the name nearest to most of what one sees of them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ff3r_model.synthetic.furnished.meshes import Mesh
from ff3r_model.synthetic.vocabulary import COLORS


def color_of(meshes: Sequence[Mesh]) -> str:
    """The colour name with the largest area."""
    area: dict[str, float] = {}
    for mesh in meshes:
        edges = np.cross(mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 2] - mesh.corners[:, 0])
        areas = np.bincount(mesh.material, np.linalg.norm(edges, axis=1), len(mesh.materials))
        for each, size in zip(mesh.materials, areas, strict=True):
            mean = np.ones(3) if each.texture is None else each.texture.reshape(-1, 3).mean(0) / 255
            name = color_name(mean * each.color)
            area[name] = area.get(name, 0.0) + float(size)
    return max(area, key=lambda name: area[name])


def color_name(rgb: Float[ndarray, " 3"]) -> str:
    """One of the eleven basic colour terms, for an RGB in [0, 1]."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(float(x) for x in rgb))
    if value < 0.18:
        return "black"
    if saturation < 0.16:
        return "white" if value > 0.78 else "gray"
    degrees = hue * 360
    if degrees < 14 or degrees >= 345:
        return "pink" if saturation < 0.5 and value > 0.75 else "red"
    if degrees < 48:
        return "brown" if value < 0.68 or saturation < 0.45 else "orange"
    bounds = ((70, "yellow"), (165, "green"), (255, "blue"), (290, "purple"), (345, "pink"))
    name = next(name for end, name in bounds if degrees < end)
    assert name in COLORS
    return name
