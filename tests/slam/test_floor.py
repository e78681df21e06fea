"""A window over a known floor: the correction restores size, tilt and height, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import (
    apply_similarity,
    invert_rigid,
    quaternion_to_matrix,
    transform_points,
    unproject,
)
from ff3r_model.core.types import Cameras, Gaussians, Prediction, Similarity
from ff3r_model.slam.reference.floor import Floor, floor_below, metric_scale_from_camera_height, stand_on

HEIGHT, SIZE = 1.2, (42, 56)
FLOOR = Floor(torch.tensor([0.0, 0.0, 1.0]), -HEIGHT)
"""Of a map that begins at a camera HEIGHT above the floor."""
TRUE = Similarity(rotation=torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]))


def over_the_floor() -> Prediction:
    """Three level cameras side by side over nothing but floor, 20° below the horizon upwards cut off."""
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.tensor([0.0, 0.2, 0.5])
    intrinsics = torch.tensor([[40.0, 0, 28], [0, 40, -10], [0, 0, 1]]).repeat(3, 1, 1)
    v = torch.arange(SIZE[0])[:, None] + 0.5 + 10
    depth = (HEIGHT * 40 / v).expand(3, *SIZE).contiguous()
    points = transform_points(poses, unproject(depth, intrinsics).flatten(1, 2)).flatten(0, 1)
    n = len(points)
    gaussians = Gaussians(
        points, torch.ones(n, 3), torch.tensor([1.0, 0, 0, 0]).repeat(n, 1), torch.zeros(n, 1, 3), torch.ones(n),
        torch.ones(n), torch.ones(n, 4),
    )  # fmt: skip
    return Prediction(Cameras(invert_rigid(poses), intrinsics), depth, torch.ones_like(depth), gaussians)


def test_a_true_placement_stays() -> None:
    prediction = over_the_floor()
    seen = floor_below(prediction, TRUE, HEIGHT)
    assert seen is not None and seen.scale == pytest.approx(1, abs=0.01)
    corrected = stand_on(FLOOR, seen, HEIGHT, prediction, TRUE, weight=1.0)
    points = prediction.gaussians.means
    assert torch.allclose(apply_similarity(corrected, points), apply_similarity(TRUE, points), atol=0.03)


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_a_tilted_shrunk_sunk_window_comes_back_by_its_weight(weight: float) -> None:
    prediction = over_the_floor()
    half = math.radians(6) / 2
    tilt = quaternion_to_matrix(torch.tensor([math.cos(half), 0.0, math.sin(half), 0.0]))
    wrong = Similarity(0.8, tilt @ TRUE.rotation, torch.tensor([0.3, -0.2, -0.15]))
    seen = floor_below(prediction, wrong, HEIGHT)
    assert seen is not None and seen.scale == pytest.approx(1 / 0.8, rel=0.02)
    corrected = stand_on(FLOOR, seen, HEIGHT, prediction, wrong, weight)
    assert corrected.scale == pytest.approx(0.8 ** (1 - weight), rel=0.02)
    up = corrected.rotation @ TRUE.rotation.T @ torch.tensor([0.0, 0, 1])
    assert math.degrees(math.acos(float(up[2].clamp(max=1)))) == pytest.approx(6 * (1 - weight), abs=0.6)
    centres = invert_rigid(prediction.cameras.camera_from_world)[:, :3, 3]
    before, after = (apply_similarity(placed, centres).mean(0) for placed in (wrong, corrected))
    assert float(after[2]) == pytest.approx(float(before[2]) * (1 - weight), abs=0.01)
    assert torch.allclose(after[:2], before[:2], atol=1e-4), "where it is on the floor does not change"


def test_no_floor_no_estimate() -> None:
    prediction = over_the_floor()
    upside_down = Similarity(rotation=torch.diag(torch.tensor([1.0, -1, -1])) @ TRUE.rotation)
    assert floor_below(prediction, upside_down, HEIGHT) is None


def floor_scene(height: float, tilt: float = 0.0, noise: float = 0.03, table: bool = True) -> torch.Tensor:
    """Floor, a wall and a table around a camera `height` above the floor, which looks down by `tilt` degrees."""
    generator = torch.Generator().manual_seed(0)

    def patch(count: int, low: list[float], high: list[float]) -> torch.Tensor:
        low_corner, high_corner = torch.tensor(low), torch.tensor(high)
        return low_corner + torch.rand(count, 3, generator=generator) * (high_corner - low_corner)

    parts = [patch(2000, [0.5, -2, -height], [5, 2, -height]), patch(2000, [5, -2, -height], [5, 2, 1.5])]
    if table:
        parts.append(patch(1200, [2, -1, -0.3 * height], [3, 1, -0.3 * height]))
    points = torch.cat(parts)
    points = points * (1 + noise * torch.randn(len(points), 1, generator=generator))
    return points @ torch.tensor(Rotation.from_euler("y", -tilt, degrees=True).as_matrix(), dtype=torch.float32).T


@pytest.mark.parametrize("tilt", [0.0, 15.0, -10.0])
@pytest.mark.parametrize("table", [False, True])
def test_scale_from_the_floor(tilt: float, table: bool) -> None:
    estimate = metric_scale_from_camera_height(floor_scene(0.8, tilt, table=table), 1.2)
    assert estimate is not None
    assert estimate.scale == pytest.approx(1.5, rel=0.03)
    assert 0.3 < estimate.confidence <= 1
    up = torch.tensor(Rotation.from_euler("y", -tilt, degrees=True).apply([0, 0, 1]), dtype=torch.float32)
    assert float(estimate.normal @ up) > math.cos(math.radians(2))


def test_scale_of_clean_points_is_exact_and_repeatable() -> None:
    points = floor_scene(0.8, noise=0.0, table=False)
    first, second = (metric_scale_from_camera_height(points, 2.0) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.scale == second.scale
    assert first.scale == pytest.approx(2.5, rel=0.01)


def test_no_scale_without_a_floor(caplog: pytest.LogCaptureFixture) -> None:
    above = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    assert metric_scale_from_camera_height(above, 1.0) is None
    assert "below the camera" in caplog.text
    generator = torch.Generator().manual_seed(1)
    fog = torch.nn.functional.normalize(torch.randn(3000, 3, generator=generator), dim=1)
    fog = fog * (1 + 9 * torch.rand(3000, 1, generator=generator))
    assert metric_scale_from_camera_height(fog, 1.0) is None
    with pytest.raises(ValueError, match="positive"):
        metric_scale_from_camera_height(above, 0.0)
