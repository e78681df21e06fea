"""The shipped nano weights on rooms they have never seen: words find their things (figures: test_benchmark.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from ff3r_model.core.types import Window
from ff3r_model.evaluation.held_out_rooms import held_out_window
from ff3r_model.gaussians.voxelize import VoxelizeConfig, voxelize
from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint
from ff3r_model.pipeline import Pipeline
from ff3r_model.synthetic import CLASSES

VIEWS = 8
LEAST_VOXELS = 20


@cache
def pipeline() -> Pipeline:
    return Pipeline.from_checkpoint()


def test_file_is_small_and_says_how_it_was_made() -> None:
    assert NANO_WEIGHTS.stat().st_size <= 30e6
    card = load_checkpoint(NANO_WEIGHTS).card
    assert "procedural rooms" in card["made_from"]
    assert (Path(__file__).resolve().parents[2] / card["figures"]).is_file()


def ranked_above_the_rest(scores: torch.Tensor, member: torch.Tensor) -> float:
    """The probability that a voxel of the class scores above one that is not (the area under the ROC curve)."""
    order = scores.double().argsort().argsort().double()
    inside = int(member.sum())
    excess = order[member].sum() - inside * (inside - 1) / 2
    return float(excess / (inside * (len(scores) - inside)))


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_query_for_a_class_ranks_its_voxels_above_the_rest(seed: int) -> None:
    truth = held_out_window(seed, VIEWS)
    prediction = pipeline().engine(Window(truth.images[0], tuple(range(VIEWS)), tuple(range(VIEWS))))
    grid = VoxelizeConfig(epsilon=0.04)
    voxels = voxelize(prediction.gaussians, grid)
    labels = torch.nn.functional.one_hot(truth.classes[0].flatten(), len(CLASSES)).float()
    truly = voxelize(replace(prediction.gaussians, features=labels), replace(grid, distance_weight=0.0))
    assert torch.equal(truly.cells, voxels.cells)
    classes = truly.gaussians.features.argmax(-1)
    counts = torch.bincount(classes, minlength=len(CLASSES))
    present = [index for index, count in enumerate(counts.tolist()) if count >= LEAST_VOXELS]
    embeddings = pipeline().queries._embed([CLASSES[index] for index in present])
    scores = pipeline().space.similarity(voxels.gaussians.features, embeddings)
    areas = {CLASSES[index]: ranked_above_the_rest(scores[:, k], classes == index) for k, index in enumerate(present)}
    assert len(areas) >= 4
    assert sum(areas.values()) / len(areas) > 0.8, areas
    assert min(areas[name] for name in ("wall", "floor") if name in areas) > 0.8, areas


def test_rank_figure_by_hand() -> None:
    scores, member = torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True])
    assert ranked_above_the_rest(scores, member) == pytest.approx(0.75)
