"""Builders of lamps, plants, small objects, and of doors, windows and other things on walls and floor.

Measures follow real furniture, with small things on the large side so that a 112-pixel view can see them.
Paints: "main" is the instance's colour, "shade" a darker tone of it; the other names are fixed materials.
"""

from __future__ import annotations

import numpy as np

from ff3r_model.synthetic.furniture import Rng, frame_paint
from ff3r_model.synthetic.primitives import Model, ball, box, moved, tube, turn


def lamp(rng: Rng) -> Model:
    """A floor lamp."""
    height, radius, depth = rng.uniform([1.3, 0.16, 0.25], [1.7, 0.24, 0.35])
    return Model(
        (
            tube(0, 0, (0, 0.03), 0.14, paint="metal"),
            tube(0, 0, (0.03, height - depth), 0.025, paint="metal"),
            tube(0, 0, (height - depth, height), radius, radius * rng.uniform(0.5, 0.8), "lit"),
        )
    )


def table_lamp(rng: Rng) -> Model:
    height, radius = rng.uniform([0.40, 0.13], [0.55, 0.18])
    return Model(
        (
            tube(0, 0, (0, 0.03), 0.09, paint="metal"),
            tube(0, 0, (0.03, height * 0.5), 0.03, 0.05, "shade"),
            tube(0, 0, (height * 0.5, height), radius, radius * rng.uniform(0.5, 0.8), "lit"),
        )
    )


def plant(rng: Rng) -> Model:
    size = rng.uniform(0.35, 0.60)
    parts = [
        tube(0, 0, (0, size * 0.6), size * 0.25, size * 0.36, "pot"),
        tube(0, 0, (size * 0.6, size * 1.2), 0.02, paint="wood"),
    ]
    for k in range(int(rng.integers(3, 6))):
        angle = 2 * np.pi * (k / 5 + rng.uniform(0, 0.15))
        reach, z = size * rng.uniform(0.15, 0.35), size * rng.uniform(1.0, 2.0)
        half = size * rng.uniform(0.22, 0.38, 3)
        parts.append(ball((reach * np.cos(angle), reach * np.sin(angle), z), half, str(rng.choice(["main", "shade"]))))
    return Model(tuple(parts))


def pot_plant(rng: Rng) -> Model:
    """A small plant with upright leaves."""
    size = rng.uniform(0.14, 0.2)
    parts = [tube(0, 0, (0, size * 0.8), size * 0.4, size * 0.55, "pot")]
    for k in range(4):
        leaf = tube(0, 0, (0, size * 1.8), size * 0.28, 0.0, "main" if k % 2 else "shade")
        parts += moved([leaf], turn(90 * k) @ turn(rng.uniform(10, 30), "x"), (0, 0, size * 0.7))
    return Model(tuple(parts))


def television(rng: Rng) -> Model:
    x = rng.uniform(0.45, 0.65)
    height = x * 1.15
    return Model(
        (
            box((-x, x), (-0.03, 0.03), (0.06, height)),
            box((-x + 0.03, x - 0.03), (0.03, 0.035), (0.09, height - 0.03), "screen"),
            box((-0.2, 0.2), (-0.1, 0.1), (0, 0.02)),
            box((-0.05, 0.05), (-0.02, 0.02), (0.02, 0.06)),
        )
    )


def monitor(rng: Rng) -> Model:
    x, height = rng.uniform([0.24, 0.40], [0.32, 0.50])
    return Model(
        (
            box((-x, x), (-0.02, 0.02), (0.12, height)),
            box((-x + 0.02, x - 0.02), (0.02, 0.024), (0.14, height - 0.02), "desktop"),
            tube(0, 0, (0, 0.02), 0.11, paint="main"),
            box((-0.03, 0.03), (-0.03, 0.0), (0.02, 0.14)),
        )
    )


def pillow(rng: Rng) -> Model:
    x, y, z = rng.uniform([0.20, 0.14, 0.06], [0.28, 0.20, 0.09])
    return Model((ball((0, 0, z), (x, y, z)), box((-x * 0.8, x * 0.8), (-y * 0.8, y * 0.8), (z * 0.6, z * 1.4))))


def carton(rng: Rng) -> Model:
    x, y, z = rng.uniform([0.12, 0.12, 0.18], [0.28, 0.22, 0.45])
    return Model(
        (box((-x, x), (-y, y), (0, z)), box((-x - 0.002, x + 0.002), (-0.03, 0.03), (0.01, z + 0.002), "shade")),
        (-x, x, -y, y, z),
    )


def small_carton(rng: Rng) -> Model:
    x, y, z = rng.uniform([0.09, 0.07, 0.10], [0.16, 0.12, 0.20])
    return Model(
        (box((-x, x), (-y, y), (0, z)), box((-x * 1.02, x * 1.02), (-y * 1.02, y * 1.02), (z * 0.75, z), "shade"))
    )


def toy_ball(rng: Rng) -> Model:
    radius = rng.uniform(0.11, 0.22)
    return Model((ball((0, 0, radius), (radius,) * 3),))


def vase(rng: Rng) -> Model:
    height, radius = rng.uniform([0.22, 0.07], [0.38, 0.11])
    return Model(
        (
            ball((0, 0, height * 0.4), (radius, radius, height * 0.4)),
            tube(0, 0, (height * 0.65, height), radius * 0.4, radius * 0.75),
            tube(0, 0, (0, height * 0.1), radius * 0.6, paint="shade"),
        )
    )


def mug(rng: Rng) -> Model:
    height, radius = rng.uniform([0.11, 0.045], [0.15, 0.065])
    handle = box((radius * 0.9, radius * 1.6), (-0.012, 0.012), (height * 0.25, height * 0.75), "shade")
    return Model((tube(0, 0, (0, height), radius), handle))


def bottle(rng: Rng) -> Model:
    height, radius = rng.uniform([0.26, 0.045], [0.36, 0.06])
    return Model(
        (
            tube(0, 0, (0, height * 0.6), radius),
            tube(0, 0, (height * 0.6, height * 0.75), radius, radius * 0.35),
            tube(0, 0, (height * 0.75, height), radius * 0.35, paint="shade"),
        )
    )


def book(rng: Rng) -> Model:
    x, y, z = rng.uniform([0.12, 0.09, 0.03], [0.16, 0.12, 0.06])
    parts = [
        box((-x, x), (-y, y), (0, z)),
        box((-x + 0.004, x + 0.002), (-y - 0.002, y + 0.002), (0.008, z - 0.008), "paper"),
    ]
    if rng.random() < 0.5:
        return Model(moved(parts, turn(90, "x"), (0, z / 2, y + 0.002)))
    return Model(tuple(parts))


def trash_can(rng: Rng) -> Model:
    height, radius = rng.uniform([0.35, 0.14], [0.60, 0.2])
    lid = ball((0, 0, height), (radius, radius, radius * 0.5), "shade") if rng.random() < 0.5 else None
    body = (
        tube(0, 0, (0, height), radius * 0.8, radius),
        tube(0, 0, (height - 0.03, height + 0.01), radius * 1.04, paint="dark"),
    )
    return Model((*body, lid) if lid else body)


def picture(rng: Rng) -> Model:
    x, z = rng.uniform([0.20, 0.18], [0.50, 0.38])
    return Model(
        (
            box((-x, x), (0, 0.03), (-z, z), frame_paint(rng)),
            box((-x + 0.04, x - 0.04), (0.03, 0.035), (-z + 0.04, z - 0.04)),
            box((-x * 0.4, x * 0.5), (0.035, 0.038), (-z * 0.5, z * 0.2), "shade"),
            ball((x * rng.uniform(-0.5, 0.5), 0.035, z * 0.45), (z * 0.2, 0.006, z * 0.2), "shade"),
        )
    )


def clock(rng: Rng) -> Model:
    radius = rng.uniform(0.16, 0.26)
    disc = [tube(0, 0, (0, 0.04), radius), tube(0, 0, (0.04, 0.045), radius * 0.8, paint="paper")]
    parts = moved(disc, turn(-90, "x"), (0, 0, 0))
    for length in (0.7, 0.45):
        hand = box((-0.014, 0.014), (0.045, 0.055), (-0.02, radius * length), "dark")
        parts += moved([hand], turn(rng.uniform(0, 360), "y"), (0, 0, 0))
    return Model(parts)


def door(rng: Rng) -> Model:
    x, height = rng.uniform([0.40, 1.95], [0.48, 2.1])
    side = rng.choice([-1, 1])
    return Model(
        (
            box((-x, x), (0, 0.04), (0, height)),
            box((-x + 0.12, x - 0.12), (0.04, 0.05), (0.15, height * 0.42), "shade"),
            box((-x + 0.12, x - 0.12), (0.04, 0.05), (height * 0.55, height - 0.15), "shade"),
            box((-x - 0.07, -x), (0, 0.06), (0, height + 0.07), "white"),
            box((x, x + 0.07), (0, 0.06), (0, height + 0.07), "white"),
            box((-x, x), (0, 0.06), (height, height + 0.07), "white"),
            ball((side * (x - 0.07), 0.08, 1.0), (0.035, 0.04, 0.035), "metal"),
        )
    )


def window(rng: Rng) -> Model:
    """A window centred on z = 0, its panes glowing with daylight."""
    x, z = rng.uniform([0.40, 0.45], [0.80, 0.65])
    paint = str(rng.choice(["white", "white", "wood", "dark"]))
    bars = [box((a - 0.03, a + 0.03), (0, 0.06), (-z, z), paint) for a in (-x, 0, x)]
    bars += [box((-x, x), (0, 0.06), (a - 0.03, a + 0.03), paint) for a in (-z, z)]
    return Model((box((-x, x), (0, 0.02), (-z, z), "sky"), *bars))


def curtain(rng: Rng) -> Model:
    """A hanging cloth of upright folds, from its foot at z = 0."""
    x, height = rng.uniform([0.18, 1.6], [0.32, 2.1])
    folds = 5
    centres = np.linspace(-x, x, folds)
    parts = [
        tube(c, 0.06, (0, height), x / folds * 1.3, paint="main" if k % 2 else "shade") for k, c in enumerate(centres)
    ]
    return Model((*parts, box((-x - 0.1, x + 0.1), (0.03, 0.07), (height, height + 0.04), "metal")))


def rug(rng: Rng) -> Model:
    x, y = rng.uniform([0.7, 0.5], [1.4, 0.95])
    if rng.random() < 0.3:
        return Model((tube(0, 0, (0, 0.012), y * 1.15), tube(0, 0, (0.012, 0.016), y * 0.8, paint="shade")))
    return Model(
        (box((-x, x), (-y, y), (0, 0.012)), box((-x + 0.15, x - 0.15), (-y + 0.15, y - 0.15), (0.012, 0.016), "shade"))
    )
