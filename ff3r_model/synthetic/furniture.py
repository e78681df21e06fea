"""Builders of furniture: each draws its measures from a generator and returns a model.

Measures follow real furniture, with small things on the large side so that a 112-pixel view can see them.
Paints: "main" is the instance's colour, "shade" a darker tone of it; the other names are fixed materials.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ff3r_model.synthetic.primitives import Model, Part, ball, box, tube

Rng = np.random.Generator
Builder = Callable[[Rng], Model]


def _legs(x: float, y: float, height: float, thick: float, paint: str) -> list[Part]:
    """Four square legs whose outer faces stand at ±x, ±y."""
    return [
        box((x0, x0 + thick), (y0, y0 + thick), (0, height), paint) for x0 in (-x, x - thick) for y0 in (-y, y - thick)
    ]


def frame_paint(rng: Rng) -> str:
    """A paint for legs and frames."""
    return str(rng.choice(["wood", "metal", "dark", "shade"]))


def chair(rng: Rng) -> Model:
    x, y, seat, back = rng.uniform([0.20, 0.20, 0.42, 0.85], [0.26, 0.25, 0.48, 1.05])
    parts = [
        box((-x, x), (-y, y), (seat - 0.06, seat)),
        box((-x, x), (-y, -y + 0.06), (seat, back)),
        *_legs(x, y, seat - 0.06, 0.05, frame_paint(rng)),
    ]
    if rng.random() < 0.3:
        parts += [box((s * x - 0.03, s * x + 0.03), (-y, y), (seat + 0.16, seat + 0.21), "shade") for s in (-1, 1)]
    return Model(tuple(parts))


def stool(rng: Rng) -> Model:
    radius, height = rng.uniform([0.17, 0.45], [0.22, 0.65])
    legs = [tube(0, 0, (0.0, 0.03), radius, paint="metal"), tube(0, 0, (0.03, height - 0.06), 0.04, paint="metal")]
    if rng.random() < 0.5:
        legs = _legs(radius * 0.75, radius * 0.75, height - 0.06, 0.04, "wood")
    return Model((tube(0, 0, (height - 0.07, height), radius), *legs))


def table(rng: Rng) -> Model:
    x, y, height = rng.uniform([0.45, 0.35, 0.45], [0.85, 0.50, 0.76])
    if rng.random() < 0.3:
        parts = [
            tube(0, 0, (height - 0.05, height), y * 1.2),
            tube(0, 0, (0.04, height - 0.05), 0.07, paint="shade"),
            tube(0, 0, (0, 0.04), y * 0.7, paint="shade"),
        ]
        return Model(tuple(parts), (-y * 0.8, y * 0.8, -y * 0.8, y * 0.8, height))
    parts = [box((-x, x), (-y, y), (height - 0.05, height)), *_legs(x - 0.03, y - 0.03, height - 0.05, 0.06, "shade")]
    return Model(tuple(parts), (-x, x, -y, y, height))


def desk(rng: Rng) -> Model:
    x, y, height, drawer = rng.uniform([0.55, 0.30, 0.70, 0.30], [0.80, 0.40, 0.78, 0.40])
    parts = [
        box((-x, x), (-y, y), (height - 0.04, height)),
        box((-x, -x + drawer), (-y, y - 0.03), (0, height - 0.04)),
        box((x - 0.04, x), (-y, y - 0.03), (0, height - 0.04)),
        box((-x, x), (-y, -y + 0.02), (0.35, height - 0.04), "shade"),
    ]
    parts += [box((-x + 0.03, -x + drawer - 0.03), (y - 0.03, y - 0.015), (z, z + 0.18), "shade") for z in (0.08, 0.32)]
    return Model(tuple(parts), (-x, x, -y, y, height))


def sofa(rng: Rng) -> Model:
    x, y, seat, back, arm = rng.uniform([0.70, 0.38, 0.38, 0.72, 0.12], [1.05, 0.45, 0.46, 0.90, 0.20])
    parts = [
        box((-x, x), (-y, y), (0.06, seat - 0.12), "shade"),
        box((-x + arm, x - arm), (-y, y), (seat - 0.12, seat)),
        box((-x, x), (-y, -y + 0.2), (seat - 0.12, back)),
        box((-x, -x + arm), (-y, y), (0.06, seat + 0.18)),
        box((x - arm, x), (-y, y), (0.06, seat + 0.18)),
        *_legs(x - 0.05, y - 0.05, 0.06, 0.06, "dark"),
    ]
    return Model(tuple(parts), (-x + arm, x - arm, -y + 0.2, y, seat))


def bed(rng: Rng) -> Model:
    x, y, height, head = rng.uniform([0.48, 0.98, 0.42, 0.8], [0.85, 1.05, 0.55, 1.15])
    parts = (
        box((-x, x), (-y, y), (0.08, 0.28), "wood"),
        box((-x, x), (-y + 0.05, y), (0.28, height)),
        box((-x, x), (-y, -y + 0.06), (0.08, head), "wood"),
        box((-x - 0.01, x + 0.01), (y - 0.55, y + 0.01), (0.22, height + 0.02), "shade"),
        *_legs(x - 0.02, y - 0.02, 0.08, 0.08, "wood"),
    )
    return Model(parts, (-x, x, -y + 0.06, -y + 0.62, height))


def cabinet(rng: Rng) -> Model:
    x, y, height = rng.uniform([0.35, 0.20, 0.5], [0.75, 0.28, 1.1])
    gap = 0.015
    parts = [
        box((-x, x), (-y, y - 0.02), (0.05, height)),
        box((-x + gap, -gap), (y - 0.02, y), (0.08, height - gap), "shade"),
        box((gap, x - gap), (y - 0.02, y), (0.08, height - gap), "shade"),
        box((-x + 0.03, x - 0.03), (-y, y - 0.06), (0, 0.05), "dark"),
    ]
    parts += [ball((s * 0.06, y + 0.01, height * 0.55), (0.025, 0.025, 0.025), "metal") for s in (-1, 1)]
    return Model(tuple(parts), (-x, x, -y, y, height))


def bookshelf(rng: Rng) -> Model:
    x, y, height = rng.uniform([0.35, 0.14, 1.2], [0.60, 0.18, 2.0])
    shelves = int(rng.integers(3, 6))
    levels = np.linspace(0.05, height - 0.03, shelves + 1)
    parts = [
        box((-x, -x + 0.03), (-y, y), (0, height)),
        box((x - 0.03, x), (-y, y), (0, height)),
        box((-x, x), (-y, -y + 0.02), (0, height), "shade"),
        *(box((-x, x), (-y, y), (z, z + 0.03)) for z in levels),
    ]
    for low, high in pairwise(levels):
        start, end = np.sort(rng.uniform(-x + 0.04, x - 0.04, 2))
        tall = (high - low - 0.03) * rng.uniform(0.6, 0.9)
        parts.append(box((start, end), (-y + 0.02, y - 0.05), (low + 0.03, low + 0.03 + tall), "books"))
    return Model(tuple(parts), (-x, x, -y, y, height))


def refrigerator(rng: Rng) -> Model:
    x, y, height, split = rng.uniform([0.30, 0.30, 1.5, 0.55], [0.38, 0.36, 1.95, 0.68])
    return Model(
        (
            box((-x, x), (-y, y - 0.05), (0.03, height)),
            box((-x, x), (y - 0.045, y), (0.05, height * split - 0.01)),
            box((-x, x), (y - 0.045, y), (height * split + 0.01, height)),
            box((x - 0.10, x - 0.06), (y, y + 0.035), (height * split - 0.4, height * split - 0.08), "metal"),
            box((x - 0.10, x - 0.06), (y, y + 0.035), (height * split + 0.08, height * split + 0.3), "metal"),
            box((-x + 0.02, x - 0.02), (-y, y - 0.06), (0, 0.03), "dark"),
        )
    )


def sink(rng: Rng) -> Model:
    """A pedestal sink with a tap."""
    x, y, height = rng.uniform([0.27, 0.20, 0.80], [0.36, 0.26, 0.90])
    return Model(
        (
            box((-x, x), (-y, y), (height - 0.16, height - 0.02)),
            box((-x, x), (-y, -y + 0.08), (height - 0.02, height + 0.05)),
            box((-x + 0.06, x - 0.06), (-y + 0.12, y - 0.05), (height - 0.02, height - 0.012), "metal"),
            tube(0, -y * 0.3, (0, height - 0.16), 0.11, 0.09),
            tube(0, -y + 0.04, (height + 0.05, height + 0.18), 0.02, paint="metal"),
            box((-0.015, 0.015), (-y + 0.03, -y + 0.18), (height + 0.16, height + 0.19), "metal"),
        )
    )


def toilet(rng: Rng) -> Model:
    seat, tank = rng.uniform([0.38, 0.72], [0.44, 0.82])
    return Model(
        (
            box((-0.20, 0.20), (-0.35, -0.17), (seat - 0.04, tank)),
            box((-0.21, 0.21), (-0.36, -0.16), (tank, tank + 0.03), "shade"),
            tube(0, -0.02, (0, seat - 0.08), 0.13, 0.2),
            ball((0, 0.05, seat - 0.1), (0.19, 0.27, 0.13)),
            box((-0.17, 0.17), (-0.17, 0.22), (seat - 0.02, seat + 0.02), "white"),
        )
    )


def bathtub(rng: Rng) -> Model:
    x, y, height = rng.uniform([0.75, 0.35, 0.50], [0.90, 0.42, 0.62])
    rim = 0.08
    return Model(
        (
            box((-x, x), (-y, y), (0, 0.16)),
            box((-x, x), (-y, -y + rim), (0.16, height)),
            box((-x, x), (y - rim, y), (0.16, height)),
            box((-x, -x + rim), (-y + rim, y - rim), (0.16, height)),
            box((x - rim, x), (-y + rim, y - rim), (0.16, height)),
            box((-x + rim, x - rim), (-y + rim, y - rim), (0.16, 0.30), "water"),
            tube(-x + 0.04, 0, (height, height + 0.15), 0.025, paint="metal"),
        )
    )


def fireplace(rng: Rng) -> Model:
    x, y, height = rng.uniform([0.55, 0.18, 1.0], [0.75, 0.25, 1.25])
    hole = x * 0.55
    return Model(
        (
            box((-x, -hole), (-y, y), (0, height)),
            box((hole, x), (-y, y), (0, height)),
            box((-hole, hole), (-y, y), (height * 0.6, height)),
            box((-hole, hole), (-y, -y + 0.05), (0, height * 0.6), "dark"),
            box((-x - 0.06, x + 0.06), (-y, y + 0.06), (height, height + 0.07), "shade"),
            tube(0, 0, (0, height * 0.32), hole * 0.45, 0.0, "fire"),
        ),
        (-x, x, -y, y, height + 0.07),
    )
