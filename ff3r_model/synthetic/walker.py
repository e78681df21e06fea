"""A person who walks through a synthetic room: an articulated figure whose place and stride depend on time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.synthetic.primitives import Number, Part, ball, box, moved, tube, turn
from ff3r_model.synthetic.rooms import Room, with_figure

HIP, SHOULDER = 0.9, 1.42
"""Metres above the floor."""
STRIDE = 1.3
"""Metres of path per two steps."""
SWING = 28.0
"""Degrees by which legs swing; arms as far, the other way round."""
REACH = 0.9
"""Metres that somebody who crosses a view walks to either side of its middle."""
SHIRTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


@dataclass(frozen=True)
class Walker:
    """Walks to and fro between two places, at one speed; a speed of 0 is somebody who stands."""

    start: tuple[Number, Number]
    """x and y, metres."""
    end: tuple[Number, Number]
    speed: Number = 1.0
    """Metres per unit of the time that `room_at` is asked for."""
    seed: int = 0
    """Of the clothes."""

    @classmethod
    def crossing(
        cls, world_from_camera: Float[Tensor, "4 4"], distance: Number, speed: Number = 0.3, seed: int = 0
    ) -> Walker:
        """Somebody who walks across what a camera sees, `distance` metres ahead of it, 0.9 m to either side."""
        ahead = world_from_camera[:2, 2] / world_from_camera[:2, 2].norm()
        aside = REACH * torch.stack([ahead[1], -ahead[0]])
        middle = world_from_camera[:2, 3] + distance * ahead
        (x, y), (to_x, to_y) = (middle - aside).tolist(), (middle + aside).tolist()
        return cls((x, y), (to_x, to_y), speed, seed)

    def parts(self, time: Number) -> tuple[Part, ...]:
        """The solids of the figure at a time, in the world."""
        start, end = np.array(self.start), np.array(self.end)
        length = max(float(np.linalg.norm(end - start)), 1e-9)
        path = self.speed * time
        there = path % (2 * length)
        along, ahead = (there, 1) if there <= length else (2 * length - there, -1)
        x, y = start + (end - start) * along / length
        yaw = math.degrees(math.atan2(*(ahead * (end - start))[::-1])) - 90
        swing = SWING * math.sin(2 * math.pi * path / STRIDE)
        return moved(_figure(swing), turn(yaw), (x, y, 0.0))

    def room_at(self, room: Room, time: Number) -> Room:
        """The room with the figure in it, as its last instance."""
        rng = np.random.default_rng([self.seed, 11])
        return with_figure(room, str(rng.choice(SHIRTS)), self.parts(time), rng)


def _figure(swing: Number) -> tuple[Part, ...]:
    """Somebody 1.75 m tall on z = 0, facing +y, the right leg `swing` degrees ahead."""
    legs = [_limb(tube(0, 0, (-HIP, 0), 0.06, 0.085, "dark"), side * 0.1, HIP, side * swing) for side in (1, -1)]
    arms = [_limb(tube(0, 0, (-0.6, 0), 0.04, 0.055), side * 0.25, SHOULDER, -side * swing) for side in (1, -1)]
    torso = box((-0.2, 0.2), (-0.11, 0.11), (HIP - 0.02, SHOULDER + 0.04))
    head = ball((0, 0, 1.6), (0.09, 0.11, 0.14), "paper")
    return (*legs, *arms, torso, head)


def _limb(part: Part, x: Number, height: Number, degrees: Number) -> Part:
    """A part that hangs from a joint, swung forward."""
    return moved([part], turn(degrees, "x"), (x, 0, height))[0]
