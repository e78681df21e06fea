"""The supervised objective teaches the part that it is told to, and that part learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ff3r_model.network.model import FF3R
from ff3r_model.synthetic import CLASSES, COLORS
from ff3r_model.training.datasets.base import Share
from ff3r_model.training.datasets.batches import TrainingBatch
from ff3r_model.training.datasets.room_shards import write_shards
from ff3r_model.training.datasets.room_windows import RoomConfig, RoomWindows
from ff3r_model.training.objectives.supervised import Objective, Part, SupervisedConfig, TextTargets
from tests.support.training_run import tiny_config

WORDS, GEOMETRY = {"lseg"}, {"aggregator", "camera_head"}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> TrainingBatch:
    folder = tmp_path_factory.mktemp("rooms")
    write_shards(folder, 100_000, 1, 1, 4)
    return RoomWindows(folder, 0, RoomConfig(total_views=3, views=(3,))).batch(0, Share())


def objective(part: Part) -> Objective:
    generator = torch.Generator().manual_seed(1)
    classes, phrases = (torch.randn(n, 8, generator=generator) for n in (len(CLASSES), len(CLASSES) * len(COLORS)))
    targets = TextTargets(*(torch.nn.functional.normalize(x, dim=1) for x in (classes, phrases)))
    config = SupervisedConfig(part=part, matching_blocks=(0, 1), pixels_per_view=64)
    return Objective(config, targets, tiny_config().width)


@pytest.mark.parametrize(("part", "taught"), [("words", WORDS), ("geometry", GEOMETRY)])
def test_one_part_leaves_the_rest_alone(part: Part, taught: set[str], batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    network, teaching = FF3R(tiny_config()), objective(part)
    terms = teaching(network, batch)
    terms["total"].backward()
    touched = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == taught
    weighted = sum(getattr(teaching.weights, name) * term for name, term in terms.items() if name != "total")
    assert torch.allclose(terms["total"], torch.as_tensor(weighted))


def test_all_of_the_network_is_taught_at_once(batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    network, teaching = FF3R(tiny_config()), objective("all")
    teaching(network, batch)["total"].backward()
    touched = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {name.split(".")[0] for name, _ in network.named_parameters()}


@pytest.mark.parametrize("part", ["words", "geometry"])
def test_each_part_learns_a_window_by_heart(part: Part, batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    network, teaching = FF3R(tiny_config()), objective(part)
    optimizer = torch.optim.Adam([*network.parameters(), *teaching.parameters()], 3e-3)
    losses = []
    for _ in range(40):
        terms = teaching(network, batch)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        losses.append(float(terms["total"].detach()))
    assert losses[-1] < 0.8 * losses[0], f"{Path(__file__).name}: {losses[0]:.2f} to {losses[-1]:.2f}"
