"""Training data keeps the world's geometry, and rooms give the same windows for the same step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ff3r_model.training.datasets.base import DataError, Share
from ff3r_model.training.datasets.room_shards import render_shard, write_shards
from ff3r_model.training.datasets.room_views import RoomWindow, make_window
from ff3r_model.training.datasets.room_windows import ARRAYS, RoomConfig, RoomWindows
from ff3r_model.training.objectives.patch_matching import patch_matches

ROOMS, VIEWS, SIZE = 2, 4, (84, 112)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 100_000, 1, ROOMS, VIEWS)
    return folder


def reprojected_colors_agree(views: RoomWindow) -> float:
    """Median absolute colour difference of patch centres and what other views show there."""
    matches, visible = patch_matches(views, 14)
    size = torch.tensor([views.depth.shape[-1], views.depth.shape[-2]])
    grid = matches[0] * 14 / size * 2 - 1
    centres = views.images[0][:, :, 7::14, 7::14].flatten(2).transpose(1, 2)
    count = views.images.shape[1]
    seen = torch.stack(
        [
            torch.nn.functional.grid_sample(views.images[0], grid[v].unsqueeze(2), align_corners=False)[..., 0].mT
            for v in range(count)
        ]
    )
    difference = (seen - centres[:, None]).abs().mean(-1)
    others = visible[0] & ~torch.eye(count, dtype=torch.bool)[:, :, None]
    assert others.sum() > 20
    return float(difference[others].median())


@pytest.mark.parametrize("mirror", [False, True])
def test_views_reproject_onto_each_other_also_when_mirrored(mirror: bool) -> None:
    views = make_window(render_shard(7, 1, VIEWS, SIZE), mirror=mirror)
    assert reprojected_colors_agree(views) < 0.04
    moved = replace(views, camera_from_world=views.camera_from_world.flip(1))
    assert reprojected_colors_agree(moved) > 0.08, "the check notices wrong poses"


def test_the_first_camera_is_the_world_and_points_lie_one_unit_away_on_average() -> None:
    arrays = render_shard(8, 1, VIEWS, SIZE)
    views = make_window(arrays)
    assert torch.allclose(views.camera_from_world[0, 0], torch.eye(4), atol=1e-5)
    depth = arrays["depth"].astype(np.float64)
    assert np.allclose(views.depth[0].double().numpy() * float(views.metres[0]), depth[0], rtol=1e-3)
    world = arrays["world_from_camera"][0]
    f, (h, w) = arrays["intrinsics"][0, 0, 0], SIZE
    v, u = np.mgrid[0:h, 0:w] + 0.5
    rays = np.stack([(u - w / 2) / f, (v - h / 2) / f, np.ones_like(u)], -1)
    points = np.einsum("vij,vhwj->vhwi", world[:, :3, :3], rays * depth[0][..., None]) + world[:, None, None, :3, 3]
    distance = np.linalg.norm(points - world[0, :3, 3], axis=-1).mean()
    assert float(views.metres[0]) == pytest.approx(distance, rel=1e-3)


def test_shards_are_functions_of_their_seeds_and_kept_once_written(shards: Path) -> None:
    path = next(shards.glob("shard_*.npz"))
    stamp = path.stat().st_mtime_ns
    write_shards(shards, 100_000, 1, ROOMS, VIEWS)
    assert path.stat().st_mtime_ns == stamp and not list(shards.glob(".*"))
    with np.load(path) as saved:
        again = render_shard(100_000, ROOMS, VIEWS, saved["images"].shape[2:4])
        assert all(np.array_equal(saved[name], again[name]) for name in again)


def test_a_step_has_the_same_windows_every_time_and_processes_share_them(shards: Path) -> None:
    rooms = RoomWindows(shards, 3, RoomConfig(total_views=4, views=(2,)))
    one, again, other = rooms.batch(5, Share()), rooms.batch(5, Share()), rooms.batch(6, Share())
    assert one.ids == again.ids and torch.equal(one.images, again.images)
    assert one.ids != other.ids or not torch.equal(one.images, other.images)
    assert one.images.shape == (2, 2, 3, 112, 112) and len(one.ids) == 4
    assert one.truth is not None and one.truth.depth.shape == (2, 2, 112, 112)
    halves = [RoomWindows(shards, 3, RoomConfig(total_views=2, views=(2,))).batch(5, Share(rank, 2)) for rank in (0, 1)]
    assert sum((half.ids for half in halves), ()) == one.ids
    assert torch.equal(torch.cat([half.images for half in halves]), one.images)
    assert all(half.truth is not None for half in halves)
    depths = [half.truth.depth for half in halves if half.truth is not None]
    assert torch.equal(torch.cat(depths), one.truth.depth)


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path} holds no shard.*training.datasets.room_shards"):
        RoomWindows(tmp_path, 0)


def test_damaged_shards_are_left_out_and_small_ones_give_smaller_windows(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = next(shards.glob("shard_*.npz")).read_bytes()
    (tmp_path / "shard_1.npz").write_bytes(content)
    (tmp_path / "shard_2.npz").write_bytes(content[:1000])
    np.savez(tmp_path / "shard_3.npz", images=np.zeros(3))
    np.savez(tmp_path / "shard_4.npz", **{name: np.zeros(3) for name in ARRAYS})
    rooms = RoomWindows(tmp_path, 0, RoomConfig(total_views=2, views=(16,)))
    assert rooms.refresh() == ROOMS and rooms.batch(0, Share()).images.shape[:2] == (1, VIEWS)
    assert {f"shard_{number}.npz" in caplog.text for number in (2, 3, 4)} == {True}
    (tmp_path / "shard_1.npz").unlink()
    with pytest.raises(DataError, match=r"holds no shard.*that can be read"):
        RoomWindows(tmp_path, 0)
