"""Colour of the surfaces that rays hit: textures, Lambert shading under point lights, optional hard shadows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ff3r_model.synthetic import textures
from ff3r_model.synthetic.intersect import INTERSECT
from ff3r_model.synthetic.primitives import BOX, FRUSTUM, PLANE
from ff3r_model.synthetic.rays import Rays
from ff3r_model.synthetic.rooms import Room

BLOTCH_DENSITY = 0.37
"""Texels of the blotches per texel of the pattern; out of step with it, so that a wall does not repeat itself."""
WRAP = 0.25
"""Share of a light that reaches surfaces at grazing angles; bounced light would do this."""
FALLOFF = 3.5
"""Metres at which a light has half its power."""
UMBRA = 0.3
"""Share of a light that reaches surfaces in its shadow."""
LIFT = 2e-3
"""Metres above a surface where rays towards a light start, so that it does not shadow itself."""


def shade(
    room: Room, rays: Rays, depth: Float[Tensor, " pixels"], rows: Int[Tensor, " pixels"], shadows: bool
) -> Float[Tensor, "3 pixels"]:
    """RGB of every ray's hit, not yet clamped to [0, 1]."""
    origin = rays.origin.T.repeat_interleave(rays.height * rays.width, dim=1)
    offset = rays.directions * depth
    points = origin + offset
    local, normal, unit_normal = _surface(room, points, rows)
    facing = _dot(offset, normal) * _dot(offset, offset).rsqrt()
    normal = torch.where(facing > 0, -normal, normal)
    focal = rays.width / 2 / (rays.matrix[0, :, 0] * rays.width / 2).norm()
    footprint = depth / focal / facing.abs().clamp(min=0.2).sqrt()
    material = room.primitives.material.T.contiguous().index_select(1, rows)
    albedo = _albedo(material, local, unit_normal, footprint)
    light = _light(room, points, normal, shadows)
    light = torch.maximum(light, material[10])
    return albedo * light * room.lighting.exposure


def _dot(a: Float[Tensor, "3 pixels"], b: Float[Tensor, "3 pixels"]) -> Float[Tensor, " pixels"]:
    return (a * b).sum(0)


def _surface(room: Room, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Metric local positions, unit normals in the world, and normals in the unit solid's frame, 3×pixels each."""
    table = room.primitives
    columns = torch.cat(
        [
            table.local_from_world.permute(1, 2, 0).reshape(12, -1),
            table.half.T,
            table.taper[None],
            table.kind[None].to(points),
        ]
    ).index_select(1, rows)
    matrix, half, taper, kind = columns[:12].view(3, 4, -1), columns[12:15], columns[15], columns[16]
    unit = (matrix[:, :3] * points).sum(1) + matrix[:, 3]
    unit_normal = _unit_normals(unit, taper, kind)
    shell = (rows[None] // 2 == torch.arange(3, device=rows.device)[:, None]) & (rows < 6)
    unit_normal = torch.where(rows < 6, shell.to(unit), unit_normal)
    normal = (matrix[:, :3] * unit_normal[:, None]).sum(0)
    return unit * half, normal * _dot(normal, normal).rsqrt(), unit_normal / half


def _unit_normals(unit: Tensor, taper: Tensor, kind: Tensor) -> Tensor:
    """Outward normals at points on unit cubes, spheres and frustums; lengths differ."""
    size = unit.abs()
    is_face = size >= size.amax(0)
    slope = (taper - 1) / 2
    radius = slope * unit[2] + (taper + 1) / 2
    on_cap = (size[2] - 1).abs() < ((unit[0] ** 2 + unit[1] ** 2).sqrt() - radius).abs()
    up = torch.where(on_cap, unit[2], -radius * slope)
    side = torch.where(on_cap, torch.zeros_like(unit[:2]), unit[:2])
    frustum = torch.cat([side, up[None]])
    normal = torch.where(kind == BOX, unit * is_face, unit)
    return torch.where(kind == FRUSTUM, frustum, normal)


def _albedo(material: Tensor, local: Tensor, unit_normal: Tensor, footprint: Tensor) -> Tensor:
    """The two tones of each surface mixed by its pattern, darkened and lightened by blotches."""
    first, second, pattern, density = material[:3], material[3:6], material[6].to(torch.int32), material[7]
    nx, ny, nz = unit_normal.abs()
    u = torch.where((nx >= ny) & (nx >= nz), local[1], local[0]) * density + material[8]
    v = torch.where((nz > nx) & (nz > ny), local[1], local[2]) * density + material[9]
    texels = textures.atlas().to(local.device).view(-1)
    footprint = footprint * density
    mix = textures.sample(texels, pattern, u, v, footprint)
    clouds = torch.zeros_like(pattern)
    blotch = textures.sample(texels, clouds, u * BLOTCH_DENSITY, v * BLOTCH_DENSITY, footprint * BLOTCH_DENSITY)
    return torch.lerp(first, second, mix) * (1 + (blotch - 0.5) * 2 * material[11])


def _light(room: Room, points: Tensor, normal: Tensor, shadows: bool) -> Tensor:
    """Light that reaches surface points: ambient, a little more from above, and Lambert's cosine per lamp."""
    lighting = room.lighting
    total = lighting.ambient[:, None] * (0.9 + 0.15 * normal[2])
    for position, color in zip(lighting.positions, lighting.colors, strict=True):
        to_light = position[:, None] - points
        squared = _dot(to_light, to_light)
        cosine = _dot(to_light, normal) * squared.rsqrt()
        received = (cosine.clamp(min=0) * (1 - WRAP) + WRAP) / (1 + squared / FALLOFF**2)
        if shadows:
            received = received * torch.where(_blocked(room, points + LIFT * normal, position), UMBRA, 1.0)
        total = total + color[:, None] * received
    return total


def _blocked(room: Room, points: Float[Tensor, "3 pixels"], light: Float[Tensor, " 3"]) -> Bool[Tensor, " pixels"]:
    """Which points have a solid between themselves and a light."""
    table = room.primitives
    blocked = torch.zeros_like(points[0], dtype=torch.bool)
    for row in (table.kind != PLANE).nonzero()[:, 0].tolist():
        linear, offset = table.local_from_world[row, :, :3], table.local_from_world[row, :, 3:]
        hit = INTERSECT[int(table.kind[row])](
            linear @ points + offset, linear @ (light[:, None] - points), table.taper[row].expand_as(points[0])
        )
        blocked |= hit < 1
    return blocked
