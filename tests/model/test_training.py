"""Training data keeps the world's geometry, and the trainer learns, saves and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ff3r_model.network.config import DPTConfig, FF3RConfig
from ff3r_model.network.model import FF3R
from ff3r_model.synthetic import CLASSES, COLORS
from ff3r_model.training.data import RoomPool, render_shard, write_shards
from ff3r_model.training.losses import LossWeights, patch_matches
from ff3r_model.training.objective import Objective, TextTargets
from ff3r_model.training.train import TrainConfig, Trainer
from ff3r_model.training.views import Views, make_views

ROOMS, VIEWS, SIZE = 2, 4, (84, 112)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 100_000, 1, ROOMS, VIEWS)
    return folder


def reprojected_colors_agree(views: Views) -> float:
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
    views = make_views(render_shard(7, 1, VIEWS, SIZE), mirror=mirror)
    assert reprojected_colors_agree(views) < 0.04
    moved = replace(views, camera_from_world=views.camera_from_world.flip(1))
    assert reprojected_colors_agree(moved) > 0.08, "the check notices wrong poses"


def test_the_first_camera_is_the_world_and_points_lie_one_unit_away_on_average() -> None:
    arrays = render_shard(8, 1, VIEWS, SIZE)
    views = make_views(arrays)
    assert torch.allclose(views.camera_from_world[0, 0], torch.eye(4), atol=1e-5)
    depth = arrays["depth"].astype(np.float64)
    assert np.allclose(views.depth[0].double().numpy() * float(views.scale[0]), depth[0], rtol=1e-3)
    world = arrays["world_from_camera"][0]
    f, (h, w) = arrays["intrinsics"][0, 0, 0], SIZE
    v, u = np.mgrid[0:h, 0:w] + 0.5
    rays = np.stack([(u - w / 2) / f, (v - h / 2) / f, np.ones_like(u)], -1)
    points = np.einsum("vij,vhwj->vhwi", world[:, :3, :3], rays * depth[0][..., None]) + world[:, None, None, :3, 3]
    distance = np.linalg.norm(points - world[0, :3, 3], axis=-1).mean()
    assert float(views.scale[0]) == pytest.approx(distance, rel=1e-3)


def test_shards_are_functions_of_their_seeds_and_kept_once_written(shards: Path) -> None:
    path = next(shards.glob("shard_*.npz"))
    stamp = path.stat().st_mtime_ns
    write_shards(shards, 100_000, 1, ROOMS, VIEWS)
    assert path.stat().st_mtime_ns == stamp and not list(shards.glob(".*"))
    with np.load(path) as saved:
        again = render_shard(100_000, ROOMS, VIEWS, saved["images"].shape[2:4])
        assert all(np.array_equal(saved[name], again[name]) for name in again)


def small_trainer(shards: Path, out: Path, minutes: float) -> Trainer:
    torch.manual_seed(0)
    nano = FF3RConfig.nano()
    thin = DPTConfig(channels=(16, 16, 16, 16), features=16, hidden=(8, 8))
    network = FF3R(replace(nano, depth=thin, gaussian=thin))
    classes, phrases = torch.eye(64)[: len(CLASSES)], torch.randn(len(CLASSES) * len(COLORS), 64)
    targets = TextTargets(classes, torch.nn.functional.normalize(phrases, dim=-1))
    objective = Objective(LossWeights(), targets, network.config.width, dense_views=2)
    config = TrainConfig(minutes=minutes, total_views=4, views=(2,), geometry_share=0.3, bfloat16=False, warmup=0.1)
    out.mkdir(exist_ok=True)
    return Trainer(network, objective, RoomPool(shards, 0), config, out)


def test_loss_falls_and_a_resumed_run_has_the_same_state(shards: Path, tmp_path: Path) -> None:
    trainer = small_trainer(shards, tmp_path, minutes=0.3)
    assert trainer.pool.refresh() == ROOMS
    batch = next(trainer.pool.windows(4, (2,)))
    torch.manual_seed(1)
    before = float(trainer.objective(trainer.network, batch)["total"].detach())
    trainer.run()
    torch.manual_seed(1)
    after = float(trainer.objective(trainer.network, batch)["total"].detach())
    assert after < 0.8 * before
    resumed = small_trainer(shards, tmp_path, minutes=0.1)
    resumed.resume()
    assert resumed.step == trainer.step and resumed.elapsed == trainer.elapsed
    for ours, theirs in zip(trainer.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert (tmp_path / "average.pt").exists() and not list(tmp_path.glob(".*.pt"))


def test_a_loss_that_is_no_number_stops_the_run(shards: Path, tmp_path: Path) -> None:
    trainer = small_trainer(shards, tmp_path, minutes=0.1)
    with pytest.raises(FileNotFoundError, match="no shards"):
        small_trainer(tmp_path, tmp_path, minutes=0.1).run()
    with torch.no_grad():
        next(trainer.network.camera_head.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0"):
        trainer.run()
