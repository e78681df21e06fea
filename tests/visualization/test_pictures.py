"""Pictures show things where they are: checked pixel by pixel on maps small enough to know by heart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ff3r_model.visualization.pictures import PATH_COLOR, below_ceiling, faded, heat_colors, save_picture, top_down

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def find(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Mean (row, column) of a colour."""
    rows, columns = np.nonzero((picture == color).all(axis=-1))
    assert len(rows), f"{color} is not in the picture"
    return np.array([rows.mean(), columns.mean()])


def patch(x: float, y: float, z: float, voxel: float = 0.1) -> np.ndarray:
    """5 × 5 voxels around a place."""
    grid = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), axis=-1).reshape(-1, 2) * voxel
    return np.concatenate([grid + np.array([x, y]), np.full((25, 1), z)], axis=1)


def test_forward_is_up_and_left_is_left() -> None:
    points = np.concatenate([patch(3, 0, 0), patch(0, 2, 0), patch(0, -2, 0)])
    colors = np.repeat(np.array([RED, GREEN, BLUE], dtype=np.uint8), 25, axis=0)
    picture = top_down(points, colors, np.zeros((0, 3)), voxel_size=0.1, metric=True)
    forward, left, right = (find(picture, color) for color in (RED, GREEN, BLUE))
    assert forward[0] < left[0] == right[0] and left[1] < forward[1] < right[1]
    # 3 m and 2 m in the same pixels per metre, to the pixel that rounding may cost
    per_metre = (right[1] - left[1]) / 4
    assert (left[0] - forward[0]) / per_metre == pytest.approx(3, abs=0.1)


def test_higher_hides_lower_but_the_ceiling_hides_nothing() -> None:
    path = np.array([[-1.0, 0, 0], [1.0, 0.5, 0]])
    floor, table, ceiling = patch(0, 0, -1.2), patch(0, 0, -0.5), patch(0, 0, 1.3)
    points = np.concatenate([ceiling, table, floor])
    colors = np.repeat(np.array([RED, GREEN, BLUE], dtype=np.uint8), 25, axis=0)
    assert below_ceiling(points, path).tolist() == [False] * 25 + [True] * 50
    picture = top_down(points, colors, path, voxel_size=0.1, metric=True)
    assert (picture == GREEN).all(-1).any()
    assert not (picture == RED).all(-1).any() and not (picture == BLUE).all(-1).any()
    assert (picture == PATH_COLOR).all(-1).any()


def test_scale_bar_is_one_metre_long() -> None:
    points = np.concatenate([patch(2, 2, 0), patch(-2, -2, 0)])
    colors = np.full((50, 3), RED, dtype=np.uint8)
    metric = top_down(points, colors, np.zeros((0, 3)), voxel_size=0.1, metric=True)
    bar = (metric[metric.shape[0] - 18] == (60, 60, 60)).all(-1).sum()
    rows = np.nonzero((metric == RED).all(-1).any(1))[0]
    per_metre = (rows.max() + 1 - rows.min()) / 4.5  # from -2.25 to 2.25
    assert bar == pytest.approx(per_metre, rel=0.05)
    unscaled = top_down(points, colors, np.zeros((0, 3)), voxel_size=0.1, metric=False)
    assert not np.array_equal(metric, unscaled)


def test_empty_map_gives_an_empty_picture() -> None:
    picture = top_down(
        np.zeros((0, 3)), np.zeros((0, 3), dtype=np.uint8), np.zeros((0, 3)), voxel_size=0.1, metric=False, size=200
    )
    assert picture.shape == (200, 200, 3)


def test_stray_points_do_not_shrink_the_map() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-2, 2, (2000, 3)) * [1, 1, 0], [[500.0, 500.0, 0.0]]])
    colors = np.full((2001, 3), RED, dtype=np.uint8)
    picture = top_down(points, colors, np.zeros((0, 3)), voxel_size=0.1, metric=False)
    assert (picture == RED).all(-1).mean() > 0.3


def test_heat_runs_from_threshold_to_best() -> None:
    colors = heat_colors(np.array([0.5, 0.75, 1.0]), 0.5)
    assert colors[0].tolist() == [255, 214, 80] and colors[2].tolist() == [214, 40, 40]
    assert colors[0, 1] > colors[1, 1] > colors[2, 1]
    assert heat_colors(np.zeros(0), 0.5).shape == (0, 3)
    assert np.ptp(faded(np.array([RED, GREEN], dtype=np.uint8)).astype(int), axis=1).tolist() == [0, 0]


def test_saved_picture_reads_back(tmp_path: Path) -> None:
    picture = np.zeros((20, 30, 3), dtype=np.uint8)
    picture[3, 4] = RED
    save_picture(tmp_path / "a.png", picture)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], picture)
    with pytest.raises(OSError, match=r"a\.pdf: pictures are"):
        save_picture(tmp_path / "a.pdf", picture)
    with pytest.raises(OSError):
        save_picture(tmp_path / "nowhere" / "a.png", picture)
