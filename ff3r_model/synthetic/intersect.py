"""Ray intersection with the unit solids: each function takes 3×n origins and directions in the solid's own frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ff3r_model.synthetic.primitives import BOX, ELLIPSOID, FRUSTUM

NEAR = 1e-3
"""Ray parameter where seeing begins; metres in front of a camera."""

Intersect = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Entry depth of rays into unit solids, from local origins, directions and tapers (which only frustums use)."""


def hit_box(origin: Tensor, direction: Tensor, taper: Tensor) -> Tensor:
    """Entry depth into the cube [-1, 1]³, infinite where missed."""
    inverse = direction.reciprocal()
    centre = origin * inverse
    reach = inverse.abs_()
    enter = (-centre - reach).amax(0)
    leave = (reach - centre).amin(0)
    return torch.where((enter <= leave) & (enter > NEAR), enter, torch.inf)


def hit_ellipsoid(origin: Tensor, direction: Tensor, taper: Tensor) -> Tensor:
    """Entry depth into the unit sphere, infinite where missed."""
    a = (direction * direction).sum(0)
    b = (origin * direction).sum(0)
    across = origin - direction * (b / a)
    room_left = 1 - (across * across).sum(0)
    depth = (-b - (room_left.clamp(min=0) * a).sqrt()) / a
    return torch.where((room_left >= 0) & (depth > NEAR), depth, torch.inf)


def hit_frustum(origin: Tensor, direction: Tensor, taper: Tensor) -> Tensor:
    """Entry depth into the frustum with radius 1 at z = -1 and `taper` at z = 1, infinite where missed."""
    slope = (taper - 1) / 2
    radius = slope * origin[2] + (taper + 1) / 2
    grow = slope * direction[2]
    a = direction[0] ** 2 + direction[1] ** 2 - grow**2
    b = origin[0] * direction[0] + origin[1] * direction[1] - radius * grow
    c = origin[0] ** 2 + origin[1] ** 2 - radius**2
    root = (b * b - a * c).sqrt()
    nearest = torch.full_like(a, torch.inf)
    for depth in ((-b - root) / a, (root - b) / a):
        inside = ((origin[2] + depth * direction[2]).abs() <= 1) & (depth > NEAR)
        nearest = torch.where(inside & (depth < nearest), depth, nearest)
    for z, limit in ((-1.0, torch.ones_like(taper)), (1.0, taper)):
        depth = (z - origin[2]) / direction[2]
        x, y = origin[0] + depth * direction[0], origin[1] + depth * direction[1]
        inside = (x * x + y * y <= limit * limit) & (depth > NEAR)
        nearest = torch.where(inside & (depth < nearest), depth, nearest)
    return nearest


INTERSECT: dict[int, Intersect] = {BOX: hit_box, ELLIPSOID: hit_ellipsoid, FRUSTUM: hit_frustum}
"""The function for each kind of solid."""
