"""Voxels that move with their windows, against brute force in float64; submaps that join; budgets that shrink."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.node import Node
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Gaussians, Similarity
from ff3r_model.gaussians.spherical_harmonics import basis
from ff3r_model.gaussians.voxelize import CELL_LIMIT
from ff3r_model.voxel_map.config import NO_WINDOW, MapConfig
from ff3r_model.voxel_map.hash_index import pack
from ff3r_model.voxel_map.voxel_map import VoxelMap

CHANNELS = 5
CONFIG = MapConfig(voxel_size=0.25, max_map_bytes=2**22, compact=False, max_keyframes=0, initial_rows=16, bands=4)
PLAIN = ("scales", "opacities", "confidences", "features")
"""What a motion changes at most by a factor."""


def scene(count: int, seed: int = 0, offset: float = 0.0, extent: float = 2.0) -> Gaussians:
    """Gaussians in a box; rotations near one another, so that their mean is well defined."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Gaussians(
        means=torch.rand(count, 3, generator=generator) * extent + offset,
        scales=normal(count, 3).exp() * 0.01,
        quaternions=torch.nn.functional.normalize(torch.full((4,), 0.5) + 0.02 * normal(count, 4), dim=1),
        harmonics=normal(count, 4, 3),
        opacities=normal(count).sigmoid(),
        confidences=normal(count),
        features=normal(count, CHANNELS),
    )


def mapped(windows: int = 3, config: MapConfig = CONFIG, space: TextSpace | None = None) -> VoxelMap:
    """A map of overlapping windows with ids 10, 11, …"""
    voxel_map = VoxelMap(config, CHANNELS, space)
    for number in range(windows):
        voxel_map.integrate(scene(300, number, offset=0.8 * number), 10 + number)
    return voxel_map


def similarity(seed: int, scale: float = 1.0, shift: float = 1.0) -> Similarity:
    rotation = Rotation.random(random_state=seed).as_matrix()
    move = np.random.default_rng(seed).normal(size=3) * shift
    return Similarity(scale, torch.tensor(rotation), torch.tensor(move))


def rows_of(voxel_map: VoxelMap) -> dict[tuple[int, ...], dict[str, np.ndarray]]:
    """Everything that a map holds, by cell, in float64; and its index checked."""
    cells = voxel_map.cells()
    assert torch.equal(voxel_map._store.find(pack(cells)), torch.arange(len(cells)))
    columns = vars(voxel_map.rows)
    arrays = {name: column.double().numpy() for name, column in columns.items() if name not in ("keys", "norms")}
    listed = [tuple(cell) for cell in cells.tolist()]
    assert len(set(listed)) == len(listed)
    return {cell: {name: array[row] for name, array in arrays.items()} for row, cell in enumerate(listed)}


def brute_move(
    rows: dict[tuple[int, ...], dict[str, np.ndarray]], moves: dict[int, Similarity], voxel_size: float
) -> dict[tuple[int, ...], list[dict[str, np.ndarray]]]:
    """Each voxel moved on its own, then gathered by cell: the members of each new voxel."""
    groups = defaultdict(list)
    for row in rows.values():
        motion = moves.get(int(row["anchors"]), Similarity())
        turn = motion.rotation.double().numpy()
        mean = motion.scale * turn @ row["means"] + motion.translation.double().numpy()
        gaussian = Rotation.from_quat(np.roll(row["quaternions"], -1))
        moved = row | {"means": mean, "scales": row["scales"] * motion.scale}
        moved["rotation"] = (Rotation.from_matrix(turn) * gaussian).as_matrix()
        moved["turn"] = turn
        groups[tuple(np.round(np.float32(mean) / np.float32(voxel_size)).astype(int))].append(moved)
    return groups


def assert_fused(found: dict[str, np.ndarray], members: list[dict[str, np.ndarray]], any_anchor: bool = False) -> None:
    """One voxel is the mean of its members, weighted by mass."""
    mass = np.array([math.exp(member["log_mass"]) for member in members])
    weights = mass / mass.sum()
    np.testing.assert_allclose(found["log_mass"], math.log(mass.sum()), atol=2e-5)
    for name in ("means", *PLAIN):
        expected = sum(weight * member[name] for weight, member in zip(weights, members, strict=True))
        np.testing.assert_allclose(found[name], expected, atol=2e-4, rtol=2e-4, err_msg=name)
    chordal = sum(weight * member["rotation"] for weight, member in zip(weights, members, strict=True))
    left, _, right = np.linalg.svd(chordal)
    mean = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    turned = Rotation.from_quat(np.roll(found["quaternions"], -1)).as_matrix()
    assert np.trace(mean.T @ turned) > 1 + 2 * math.cos(math.radians(1))
    assert found["last_seen"] == max(member["last_seen"] for member in members)
    if any_anchor:
        return
    heaviest = {
        member["anchors"] for member, weight in zip(members, weights, strict=True) if weight > max(weights) - 1e-6
    }
    assert found["anchors"] in heaviest


def assert_moved(voxel_map: VoxelMap, before: dict, moves: dict[int, Similarity]) -> None:
    expected = brute_move(before, moves, voxel_map.config.voxel_size)
    found = rows_of(voxel_map)
    assert found.keys() == expected.keys()
    assert any(len(members) > 1 for members in expected.values())
    for cell, members in expected.items():
        assert_fused(found[cell], members)


@pytest.mark.parametrize("seed", range(3))
def test_move_equals_moving_each_voxel_by_itself(seed: int) -> None:
    """Two of three windows move, each in its own way; the third stays."""
    voxel_map = mapped()
    before = rows_of(voxel_map)
    moves = {10: similarity(seed, 0.8), 12: similarity(seed + 10, 1.3, shift=0.3), 99: similarity(5)}
    revision = voxel_map.revision
    voxel_map.transform(moves)
    assert_moved(voxel_map, before, moves)
    assert voxel_map.revision > revision


def test_moving_all_windows_alike_moves_the_map_as_one() -> None:
    """Cells too small for voxels to meet: every mean is where the similarity says, and there and back is nothing."""
    config = replace(CONFIG, voxel_size=1e-4)
    voxel_map = mapped(config=config)
    before, count = rows_of(voxel_map), len(voxel_map)
    order = voxel_map.gaussians().confidences.argsort()
    common = similarity(4, 1.7)
    voxel_map.transform(dict.fromkeys((10, 11, 12), common))
    assert len(voxel_map) == count
    moved = voxel_map.gaussians().select(voxel_map.gaussians().confidences.argsort())
    exact = np.stack([row["means"] for row in before.values()])[order]
    np.testing.assert_allclose(
        moved.means, common.scale * exact @ common.rotation.numpy().T + common.translation.numpy(), atol=2e-6
    )
    back = common.rotation.T
    voxel_map.transform(dict.fromkeys((10, 11, 12), Similarity(1 / 1.7, back, -back @ common.translation / 1.7)))
    again = voxel_map.gaussians().select(voxel_map.gaussians().confidences.argsort())
    np.testing.assert_allclose(again.means, exact, atol=2e-6)
    originals = list(before.values())
    harmonics = np.stack([originals[row]["harmonics"] for row in order.tolist()])
    np.testing.assert_allclose(again.harmonics, harmonics, atol=1e-5)


def test_colours_turn_with_the_voxels() -> None:
    """A voxel seen along a direction that turns with it looks the same."""
    voxel_map = mapped(1, replace(CONFIG, voxel_size=1e-4))
    before = voxel_map.gaussians()
    motion = similarity(7)
    voxel_map.transform({10: motion})
    after = voxel_map.gaussians()
    directions = torch.nn.functional.normalize(torch.randn(20, 3), dim=1)
    old = torch.einsum("db,nbc->ndc", basis(directions, 4), before.harmonics)
    new = torch.einsum("db,nbc->ndc", basis(directions @ motion.rotation.float().T, 4), after.harmonics)
    torch.testing.assert_close(new, old, atol=1e-5, rtol=1e-5)


def test_moving_in_blocks_is_moving_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = {10: similarity(1, 0.5), 11: similarity(2, 0.5)}
    whole, pieces = mapped(), mapped()
    whole.transform(moves)
    monkeypatch.setattr("ff3r_model.voxel_map.store.BLOCK", 7)
    pieces.transform(moves)
    found, expected = rows_of(pieces), rows_of(whole)
    assert found.keys() == expected.keys()
    for cell, row in expected.items():
        for name, value in row.items():
            np.testing.assert_allclose(found[cell][name], value, atol=1e-6, err_msg=name)


def test_voxels_that_leave_the_range_are_dropped_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    voxel_map = mapped()
    gone = int((voxel_map.rows.anchors == 11).sum())
    left = {cell for cell, row in rows_of(voxel_map).items() if row["anchors"] != 11}
    voxel_map.transform({11: Similarity(1.0, torch.eye(3), torch.tensor([CELL_LIMIT * 1.0, 0, 0]))})
    assert rows_of(voxel_map).keys() == left
    assert str(gone) in caplog.text
    voxel_map.transform({10: Similarity(1e30), 12: Similarity(1e30)})
    assert len(voxel_map) == 0
    voxel_map.transform({10: Similarity()})


@pytest.mark.parametrize(
    "bad", [Similarity(0.0), Similarity(-1.0), Similarity(math.nan), Similarity(1.0, torch.full((3, 3), math.inf))]
)
def test_no_motion_that_is_none(bad: Similarity) -> None:
    voxel_map = mapped()
    before = rows_of(voxel_map)
    with pytest.raises(ValueError, match="similarities"):
        voxel_map.transform({10: bad})
    assert rows_of(voxel_map).keys() == before.keys()


def test_a_full_compact_map_moves_within_its_bytes() -> None:
    space = TextSpace(torch.randn(12, CHANNELS))
    config = replace(CONFIG, voxel_size=0.02, compact=True, max_map_bytes=100_000)
    voxel_map = mapped(4, config, space)
    held = voxel_map.nbytes
    before = rows_of(voxel_map)
    moves = {10: similarity(1), 13: similarity(2, 0.3)}
    voxel_map.transform(moves)
    assert voxel_map.nbytes == held <= config.max_map_bytes
    assert rows_of(voxel_map).keys() == brute_move(before, moves, 0.02).keys()
    assert voxel_map.feature_norms is not None
    expected = (voxel_map.features.double() @ space.decoder.double().T).norm(dim=1)
    torch.testing.assert_close(voxel_map.feature_norms.double(), expected, rtol=2e-3, atol=1e-3)
    voxel_map.integrate(scene(300, 8), 14)
    assert voxel_map.nbytes <= config.max_map_bytes


def test_a_merged_voxel_keeps_the_heavier_sides_anchor() -> None:
    voxel_map = VoxelMap(CONFIG, CHANNELS)
    spots = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]])
    first = replace(scene(2), means=spots, confidences=torch.tensor([2.0, -2.0]))
    second = replace(scene(2, 1), means=spots, confidences=torch.zeros(2))
    voxel_map.integrate(first, 3)
    voxel_map.integrate(second, 4)
    rows = rows_of(voxel_map)
    assert (rows[0, 0, 0]["anchors"], rows[4, 0, 0]["anchors"]) == (3, 4)
    assert all(row["last_seen"] == 4 for row in rows.values())


def test_reanchor() -> None:
    voxel_map = mapped()
    before = rows_of(voxel_map)
    voxel_map.reanchor({10: Node(77), 12: Node(11), 11: Node(10), 5: Node(6)})
    new = {10: 77, 11: 10, 12: 11}
    for cell, row in rows_of(voxel_map).items():
        assert row["anchors"] == new[int(before[cell]["anchors"])]
    VoxelMap(CONFIG, CHANNELS).reanchor({1: Node(2)})


def test_absorb_equals_moving_and_merging_each_voxel() -> None:
    own, other = mapped(2), VoxelMap(CONFIG, CHANNELS)
    for number in range(2):
        other.integrate(scene(300, 5 + number, offset=number * 0.5), 20 + number)
    tilt = torch.tensor(Rotation.from_rotvec([0.1, -0.05, 0.1]).as_matrix())
    motion = Similarity(0.7, tilt, torch.tensor([0.3, 0.2, 0.1]))
    expected, theirs = rows_of(own), rows_of(other)
    moved = brute_move(theirs, dict.fromkeys((20, 21), motion), CONFIG.voxel_size)
    still = brute_move(expected, {}, CONFIG.voxel_size)
    own.absorb(other, motion)
    found = rows_of(own)
    assert found.keys() == moved.keys() | still.keys()
    assert len(moved.keys() & still.keys()) > 20
    for cell, row in found.items():
        sides = still.get(cell, []), moved.get(cell, [])
        assert_fused(row, [*sides[0], *sides[1]], any_anchor=True)
        if all(sides):
            own_mass, other_mass = (sum(math.exp(member["log_mass"]) for member in side) for side in sides)
            assert (row["anchors"] < 20) == (own_mass >= other_mass)
    assert rows_of(other).keys() == theirs.keys()


def test_absorbing_under_the_cap() -> None:
    config = replace(CONFIG, voxel_size=0.05, max_map_bytes=60_000)
    own, other = mapped(1, config), mapped(3, config)
    own.absorb(other, Similarity(1.0, torch.eye(3), torch.tensor([20.0, 0, 0])))
    assert own.nbytes <= 60_000
    assert len(own) > 0.7 * own.max_rows
    rows_of(own)


def test_absorbing_what_does_not_fit_is_refused() -> None:
    voxel_map = mapped(1)
    for config, channels in (
        (replace(CONFIG, voxel_size=0.1), CHANNELS),
        (CONFIG, 2),
        (replace(CONFIG, bands=1), CHANNELS),
    ):
        with pytest.raises(ValueError, match="agree"):
            voxel_map.absorb(VoxelMap(config, channels), Similarity())
    with pytest.raises(ValueError, match="agree"):
        voxel_map.absorb(voxel_map, Similarity())
    before = len(voxel_map)
    voxel_map.absorb(VoxelMap(CONFIG, CHANNELS), Similarity())
    assert len(voxel_map) == before


def test_a_smaller_budget_evicts_at_once_in_the_declared_order() -> None:
    config = replace(CONFIG, voxel_size=0.05, evict_decay=0.3)
    voxel_map = mapped(4, config)
    rows = rows_of(voxel_map)
    order = sorted(rows, key=lambda cell: rows[cell]["log_mass"] - 0.3 * (13 - rows[cell]["last_seen"]))
    budget = voxel_map.nbytes // 3
    voxel_map.set_budget(budget)
    assert voxel_map.nbytes <= budget
    assert voxel_map.config.max_map_bytes == budget
    assert 0.5 * voxel_map.max_rows < len(voxel_map) < len(rows)
    assert rows_of(voxel_map).keys() == set(order[len(order) - len(voxel_map) :])
    for number in range(3):
        voxel_map.integrate(scene(300, 30 + number, offset=-3), 20 + number)
        assert voxel_map.nbytes <= budget
    voxel_map.set_budget(2**22)
    before = rows_of(voxel_map)
    voxel_map.integrate(scene(300, 40, offset=9), 30)
    assert before.keys() <= rows_of(voxel_map).keys()


def test_a_budget_for_nothing_is_refused_and_changes_nothing() -> None:
    voxel_map = mapped()
    rows, held = len(voxel_map), voxel_map.nbytes
    with pytest.raises(ValueError, match="least"):
        voxel_map.set_budget(10)
    assert (len(voxel_map), voxel_map.nbytes, voxel_map.config) == (rows, held, CONFIG)


def test_files_keep_the_anchors(tmp_path: object) -> None:
    voxel_map = mapped()
    voxel_map.save(f"{tmp_path}/map")
    assert torch.equal(VoxelMap.load(f"{tmp_path}/map").rows.anchors, voxel_map.rows.anchors)
    assert NO_WINDOW not in voxel_map.rows.anchors.tolist()


def test_fields_that_a_motion_must_think_of() -> None:
    """A new attribute of Gaussians has to be moved or averaged: this list is what `brute_move` knows."""
    assert {field.name for field in fields(Gaussians)} == {"means", "quaternions", "harmonics", *PLAIN}
