"""Masks in the synthetic world against its ground truth: with perfect features, map and queries lose little."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
import torch

from ff3r_model.core.geometry import invert_rigid, transform_points, unproject
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Gaussians
from ff3r_model.synthetic import CLASSES, RenderedViews, Room, make_room, make_trajectory, pinhole, render
from ff3r_model.voxel_map.config import MapConfig
from ff3r_model.voxel_map.queries import QueryConfig, QuerySet
from ff3r_model.voxel_map.voxel_map import VoxelMap

WIDTH, CHANNELS, SIDE, VOXEL = 512, 64, 80, 0.05
ROOMS = (2, 3, 5)
Cell = tuple[int, int, int]


class World:
    """Words at right angles that compact features express exactly: each voxel says its class and nothing else."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.decoder = torch.linalg.qr(torch.randn(WIDTH, CHANNELS, generator=generator))[0]
        words = [*CLASSES, *(word for word in QueryConfig().negatives if word not in CLASSES)]
        codes = torch.linalg.qr(torch.randn(CHANNELS, len(words), generator=generator))[0].T
        self.codes = dict(zip(words, codes, strict=True))

    def embed(self, texts: list[str]) -> torch.Tensor:
        return torch.stack([self.decoder @ self.codes[text] for text in texts])

    def gaussians(self, views: RenderedViews) -> Gaussians:
        points, labels = labelled(views)
        count = len(points)
        return Gaussians(
            means=points,
            scales=torch.full((count, 3), 0.01),
            quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
            harmonics=torch.zeros(count, 1, 3),
            opacities=torch.full((count,), 0.9),
            confidences=torch.zeros(count),
            features=torch.stack([self.codes[name] for name in CLASSES])[labels],
        )


def labelled(views: RenderedViews) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pixel's point in the room and its class."""
    points = unproject(views.depth, views.cameras.intrinsics).flatten(1, 2)
    world = transform_points(invert_rigid(views.cameras.camera_from_world), points).flatten(0, 1)
    return world, views.classes.flatten().long()


def tour(room: Room, seed: int) -> Iterator[RenderedViews]:
    """Five windows of eight views."""
    poses = make_trajectory(room, seed, 40, step=0.25)
    for some in poses.split(8):
        yield render(room, some, pinhole(SIDE, SIDE, 85.0).expand(8, 3, 3), SIDE, SIDE)


def truth(windows: list[RenderedViews]) -> dict[Cell, Counter[int]]:
    """How often each class was seen in each cell of the map, counted pixel by pixel."""
    counts: dict[Cell, Counter[int]] = defaultdict(Counter)
    for views in windows:
        points, labels = labelled(views)
        for x, y, z, label in zip(*torch.round(points / VOXEL).long().T.tolist(), labels.tolist(), strict=True):
            counts[x, y, z][label] += 1
    return counts


@pytest.mark.parametrize("seed", ROOMS)
def test_precision_and_recall_with_perfect_features(seed: int) -> None:
    """Right: a voxel in which the class was seen. Wanted: voxels in which nothing else was. Classes of 40 or more."""
    world, room = World(), make_room(seed)
    windows = list(tour(room, 1))
    voxel_map = VoxelMap(MapConfig(voxel_size=VOXEL, max_map_bytes=2**26), CHANNELS, TextSpace(world.decoder))
    for number, views in enumerate(windows):
        voxel_map.integrate(world.gaussians(views), number)
    counts = truth(windows)
    of_class: dict[int, set[Cell]] = defaultdict(set)
    alone: dict[int, set[Cell]] = defaultdict(set)
    for cell, seen in counts.items():
        for label in seen:
            of_class[label].add(cell)
            if len(seen) == 1:
                alone[label].add(cell)
    queries = QuerySet(world.embed, TextSpace(world.decoder), QueryConfig(max_queries=len(CLASSES)))
    common = [label for label in of_class if len(alone[label]) >= 40]
    assert len(common) >= 5
    for label in common:
        queries.add(CLASSES[label])
    for label, mask in zip(common, queries.masks(voxel_map), strict=True):
        found = set(map(tuple, mask.indices.tolist()))
        precision = len(found & of_class[label]) / len(found)
        recall = len(found & alone[label]) / len(alone[label])
        assert precision > 0.98, f"{mask.query.text}: precision {precision:.3f}"
        assert recall > 0.98, f"{mask.query.text}: recall {recall:.3f}"


def test_a_query_for_what_is_not_there_finds_nothing() -> None:
    world, room = World(), make_room(5)
    views = next(iter(tour(room, 1)))
    voxel_map = VoxelMap(MapConfig(voxel_size=VOXEL, max_map_bytes=2**26), CHANNELS, TextSpace(world.decoder))
    voxel_map.integrate(world.gaussians(views), 0)
    there = {CLASSES[label] for label in views.classes.unique().tolist()}
    queries = QuerySet(world.embed, TextSpace(world.decoder))
    for name in [name for name in CLASSES if name not in there][:10]:
        queries.add(name)
    assert len(queries.active) == 10
    for mask in queries.masks(voxel_map):
        assert len(mask.indices) < 0.01 * len(voxel_map), mask.query.text
