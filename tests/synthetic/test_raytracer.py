"""The ray tracer against closed forms and against a slow float64 loop over every pixel and solid."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ff3r_model.core.geometry import invert_rigid, project, rigid, transform_points, unproject
from ff3r_model.synthetic import RayTracerConfig, Room, look_along, make_room, make_trajectory, pinhole, render
from ff3r_model.synthetic.primitives import BOX, ELLIPSOID, FRUSTUM, PLANE, UNIT_CORNERS
from ff3r_model.synthetic.rooms import Primitives

NEAR = 1e-3


def room_of(
    kind: int, centre: tuple[float, float, float], half: tuple[float, float, float], taper: float = 1.0
) -> Room:
    """Room 0 emptied but for one upright solid."""
    room = make_room(0)
    shell = {name: getattr(room.primitives, name)[:6] for name in Primitives.__dataclass_fields__}
    extent, middle = torch.tensor(half), torch.tensor(centre)
    solid = {
        "kind": torch.tensor([kind], dtype=torch.int32),
        "local_from_world": torch.cat([torch.diag(1 / extent), (-middle / extent)[:, None]], 1)[None],
        "half": extent[None],
        "taper": torch.tensor([taper]),
        "corners": (torch.tensor(UNIT_CORNERS, dtype=torch.float32) * extent + middle)[None],
        "material": room.primitives.material[6:7],
        "instance": torch.tensor([6], dtype=torch.int32),
        "class_id": torch.tensor([7], dtype=torch.int32),
        "color_id": torch.tensor([2], dtype=torch.int32),
    }
    return replace(room, primitives=Primitives(**{name: torch.cat([shell[name], solid[name]]) for name in shell}))


def slow_entry(kind: int, taper: float, origin: np.ndarray, direction: np.ndarray) -> float:
    """Entry into a unit solid by the textbook, one ray in float64; the frustum by its implicit surface's roots."""
    if kind == BOX:
        with np.errstate(divide="ignore"):
            first, second = (-1 - origin) / direction, (1 - origin) / direction
        enter, leave = np.minimum(first, second).max(), np.maximum(first, second).min()
        return enter if NEAR < enter <= leave else math.inf
    if kind == ELLIPSOID:
        roots = np.roots([direction @ direction, 2 * origin @ direction, origin @ origin - 1])
        return min([float(r.real) for r in roots if abs(r.imag) < 1e-12 and r.real > NEAR], default=math.inf)
    slope, middle = (taper - 1) / 2, (taper + 1) / 2
    base, grow = middle + slope * origin[2], slope * direction[2]
    quadratic = [
        direction[:2] @ direction[:2] - grow**2,
        2 * (origin[:2] @ direction[:2] - base * grow),
        origin[:2] @ origin[:2] - base**2,
    ]
    sides = [float(r.real) for r in np.roots(quadratic) if abs(r.imag) < 1e-12]
    hits = [t for t in sides if t > NEAR and abs(origin[2] + t * direction[2]) <= 1]
    for z, radius in ((-1, 1.0), (1, taper)):
        t = (z - origin[2]) / direction[2]
        if t > NEAR and np.hypot(*(origin + t * direction)[:2]) <= radius:
            hits.append(t)
    return min(hits, default=math.inf)


def slow_trace(
    room: Room, pose: np.ndarray, intrinsics: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Depth and primitive row of every pixel by brute force."""
    table = room.primitives
    matrices, tapers = table.local_from_world.double().numpy(), table.taper.double().numpy()
    kinds = table.kind.tolist()
    low, high = room.low.double().numpy(), room.high.double().numpy()
    depth, rows = np.full((height, width), np.inf), np.zeros((height, width), dtype=int)
    centre = pose[:3, 3]
    for v in range(height):
        for u in range(width):
            ray = pose[:3, :3] @ np.linalg.solve(intrinsics, [u + 0.5, v + 0.5, 1.0])
            walls = [((high if ray[k] > 0 else low)[k] - centre[k]) / ray[k] for k in range(3)]
            axis = int(np.argmin(walls))
            depth[v, u], rows[v, u] = walls[axis], 2 * axis + (ray[axis] > 0)
            for row, kind in enumerate(kinds):
                if kind == PLANE:
                    continue
                linear = matrices[row][:, :3]
                t = slow_entry(kind, tapers[row], linear @ centre + matrices[row][:, 3], linear @ ray)
                if t < depth[v, u]:
                    depth[v, u], rows[v, u] = t, row
    return depth, rows


@pytest.mark.parametrize("seed", [3, 11])
def test_equals_a_slow_loop_over_all_pixels_and_solids(seed: int) -> None:
    room, height, width = make_room(seed), 17, 23
    poses, intrinsics = make_trajectory(room, 5, 2, "random"), pinhole(height, width, 75.0)
    views = render(room, poses, intrinsics.expand(2, 3, 3), height, width)
    assert len(views.instances.unique()) > 4, "a view of nothing but walls would prove little"
    for k in range(2):
        depth, rows = slow_trace(room, poses[k].double().numpy(), intrinsics.double().numpy(), height, width)
        same = views.instances[k].numpy() == room.primitives.instance.numpy()[rows]
        assert same.mean() > 0.99, "rays that graze an edge may differ in float32, no others"
        assert np.allclose(views.depth[k].numpy()[same], depth[same], rtol=2e-4)
        assert (views.classes[k].numpy()[same] == room.primitives.class_id.numpy()[rows][same]).all()
        assert (views.colors[k].numpy()[same] == room.primitives.color_id.numpy()[rows][same]).all()


def test_depth_of_a_sphere_in_closed_form() -> None:
    centre, radius = np.array([0.2, -0.1, 1.3]), 0.35
    room = room_of(ELLIPSOID, (0.2, -0.1, 1.3), (0.35, 0.35, 0.35))
    eye = np.array([-1.2, -0.3, 1.2])
    pose = look_along(torch.tensor(eye)[None].float(), torch.tensor(centre - eye)[None].float(), torch.zeros(1))
    intrinsics = pinhole(48, 64, 50.0)
    views = render(room, pose, intrinsics[None], 48, 64)
    v, u = np.mgrid[:48, :64] + 0.5
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(intrinsics.double().numpy()).T
    middle = pose[0, :3, :3].double().numpy().T @ (centre - eye)
    a, b, c = (rays**2).sum(-1), rays @ middle, middle @ middle - radius**2
    discriminant = b**2 - a * c
    seen = views.instances[0].numpy() == 6
    assert 200 < seen.sum() < 48 * 64
    assert (seen == (discriminant > 0))[np.abs(discriminant) > 1e-4].all()
    exact = (b - np.sqrt(discriminant.clip(0))) / a
    assert np.allclose(views.depth[0].numpy()[seen], exact[seen], rtol=1e-4)


@pytest.mark.parametrize(("kind", "taper"), [(BOX, 1.0), (FRUSTUM, 1.0), (FRUSTUM, 0.4), (FRUSTUM, 0.0)])
def test_seen_points_lie_on_the_surface(kind: int, taper: float) -> None:
    centre, half = (0.1, 0.2, 0.8), (0.4, 0.3, 0.5)
    room = room_of(kind, centre, half, taper)
    eye = torch.tensor([[-1.2, -1.0, 1.9], [1.2, 1.5, 0.3]])
    poses = look_along(eye, torch.tensor(centre) - eye, torch.zeros(2))
    views = render(room, poses, pinhole(64, 64).expand(2, 3, 3), 64, 64)
    points = transform_points(poses, unproject(views.depth, views.cameras.intrinsics).flatten(1, 2))
    local = ((points - torch.tensor(centre)) / torch.tensor(half)).abs()[(views.instances == 6).flatten(1)]
    signed = ((points - torch.tensor(centre)) / torch.tensor(half))[(views.instances == 6).flatten(1)]
    assert len(local) > 200
    if kind == BOX:
        height_above = local.amax(-1) - 1
    else:
        side = signed[:, :2].norm(dim=-1) - ((1 + taper) / 2 + (taper - 1) / 2 * signed[:, 2])
        height_above = torch.maximum(side, local[:, 2] - 1)
    assert height_above.abs().max() < 1e-4


def test_depth_reprojects_between_views() -> None:
    room = make_room(8)
    poses, intrinsics = make_trajectory(room, 2, 2, "random"), pinhole(96, 96)
    views = render(room, poses, intrinsics.expand(2, 3, 3), 96, 96)
    world = transform_points(poses[:1], unproject(views.depth[:1], intrinsics[None]).flatten(1, 2))
    pixels, depth = project(transform_points(invert_rigid(poses[1:]), world), intrinsics[None])
    column, row = pixels[0].floor().long().unbind(-1)
    inside = (column >= 0) & (column < 96) & (row >= 0) & (row < 96) & (depth[0] > 0)
    assert inside.float().mean() > 0.3
    there = views.depth[1][row[inside], column[inside]]
    here = depth[0][inside]
    same_thing = views.instances[1][row[inside], column[inside]] == views.instances[0].flatten()[inside]
    assert (here >= there * 0.9).float().mean() > 0.97, "nothing can be seen through what the other view sees"
    assert ((here - there).abs() < 0.05 * there)[same_thing].float().mean() > 0.85


def test_ties_and_order_do_not_depend_on_how_views_are_grouped() -> None:
    room = make_room(4)
    poses, intrinsics = make_trajectory(room, 0, 9, "robot", 0.3), pinhole(40, 56).expand(9, 3, 3)
    together = render(room, poses, intrinsics, 40, 56)
    for k in (0, 8):
        alone = render(room, poses[k : k + 1], intrinsics[:1], 40, 56)
        for name in ("images", "depth", "classes", "colors", "instances"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[k])


def test_a_camera_beside_a_solid_sees_it_cut_by_the_image() -> None:
    """Corners behind the camera must not shrink the solid's rectangle on the screen."""
    room = room_of(BOX, (0.0, 0.0, 0.3), (0.5, 1.4, 0.3))
    eye = torch.tensor([[0.0, 0.0, 1.2]])
    views = render(
        room, look_along(eye, torch.tensor([[0.0, 1.0, -0.8]]), torch.zeros(1)), pinhole(60, 60)[None], 60, 60
    )
    assert (views.instances[0, -1, 20:40] == 6).all()


def test_supersampling_and_shadows_change_colour_alone() -> None:
    room = make_room(6)
    poses, intrinsics = make_trajectory(room, 1, 2, "random"), pinhole(48, 48).expand(2, 3, 3)
    plain = render(room, poses, intrinsics, 48, 48)
    for config in (RayTracerConfig(supersample=2), RayTracerConfig(shadows=True)):
        other = render(room, poses, intrinsics, 48, 48, config)
        assert torch.equal(other.depth, plain.depth) and torch.equal(other.instances, plain.instances)
        assert not torch.equal(other.images, plain.images)
    assert (render(room, poses, intrinsics, 48, 48, RayTracerConfig(shadows=True)).images <= plain.images).all()


def test_refuses_a_camera_outside_the_room() -> None:
    room = make_room(0)
    pose = rigid(torch.eye(3), torch.tensor([20.0, 0.0, 1.0]))[None]
    with pytest.raises(ValueError, match=r"camera 0 at \[20.*outside the room"):
        render(room, pose, pinhole(8, 8)[None], 8, 8)
