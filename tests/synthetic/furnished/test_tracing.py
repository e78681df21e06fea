"""Meshes, textures and rays, against brute force in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ff3r_model.synthetic.furnished.camera_response import CameraResponse
from ff3r_model.synthetic.furnished.furnish import Placed, facing
from ff3r_model.synthetic.furnished.library import Library
from ff3r_model.synthetic.furnished.meshes import Material, Mesh, MeshCache
from ff3r_model.synthetic.furnished.models import load_catalogue
from ff3r_model.synthetic.furnished.scene import SceneBuilder, quad, sample
from ff3r_model.synthetic.furnished.tracer import Lamp, Light, Tracer

embreex = pytest.importorskip("embreex", reason="rays are traced by embree")
NIGHT = Light((), np.ones(3, np.float32), np.array([0, 0, 1], np.float32), np.zeros(3, np.float32))
WHITE = Material((1.0, 1.0, 1.0), None)


def triangles(corners: np.ndarray, material: Material = WHITE) -> Mesh:
    count = len(corners)
    none = np.zeros((count, 3, 3), np.int8)
    uv = np.zeros((count, 3, 2), np.float32)
    return Mesh(corners.astype(np.float32), none, uv, np.zeros(count, np.int32), (material,))


def tracer(*meshes: Mesh, light: Light = NIGHT) -> Tracer:
    builder = SceneBuilder()
    for number, mesh in enumerate(meshes):
        builder.add(mesh, number, number)
    return Tracer(builder.build(), light)


def brute_force(corners: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Distance of every ray to the nearest of all triangles (Möller and Trumbore), inf for none."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = np.cross(direction[:, None], second[None])
    inverse = 1 / (p * first).sum(-1)
    s = origin[:, None] - corners[None, :, 0]
    u, q = (s * p).sum(-1) * inverse, np.cross(s, first[None])
    v, t = (direction[:, None] * q).sum(-1) * inverse, (q * second).sum(-1) * inverse
    return np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0), t, np.inf).min(1)


def test_first_hits_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(-1, 1, (200, 1, 3)) + rng.uniform(-0.4, 0.4, (200, 3, 3))
    origin, direction = rng.uniform(-2, 2, (500, 3)), rng.normal(size=(500, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    hits = tracer(triangles(corners)).hits(origin.astype(np.float32), direction.astype(np.float32))
    truth = brute_force(corners.astype(np.float32).astype(np.float64), origin, direction)
    agree = hits.found == np.isfinite(truth)
    assert agree.mean() > 0.995  # but for rays along an edge
    assert np.abs(hits.distance - truth)[agree & hits.found].max() < 1e-4


def test_textures_are_sampled_as_torch_does() -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    mesh = quad(np.zeros(3), np.array([1, 0, 0]), np.array([0, 1, 0]), 1.0, Material((0.5, 1.0, 0.8), picture))
    builder = SceneBuilder()
    builder.add(triangles(np.zeros((1, 3, 3))), 0, 0)  # another picture comes first in the atlas
    builder.add(mesh, 0, 1)
    inside = rng.uniform(0.1, 0.9, (100, 2))
    found = sample(builder.build(), np.ones(100, np.int64), inside + rng.integers(-3, 4, (100, 2)))
    grid = torch.from_numpy(np.stack([2 * inside[:, 0] - 1, 1 - 2 * inside[:, 1]], axis=-1))[None, None]
    whole = torch.from_numpy(picture / 255.0).permute(2, 0, 1)[None]
    expected = torch.nn.functional.grid_sample(whole, grid, align_corners=False)[0, :, 0].T.numpy()
    np.testing.assert_allclose(found, expected * [0.5, 1.0, 0.8], atol=1e-5)


def test_lamps_throw_shadows() -> None:
    floor = quad(np.array([-5, -5, 0]), np.array([10, 0, 0]), np.array([0, 10, 0]), 1.0, WHITE)
    board = quad(np.array([-1, -1, 1]), np.array([2, 0, 0]), np.array([0, 2, 0]), 1.0, WHITE)
    light = Light((Lamp(np.array([0.0, 0, 2]), np.ones(3)),), np.zeros(3, np.float32), NIGHT.to_sun, NIGHT.sun)
    scene = tracer(floor, board, light=light)
    # The board's shadow reaches twice as far as the board, from the lamp twice as high
    origins = np.array([[1.5, 0, 0.5], [2.5, 0, 0.5]], np.float32)
    down = np.array([[0, 0, -1]] * 2, np.float32)
    dark, bright = scene.shade(origins, down, scene.hits(origins, down))[:, 0]
    expected = [3 / (1 + d * d) * 2 / d for d in (np.hypot(1.5, 2), np.hypot(2.5, 2))]
    assert bright == pytest.approx(expected[1], rel=1e-3) and dark < 0.2 * expected[0]


def test_models_stand_upright_with_their_front_forward(library: Library, world: Path) -> None:
    model = next(model for model in load_catalogue(world) if model.name == "Sofa")
    mesh = MeshCache(world / "meshes").get(model)
    assert mesh is not None
    np.testing.assert_allclose(mesh.corners.reshape(-1, 3).min(0), [-0.5, -0.5, 0], atol=1e-6)
    np.testing.assert_allclose(mesh.corners.reshape(-1, 3).max(0), [0.5, 0.5, 1], atol=1e-6)
    red = next(k for k, each in enumerate(mesh.materials) if each.color[0] > 0.8)
    assert (mesh.corners[mesh.material == red][..., 1] == -0.5).all()
    # At the wall of low x, its front looks along +x
    placed = Placed(model, mesh, np.array(model.size), np.array([1.0, 2.0, 0.0]), facing(np.array([1.0, 0.0])))
    front = placed.placed_mesh().corners[mesh.material == red]
    np.testing.assert_allclose(front[..., 0], 1.0 + 0.45, atol=1e-6)
    np.testing.assert_allclose(placed.footprint, [0.55, 1.0, 1.45, 3.0], atol=1e-6)


def test_a_mesh_read_again_is_the_same(library: Library, world: Path) -> None:
    model = load_catalogue(world)[0]
    first, again = (MeshCache(world / "meshes").get(model) for _ in range(2))
    assert first is not None and again is not None
    np.testing.assert_array_equal(first.corners, again.corners)
    np.testing.assert_allclose(*([each.color for each in mesh.materials] for mesh in (first, again)))


def test_a_broken_model_is_left_out_with_a_warning(
    library: Library, world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_catalogue(world)[0]
    model.path.write_text("no mesh")
    assert MeshCache(world / "meshes").get(model) is None
    assert "Boxes#Table is left out" in caplog.text


def test_a_perfect_camera_changes_nothing_and_a_bad_one_does() -> None:
    light = np.linspace(0.05, 0.9, 32 * 48 * 3).reshape(32, 48, 3)
    perfect = CameraResponse(np.ones(3), 2.2, 0.0, 0.0, 0.0, 100, 0.0)
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(perfect.record(light, rng), 255 * light ** (1 / 2.2), atol=0.51)
    dim = CameraResponse(np.array([1.0, 0.5, 1.0]), 2.2, 0.4, 0.0, 0.0, 100, 0.0).record(np.full((33, 33, 3), 0.5), rng)
    linear = (dim / 255.0) ** 2.2
    assert linear[16, 16, 0] == pytest.approx(0.5, abs=0.01) and linear[16, 16, 1] == pytest.approx(0.25, abs=0.01)
    assert linear[0, 0, 0] == pytest.approx(0.5 * 0.6, abs=0.01)
    noisy = CameraResponse(np.ones(3), 2.2, 0.0, 0.03, 0.0, 100, 0.0).record(np.full((64, 64, 3), 0.2), rng)
    assert ((noisy / 255.0) ** 2.2).std() == pytest.approx(0.03, rel=0.1)
