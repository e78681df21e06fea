"""Builders of furniture and objects: each draws its measures from a generator and returns a model.

Measures follow real furniture, with small things on the large side so that a 112-pixel view can see them.
Paints: "main" is the instance's colour, "shade" a darker tone of it; the other names are fixed materials.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ff3r_model.synthetic.primitives import Model, Part, ball, box, moved, tube, turn

Rng = np.random.Generator
Builder = Callable[[Rng], Model]


def _legs(x: float, y: float, height: float, thick: float, paint: str) -> list[Part]:
    """Four square legs whose outer faces stand at ±x, ±y."""
    return [
        box(tuple(sorted((sx * x, sx * (x - thick)))), tuple(sorted((sy * y, sy * (y - thick)))), (0, height), paint)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def _frame(rng: Rng) -> str:
    return str(rng.choice(["wood", "metal", "dark", "shade"]))


def chair(rng: Rng) -> Model:
    x, y, seat, back = rng.uniform([0.20, 0.20, 0.42, 0.85], [0.26, 0.25, 0.48, 1.05])
    parts = [
        box((-x, x), (-y, y), (seat - 0.06, seat)),
        box((-x, x), (-y, -y + 0.06), (seat, back)),
        *_legs(x, y, seat - 0.06, 0.05, _frame(rng)),
    ]
    if rng.random() < 0.3:
        parts += [box((s * x - 0.03, s * x + 0.03), (-y, y), (seat + 0.16, seat + 0.21), "shade") for s in (-1, 1)]
    return Model(tuple(parts))


def stool(rng: Rng) -> Model:
    radius, height = rng.uniform([0.17, 0.45], [0.22, 0.65])
    legs = (tube(0, 0, (0.0, 0.03), radius, paint="metal"), tube(0, 0, (0.03, height - 0.06), 0.04, paint="metal"))
    if rng.random() < 0.5:
        legs = tuple(_legs(radius * 0.75, radius * 0.75, height - 0.06, 0.04, "wood"))
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
    for low, high in zip(levels[:-1], levels[1:], strict=True):
        start, end = np.sort(rng.uniform(-x + 0.04, x - 0.04, 2))
        tall = (high - low - 0.03) * rng.uniform(0.6, 0.9)
        parts.append(box((start, end), (-y + 0.02, y - 0.05), (low + 0.03, low + 0.03 + tall), "books"))
    return Model(tuple(parts), (-x, x, -y, y, height))


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


def ball_(rng: Rng) -> Model:
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
            box((-x, x), (0, 0.03), (-z, z), _frame(rng)),
            box((-x + 0.04, x - 0.04), (0.03, 0.035), (-z + 0.04, z - 0.04)),
            box((-x * 0.4, x * 0.5), (0.035, 0.038), (-z * 0.5, z * 0.2), "shade"),
            ball((x * rng.uniform(-0.5, 0.5), 0.035, z * 0.45), (z * 0.2, 0.006, z * 0.2), "shade"),
        )
    )


def clock(rng: Rng) -> Model:
    radius = rng.uniform(0.16, 0.26)
    upright = turn(-90, "x")
    disc = moved(
        [tube(0, 0, (0, 0.04), radius), tube(0, 0, (0.04, 0.045), radius * 0.8, paint="paper")], upright, (0, 0, 0)
    )
    hands = [
        *moved(
            [box((-0.012, 0.012), (0.045, 0.055), (-0.02, radius * 0.7), "dark")],
            turn(rng.uniform(0, 360), "y"),
            (0, 0, 0),
        ),
        *moved(
            [box((-0.015, 0.015), (0.045, 0.055), (-0.02, radius * 0.45), "dark")],
            turn(rng.uniform(0, 360), "y"),
            (0, 0, 0),
        ),
    ]
    return Model((*disc, *hands))


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


def rug(rng: Rng) -> Model:
    x, y = rng.uniform([0.7, 0.5], [1.4, 0.95])
    if rng.random() < 0.3:
        return Model((tube(0, 0, (0, 0.012), y * 1.15), tube(0, 0, (0.012, 0.016), y * 0.8, paint="shade")))
    return Model(
        (box((-x, x), (-y, y), (0, 0.012)), box((-x + 0.15, x - 0.15), (-y + 0.15, y - 0.15), (0.012, 0.016), "shade"))
    )
