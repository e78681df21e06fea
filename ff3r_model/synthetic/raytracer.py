"""A vectorised analytic ray tracer: one ray through every pixel's centre, on the device of the room's tensors.

Rays are scaled to z = 1 in the camera's frame, so a ray's parameter is the depth z itself. Every solid is tested only
against the pixels inside its rectangle on the screen: those (solid, pixel) pairs form one flat list per kind of solid.
The nearest hit wins through an atomic minimum over (depth bits, row), and each pixel is shaded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int16, UInt8
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.types import Cameras
from ff3r_model.synthetic.intersect import INTERSECT, NEAR, Intersect
from ff3r_model.synthetic.rays import Rays, make_rays
from ff3r_model.synthetic.rooms import Room
from ff3r_model.synthetic.shading import shade

PIXELS_PER_CHUNK = 112 * 112 * 4
"""Views are traced in groups of about this many pixels, so that intermediate results stay in the cache."""
CHUNK_GROWTH_ON_GPU = 64
"""A GPU wants larger groups."""

EDGES = torch.tensor([[a, b] for a in range(8) for b in range(a + 1, 8) if (a ^ b) in (1, 2, 4)])
"""The twelve edges of a box between its corners."""


@dataclass(frozen=True)
class RayTracerConfig:
    """Choices between quality and speed."""

    supersample: int = 1
    """Rays per pixel side for colour; depth and labels always come from the one ray through the centre."""
    shadows: bool = False
    """Hard shadows; costs one test of every pixel against every solid and light."""


@dataclass(frozen=True)
class RenderedViews:
    """Images with exact ground truth."""

    images: UInt8[Tensor, "v h w 3"]
    depth: Float[Tensor, "v h w"]
    """z in the camera's frame, metres."""
    classes: Int16[Tensor, "v h w"]
    colors: Int16[Tensor, "v h w"]
    """Colour name of the instance seen, an index into `COLORS`."""
    instances: Int16[Tensor, "v h w"]
    cameras: Cameras


def render(
    room: Room, world_from_camera: Float[Tensor, "v 4 4"], intrinsics: Float[Tensor, "v 3 3"], height: int, width: int,
    config: RayTracerConfig = RayTracerConfig(),
) -> RenderedViews:  # fmt: skip
    """What cameras inside the room see.

    Poses in metres (OpenCV axes), intrinsics in pixels of height × width. ValueError for a camera outside.
    """
    device = room.low.device
    poses = world_from_camera.to(device, torch.float32)
    intrinsics = intrinsics.to(device, torch.float32)
    _check_inside(room, poses)
    growth = 1 if device.type == "cpu" else CHUNK_GROWTH_ON_GPU
    step = max(1, PIXELS_PER_CHUNK * growth // (height * width * config.supersample**2))
    parts = [
        _render_chunk(room, poses[k : k + step], intrinsics[k : k + step], height, width, config)
        for k in range(0, len(poses), step)
    ]
    images, depth, rows = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    table = room.primitives
    classes, colors, instances = (
        column.to(torch.int16)[rows] for column in (table.class_id, table.color_id, table.instance)
    )
    return RenderedViews(images, depth, classes, colors, instances, Cameras(invert_rigid(poses), intrinsics))


def _check_inside(room: Room, poses: Tensor) -> None:
    centres = poses[:, :3, 3]
    outside = ((centres <= room.low) | (centres >= room.high)).any(-1)
    if bool(outside.any()):
        number = int(outside.nonzero()[0])
        raise ValueError(
            f"camera {number} at {centres[number].tolist()} is outside the room, which spans {room.low.tolist()} to "
            f"{room.high.tolist()}; use make_trajectory or move it inside"
        )


def _render_chunk(
    room: Room, poses: Tensor, intrinsics: Tensor, height: int, width: int, config: RayTracerConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, depth and row of the primitive seen, of a few views."""
    rays = make_rays(poses, intrinsics, height, width)
    depth, rows = trace(room, rays)
    shape = (len(poses), height, width)
    if config.supersample == 1:
        color = shade(room, rays, depth, rows, config.shadows)
    else:
        factor = config.supersample
        scale = intrinsics.new_tensor([factor, factor, 1.0])[:, None]
        fine = make_rays(poses, intrinsics * scale, height * factor, width * factor)
        fine_color = shade(room, fine, *trace(room, fine), config.shadows)
        color = fine_color.view(3, len(poses), height, factor, width, factor).mean((3, 5)).view(3, -1)
    image = color.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return image.view(3, *shape).permute(1, 2, 3, 0).contiguous(), depth.view(shape), rows.view(shape)


def trace(room: Room, rays: Rays) -> tuple[Float[Tensor, " pixels"], Int[Tensor, " pixels"]]:
    """Depth and primitive row of the nearest hit of every ray."""
    nearest = _shell_keys(room, rays)
    table = room.primitives
    rectangles = _screen_rectangles(room, rays)
    for kind in INTERSECT:
        visible = (rectangles[..., 2] > 0) & (table.kind == kind)
        views, rows = visible.nonzero(as_tuple=True)
        if len(rows):
            _splat(room, rays, views, rows, rectangles[views, rows], INTERSECT[kind], nearest)
    depth = (nearest >> 32).to(torch.int32).view(torch.float32)
    return depth, (nearest & 0xFFFFFFFF)


def _pack(depth: Tensor, rows: Tensor) -> Tensor:
    """Sortable keys: positive floats order like their bits, so the smallest key is the nearest, then the lowest row."""
    return (depth.contiguous().view(torch.int32).to(torch.int64) << 32) | rows


def _shell_keys(room: Room, rays: Rays) -> Int[Tensor, " pixels"]:
    """Hits of the room's own faces, which every ray leaves through one of."""
    directions = rays.directions.view(3, len(rays.origin), -1)
    origin = rays.origin.T[..., None]
    low, high = (corner[:, None, None] - origin for corner in (room.low, room.high))
    ahead = directions > 0
    depth, axis = (torch.where(ahead, high, low) / directions).abs_().min(0)
    face = axis * 2 + ahead.gather(0, axis[None])[0]
    return _pack(depth.reshape(-1), face.reshape(-1))


def _screen_rectangles(room: Room, rays: Rays) -> Int[Tensor, "v n 4"]:
    """First column, first row, width and height of the pixels that each primitive's bounding box can cover."""
    corners = room.primitives.corners
    pixels_from_world = torch.linalg.inv(rays.matrix)
    seen = torch.einsum("vij,vnkj->vnki", pixels_from_world, corners[None] - rays.origin[:, None, None])
    edges = EDGES.to(corners.device)
    start, end = seen[..., edges[:, 0], :], seen[..., edges[:, 1], :]
    crossing = (start[..., 2] < NEAR) != (end[..., 2] < NEAR)
    share = ((NEAR - start[..., 2]) / (end[..., 2] - start[..., 2])).clamp(0, 1)[..., None]
    points = torch.cat([seen, start + share * (end - start)], dim=-2)
    valid = torch.cat([seen[..., 2] >= NEAR, crossing], dim=-1)[..., None]
    uv = points[..., :2] / points[..., 2:].clamp(min=NEAR * 0.5)
    limit = uv.new_tensor([rays.width, rays.height])
    first = torch.where(valid, uv, torch.inf).amin(-2).sub(0.5).floor().clamp(min=torch.zeros_like(limit), max=limit)
    last = torch.where(valid, uv, -torch.inf).amax(-2).add(0.5).ceil().clamp(min=torch.zeros_like(limit), max=limit)
    size = (last - first).clamp(min=0) * ((last - first) > 0).all(-1, keepdim=True)
    return torch.cat([first, size], -1).to(torch.int32)


def _splat(
    room: Room, rays: Rays, views: Tensor, rows: Tensor, rectangles: Tensor, intersect: Intersect, nearest: Tensor
) -> None:
    """Test primitives of one kind against the pixels of their rectangles and keep the nearest hits."""
    x0, y0, wide, high = rectangles.unbind(-1)
    counts = wide * high
    entry = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
    first = counts.cumsum(0) - counts
    inside = torch.arange(len(entry), device=rows.device, dtype=torch.int32) - first.to(torch.int32)[entry]
    stride = wide[entry]
    dy = torch.div(inside, stride, rounding_mode="floor")
    pixel = dy * rays.width + (inside - dy * stride)
    pixel += ((views.to(torch.int32) * rays.height + y0) * rays.width + x0)[entry]
    origin, direction = _local_rays(room, rays, views, rows, entry, pixel)
    depth = intersect(origin, direction, room.primitives.taper[rows].index_select(0, entry))
    hit = depth < torch.inf
    keys = _pack(depth[hit], rows[entry[hit]])
    nearest.scatter_reduce_(0, pixel[hit].to(torch.int64), keys, "amin")


def _local_rays(
    room: Room, rays: Rays, views: Tensor, rows: Tensor, entry: Tensor, pixel: Tensor
) -> tuple[Float[Tensor, "3 pairs"], Float[Tensor, "3 pairs"]]:
    """Origins and directions of the pairs' rays in the frames of the unit solids."""
    matrix = room.primitives.local_from_world[rows]
    origin = (matrix[..., :3] @ rays.origin[views][..., None])[..., 0] + matrix[..., 3]
    table = torch.cat([origin.T, matrix[..., :3].permute(1, 2, 0).reshape(9, -1)]).index_select(1, entry)
    world = rays.directions.index_select(1, pixel)
    linear = table[3:].view(3, 3, -1)
    return table[:3], (linear * world).sum(1)
