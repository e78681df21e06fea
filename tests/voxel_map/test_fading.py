"""What rays pass through fades: against brute force, with noise, for thin things, and for a chair that has moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ff3r_model.core.geometry import invert_rigid, rigid, transform_points, unproject
from ff3r_model.core.types import Cameras, Gaussians
from ff3r_model.synthetic import Room, Views, make_room, make_trajectory, pinhole, render
from ff3r_model.voxel_map.config import MapConfig
from ff3r_model.voxel_map.fading import ObservedSurfaces
from ff3r_model.voxel_map.hash_index import pack
from ff3r_model.voxel_map.voxel_map import VoxelMap

CONFIG = MapConfig(voxel_size=0.05, max_map_bytes=2**25, max_keyframes=0, compact=False)
SIZE = 64


def gaussians(points: torch.Tensor) -> Gaussians:
    count = len(points)
    return Gaussians(
        means=points,
        scales=torch.full((count, 3), 0.01),
        quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        harmonics=torch.zeros(count, 1, 3),
        opacities=torch.full((count,), 0.9),
        confidences=torch.zeros(count),
        features=torch.ones(count, 2),
    )


def points_of(views: Views) -> torch.Tensor:
    points = unproject(views.depth, views.cameras.intrinsics).flatten(1, 2)
    return transform_points(invert_rigid(views.cameras.camera_from_world), points).flatten(0, 1)


def row_of_cameras(count: int, focal: float = 60.0) -> Cameras:
    """Cameras side by side along x, 5 cm apart, all looking along +z."""
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = -0.05 * torch.arange(count)
    intrinsics = torch.tensor([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1]]).expand(count, 3, 3)
    return Cameras(poses, intrinsics)


def mapped(points: torch.Tensor, times: int = 1) -> VoxelMap:
    voxel_map = VoxelMap(CONFIG, 2)
    for number in range(times):
        voxel_map.integrate(gaussians(points), number)
    return voxel_map


def state(voxel_map: VoxelMap) -> dict[tuple[int, ...], float]:
    """Log mass by cell; the index checked."""
    assert torch.equal(voxel_map._store.find(pack(voxel_map.cells())), torch.arange(len(voxel_map)))
    return dict(zip(map(tuple, voxel_map.cells().tolist()), voxel_map.rows.log_mass.tolist(), strict=True))


def brute_evidence(
    point: np.ndarray, cameras: Cameras, depth: np.ndarray, confidence: np.ndarray, margin: float, slack: float
) -> float:
    """One point, view by view, pixel by pixel."""
    total, middle = 0.0, float(torch.tensor(confidence[depth > 0]).median())
    for view in range(len(depth)):
        camera, matrix = cameras.camera_from_world[view].double().numpy(), cameras.intrinsics[view].double().numpy()
        x, y, z = camera[:3, :3] @ point + camera[:3, 3]
        if z <= 0:
            continue
        u, v = int(np.floor(matrix[0, 0] * x / z + matrix[0, 2])), int(np.floor(matrix[1, 1] * y / z + matrix[1, 2]))
        if not (0 <= u < depth.shape[2] and 0 <= v < depth.shape[1]):
            continue
        around = np.s_[view, max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2]
        if (depth[around] <= 0).any():
            continue
        trust = min(1.0, float(confidence[around].min()) / middle)
        if z < depth[around].min() * (1 - margin) - slack:
            total += trust
        elif z < depth[around].max() * (1 + margin) + slack:
            total -= trust
    return total


def test_evidence_equals_a_loop_over_views_and_pixels() -> None:
    rng = np.random.default_rng(0)
    cameras = row_of_cameras(4)
    turn = torch.linalg.qr(torch.eye(3) + 0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    turn = turn * turn.diagonal().sign()
    cameras = replace(cameras, camera_from_world=rigid(turn, torch.zeros(3)) @ cameras.camera_from_world)
    depth = rng.uniform(1, 4, (4, 8, 8)).repeat(8, 1).repeat(8, 2).astype(np.float32)
    depth[:, 10:13, 20:40] = 0
    confidence = rng.uniform(0.1, 3, depth.shape).astype(np.float32)
    points = rng.uniform([-2, -2, -1], [2, 2, 5], (400, 3)).astype(np.float32)
    surfaces = ObservedSurfaces.of(cameras, torch.tensor(depth), torch.tensor(confidence))
    found = surfaces.evidence(torch.tensor(points), 0.1, 0.05)
    expected = [brute_evidence(point.astype(np.float64), cameras, depth, confidence, 0.1, 0.05) for point in points]
    assert (np.array(expected) > 0).sum() > 20
    assert (np.array(expected) < 0).sum() > 20
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_large_images_are_pooled_towards_caution() -> None:
    """A thin bar in one of sixteen pixels still shields what is seen beside it."""
    cameras = row_of_cameras(1, focal=480)
    cameras.intrinsics[:, :2, 2] = 256
    depth = torch.full((1, 512, 512), 3.0)
    depth[0, :, 201] = 1.0
    surfaces = ObservedSurfaces.of(cameras, depth, torch.ones_like(depth))
    assert surfaces.nearest.shape == (1, 128, 128)
    spots = torch.tensor([200.5, 196.5, 230.5])
    points = torch.stack([(spots - 256) / 480, torch.zeros(3), torch.ones(3)], dim=1)
    assert surfaces.evidence(points, 0.1, 0.05).tolist() == [-1, -1, 1]


def test_only_what_lies_clearly_in_front_fades() -> None:
    """A wall at 3 m, seen by five views: what is before, at, behind and beside it."""
    x = torch.arange(-5, 6) * 0.05
    spots = {
        "before": (0.0, 1.5),
        "near": (0.0, 2.8),
        "at": (0.0, 3.0),
        "behind": (0.0, 4.0),
        "beside": (9.0, 1.5),
        "back": (0.0, -1.5),
    }
    points = torch.cat([torch.stack([x + dx, x * 0, x * 0 + z], dim=1) for dx, z in spots.values()])
    voxel_map = mapped(points, times=3)
    before = state(voxel_map)
    depth = torch.full((5, SIZE, SIZE), 3.0)
    revision = voxel_map.revision
    assert voxel_map.fade(row_of_cameras(5), depth, torch.ones_like(depth)) == len(x)
    assert voxel_map.revision > revision
    after = state(voxel_map)
    assert {cell for cell in before if cell not in after} == {(int(k), 0, 30) for k in range(-5, 6)}
    assert all(after[cell] == before[cell] for cell in after)


def test_heavy_voxels_take_more_views_and_light_ones_two() -> None:
    spot = torch.tensor([[0.0, 0, 1.5]])
    depth = torch.full((2, SIZE, SIZE), 3.0)
    rounds = {}
    for times in (1, 30):
        voxel_map = mapped(spot, times)
        rounds[times] = 0
        while len(voxel_map):
            mass = voxel_map.rows.log_mass.clone()
            voxel_map.fade(row_of_cameras(2), depth, torch.ones_like(depth))
            rounds[times] += 1
            if len(voxel_map):
                torch.testing.assert_close(voxel_map.rows.log_mass, mass - 2)
    assert rounds == {1: 1, 30: 2}  # log 30 = 3.4 nats, two per round


def test_one_view_alone_proves_nothing_nor_do_doubtful_ones() -> None:
    voxel_map = mapped(torch.tensor([[0.0, 0, 1.5]]))
    depth = torch.full((4, SIZE, SIZE), 3.0)
    depth[1:] = 1.0
    assert voxel_map.fade(row_of_cameras(4), depth, torch.ones_like(depth)) == 0
    confidence = torch.ones_like(depth)
    confidence[:, 20:44, 20:44] = 0.3  # where the voxel is seen
    assert voxel_map.fade(row_of_cameras(4), torch.full_like(depth, 3.0), confidence) == 0
    assert voxel_map.fade(row_of_cameras(4), torch.zeros_like(depth), confidence) == 0
    assert voxel_map.fade(row_of_cameras(4), torch.full_like(depth, torch.nan), confidence) == 0
    assert state(voxel_map) == {(0, 0, 30): 0.0}


def test_a_thin_pole_that_half_of_the_views_miss_stays() -> None:
    pole = torch.stack([torch.zeros(20), torch.linspace(-0.4, 0.4, 20), torch.full((20,), 1.5)], dim=1)
    voxel_map = mapped(pole)
    cameras = row_of_cameras(8)
    depth = torch.full((8, SIZE, SIZE), 3.0)
    for view in range(0, 8, 2):
        middle = int(60 * (0 - 0.05 * view) / 1.5 + SIZE / 2)
        depth[view, :, middle] = 1.5
    count = len(voxel_map)
    for _ in range(10):
        voxel_map.fade(cameras, depth, torch.ones_like(depth))
    assert len(voxel_map) == count
    voxel_map.fade(cameras, torch.full_like(depth, 3.0), torch.ones_like(depth))
    assert len(voxel_map) == 0


def tour(room: Room, seed: int, views: int = 40) -> Views:
    poses = make_trajectory(room, seed, views, step=0.25)
    return render(room, poses, pinhole(SIZE, SIZE, 90.0).expand(views, 3, 3), SIZE, SIZE)


def part(views: Views, which: slice) -> tuple[Cameras, torch.Tensor]:
    cameras = Cameras(views.cameras.camera_from_world[which], views.cameras.intrinsics[which])
    return cameras, views.depth[which]


def drive(voxel_map: VoxelMap, views: Views, first: int, noise: float = 0.0) -> None:
    """Windows of eight views: faded, then integrated."""
    generator = torch.Generator().manual_seed(first)
    for start in range(0, len(views.depth), 8):
        cameras, depth = part(views, slice(start, start + 8))
        if noise:
            depth = depth * (1 + noise * torch.randn(depth.shape, generator=generator))
            wild = torch.rand(depth.shape, generator=generator) < 0.05
            depth = torch.where(wild, depth * (0.3 + 2 * torch.rand(depth.shape, generator=generator)), depth)
        voxel_map.fade(cameras, depth, torch.ones_like(depth))
        points = unproject(depth, cameras.intrinsics).flatten(1, 2)
        world = transform_points(invert_rigid(cameras.camera_from_world), points).flatten(0, 1)
        voxel_map.integrate(gaussians(world), first + start // 8)


def without(room: Room, instance: int) -> Room:
    """The room with a thing carried away, out of sight behind the walls."""
    table, away = room.primitives, torch.tensor([50.0, 0, 0])
    moved = table.instance == instance
    matrix = table.local_from_world.clone()
    matrix[moved, :, 3] -= matrix[moved, :, :3] @ away
    corners = torch.where(moved[:, None, None], table.corners + away, table.corners)
    return replace(room, primitives=replace(table, local_from_world=matrix, corners=corners))


@pytest.fixture(scope="module")
def chair() -> tuple[Room, int, Views]:
    """A room, a thing in it that stands free and is well seen, and a tour."""
    for seed in range(40):
        room = make_room(seed)
        for instance in room.instances:
            if instance.name == "chair":
                views = tour(room, 1)
                if int((views.instances == instance.id).flatten(1).sum(1).gt(60).sum()) >= 15:
                    return room, instance.id, views
    raise AssertionError("no room has such a chair")


def cells_of(points: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(cell) for cell in torch.round(points / CONFIG.voxel_size).int().tolist()}


def looks_through(views: Views, points: torch.Tensor) -> torch.Tensor:
    """How many views have a surface well behind each point, at the very pixel where it would be."""
    count = torch.zeros(len(points))
    for camera, intrinsics, depth in zip(*vars(views.cameras).values(), views.depth, strict=True):
        x, y, z = (points @ camera[:3, :3].T + camera[:3, 3]).unbind(1)
        u, v = (
            (intrinsics[0, 0] * x / z + SIZE / 2).floor().long(),
            (intrinsics[1, 1] * y / z + SIZE / 2).floor().long(),
        )
        inside = (z > 0) & (u >= 0) & (u < SIZE) & (v >= 0) & (v < SIZE)
        count += inside & (z < 0.85 * depth[v.clamp(0, SIZE - 1), u.clamp(0, SIZE - 1)] - 0.1)
    return count


@pytest.mark.parametrize(("noise", "left"), [(0.0, 0.05), (0.03, 0.15)])
def test_a_chair_that_is_carried_away_disappears_and_the_rest_stays(
    chair: tuple[Room, int, Views], noise: float, left: float
) -> None:
    """Two tours along one way. What has to go, and what has to stay, the ray tracer says."""
    room, instance, first = chair
    second = tour(without(room, instance), 1)
    assert not (second.instances == instance).any()
    voxel_map = VoxelMap(CONFIG, 2)
    drive(voxel_map, first, 0, noise)
    before = cells_of(voxel_map.cells() * CONFIG.voxel_size)
    on_chair, standing = (
        cells_of(points_of(first)[(first.instances == instance).flatten()]),
        cells_of(points_of(second)),
    )
    gone = sorted((on_chair & before) - standing)
    through = looks_through(second, torch.tensor(gone) * CONFIG.voxel_size)
    must_go = {cell for cell, views in zip(gone, through.tolist(), strict=True) if views >= 5}
    assert len(must_go) > 200
    drive(voxel_map, second, 10, noise)
    after = cells_of(voxel_map.cells() * CONFIG.voxel_size)
    assert len(must_go & after) < left * len(must_go)
    must_stay = (before & standing) - on_chair
    assert len(must_stay) > 2000
    assert len(must_stay & after) > 0.999 * len(must_stay)


def test_a_room_that_stays_as_it_is_keeps_its_voxels(chair: tuple[Room, int, Views]) -> None:
    """Without noise no voxel on a surface goes, however often it is seen."""
    _, _, views = chair
    voxel_map = VoxelMap(CONFIG, 2)
    drive(voxel_map, views, 0)
    before = state(voxel_map)
    for start in range(0, 40, 8):
        cameras, depth = part(views, slice(start, start + 8))
        voxel_map.fade(cameras, depth, torch.ones_like(depth))
    lost = before.keys() - state(voxel_map).keys()
    assert len(lost) < 0.003 * len(before)


def test_an_empty_map_and_a_camera_that_sees_nothing() -> None:
    depth = torch.full((2, SIZE, SIZE), 3.0)
    assert VoxelMap(CONFIG, 2).fade(row_of_cameras(2), depth, torch.ones_like(depth)) == 0
