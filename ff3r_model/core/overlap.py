"""View overlap: which views see the same surfaces, and so whether a window is one scene or two glued together."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.core.types import Cameras

GRID = 24
"""Pixels along the long side at which views are compared, where nobody says otherwise."""
DEPTH_TOLERANCE = 0.15
"""Two depths agree within this share: a network's are off by some percent."""


def overlaps(
    depth: Float[Tensor, "views h w"], cameras: Cameras, grid: int = GRID
) -> tuple[Float[Tensor, "views views"], Float[Tensor, "views views"]]:
    """(inside, agreeing): shares of the pixels of view i that fall into view j's image, and of those that fall, the
    share that lies where j sees a surface. Pixels without a depth (0) do not count; what j sees nearer hides it and
    does not count as agreeing. Views are compared at `grid` pixels along their long side."""
    step = max(1, max(depth.shape[1:]) // grid)
    first = step // 2
    points = unproject(depth, cameras.intrinsics)[:, first::step, first::step].flatten(1, 2)
    known = depth[:, first::step, first::step].flatten(1) > 0
    world = transform_points(invert_rigid(cameras.camera_from_world), points)
    views = len(depth)
    seen = transform_points(cameras.camera_from_world[None], world[:, None].expand(-1, views, -1, -1))
    pixels, z = project(seen, cameras.intrinsics[None])
    height, width = depth.shape[1:]
    column, row = pixels.floor().unbind(-1)
    falls = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height) & known[:, None]
    index = (row * width + column).where(falls, 0).long()
    measured = depth.flatten(1)[None].expand(views, -1, -1).gather(2, index)
    falls &= measured > 0
    agrees = falls & ((z - measured).abs() < DEPTH_TOLERANCE * measured)
    inside = falls.sum(-1) / known.sum(-1).clamp_min(1)[:, None]
    return inside, agrees.sum(-1) / falls.sum(-1).clamp_min(1)
