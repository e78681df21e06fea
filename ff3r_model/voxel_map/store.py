"""The voxels of a map with their index: found by cell, added, removed, moved, all within a number of rows."""

from __future__ import annotations

import bisect
import logging
import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ff3r_model.core.text_space import TextSpace
from ff3r_model.gaussians.groups import Groups, group_keys
from ff3r_model.voxel_map.columns import Columns, Layout
from ff3r_model.voxel_map.config import NO_WINDOW, MapConfig
from ff3r_model.voxel_map.fading import ObservedSurfaces
from ff3r_model.voxel_map.fusion import LOST, VoxelMotion, merge_groups
from ff3r_model.voxel_map.hash_index import BYTES_PER_SLOT, HashIndex, slots_for
from ff3r_model.voxel_map.rows import VoxelRows

log = logging.getLogger(__name__)

BLOCK = 2**16
"""Voxels per step of what goes through the whole map, which bounds its working memory."""


class VoxelStore:
    """Rows of `Columns` that a `HashIndex` finds by their key; at most `max_rows`."""

    def __init__(
        self, config: MapConfig, layout: Layout, max_rows: int, space: TextSpace | None, device: torch.device
    ) -> None:
        self.config = config
        self.max_rows = max_rows
        self.space = space
        self.device = device
        self.columns = Columns(layout, min(config.initial_rows, max_rows), device)
        self._index = HashIndex(self.columns.capacity, device)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def nbytes(self) -> int:
        """Bytes of columns and index, spare room included."""
        return self.columns.nbytes + self._index.nbytes

    def find(self, keys: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """The row of each key, −1 where there is none."""
        return self._index.find(keys, self.columns.rows.keys)

    def enter(self, values: VoxelRows, now: int, protect: bool) -> None:
        """Merge voxels of distinct cells, or add them, for which others are evicted: with `protect` none seen now."""
        # which cells are occupied already
        rows = self.find(values.keys)
        known, new = (rows >= 0).nonzero().squeeze(1), (rows < 0).nonzero().squeeze(1)
        # there both become one, the map's voxel first
        self._merge(rows[known], values.select(known))
        # of the others the heaviest come in, if need be in the place of older ones
        fitting = _heaviest(new, values.log_mass, self.max_rows - len(known))
        self._free(len(fitting), now, protect)
        self.make_room(len(fitting))
        self.append(values.select(fitting))
        if len(fitting) < len(new):
            log.debug("no room for the lightest %d voxels of window %d", len(new) - len(fitting), now)

    def absorb(self, other: VoxelStore, motion: VoxelMotion) -> None:
        """Take in the moved voxels of another store, block by block, in the order of its rows."""
        now = max(self._now(), other._now())
        for rows in other.columns.blocks(BLOCK):
            moved = motion.apply(other.columns.rows.select(rows).to(self.device), self.config.voxel_size)
            kept = moved.select((moved.keys != LOST).nonzero().squeeze(1))
            _say_lost(len(moved) - len(kept))
            self.enter(merge_groups(kept, group_keys(kept.keys)), now, protect=False)

    def append(self, values: VoxelRows) -> None:
        """Add voxels whose cells are not here yet; `make_room` comes first."""
        rows = self.columns.append(values)
        self._measure(rows)
        self._index.insert(values.keys, torch.arange(rows.start, rows.stop, device=self.device))

    def make_room(self, count: int) -> None:
        """Grow columns and index so that `count` voxels can be added, never beyond `max_rows`."""
        needed = len(self) + count
        assert needed <= self.max_rows
        if needed > self.columns.capacity:
            self.columns.reserve(min(self.max_rows, max(needed, self.columns.capacity * 3 // 2)))
        if self._index.slots < slots_for(self.columns.capacity):
            self._index = HashIndex(self.columns.capacity, self.device)
            self._index.rebuild(self.columns.rows.keys)
        elif self._index.crowded(needed):
            self._index.rebuild(self.columns.rows.keys)

    def limit(self, max_rows: int) -> None:
        """Change the largest number of rows: evicts what is too much, and gives spare room beyond it back."""
        self.max_rows = max_rows
        if len(self) > max_rows:
            self._evict(len(self) - max_rows, torch.zeros(len(self), dtype=torch.bool, device=self.device), self._now())
        if self.columns.capacity > max_rows:
            self.columns.reserve(max_rows)
        if self._index.slots > slots_for(self.columns.capacity):
            self._index = HashIndex(self.columns.capacity, self.device)
            self._index.rebuild(self.columns.rows.keys)

    def remove(self, victims: Int64[Tensor, " n"]) -> None:
        """Forget rows, given in ascending order; the last ones take their places."""
        keys = self.columns.rows.keys
        source, target = self.columns.movers(victims)
        self._index.remove(keys[victims], keys)
        self._index.move(keys[source], target, keys)
        self.columns.remove(victims)

    def relabel(self, new_of_old: Mapping[int, int]) -> None:
        """Give voxels other anchors."""
        anchors = self.columns.rows.anchors
        old, which = anchors.unique(return_inverse=True)
        new = [new_of_old.get(anchor, anchor) for anchor in old.tolist()]
        anchors.copy_(torch.tensor(new, dtype=torch.int32, device=self.device)[which])

    def move(self, motion: VoxelMotion) -> None:
        """Move all voxels, then make one of those that meet in a cell; drop what leaves the range.

        In place: linear in the voxels, with about 64 bytes of working memory each for the sorting, and a fixed amount
        besides.
        """
        # every voxel for itself
        for block in self.columns.blocks(BLOCK):
            moved = motion.apply(self.columns.rows.select(block), self.config.voxel_size)
            self.columns.write(block, moved)
        # those beyond the range of cells go
        lost = (self.columns.rows.keys == LOST).nonzero().squeeze(1)
        self.columns.remove(lost)
        # those that meet in a cell become one, in the row of the first
        shared = group_keys(self.columns.rows.keys).shared()[2]
        for groups in shared.blocks(BLOCK):
            self._fuse(groups)
        # the other rows go, and the index starts afresh
        later = torch.ones(len(shared.order), dtype=torch.bool, device=self.device)
        later[shared.offsets[:-1]] = False
        self.columns.remove(shared.order[later].sort().values)
        self._index.rebuild(self.columns.rows.keys)
        _say_lost(len(lost))

    def _free(self, count: int, now: int, protect: bool) -> None:
        """Evict so that `count` more voxels stay within `max_rows`, with some to spare."""
        excess = len(self) + count - self.max_rows
        if excess <= 0:
            return
        # what the window has just seen stays, and a share of the capacity goes at once
        kept = (self.columns.rows.last_seen == now) & protect
        excess = min(max(excess, int(self.config.eviction_share * self.max_rows)), len(self) - int(kept.sum()))
        self._evict(excess, kept, now)

    def _evict(self, count: int, kept: Bool[Tensor, " rows"], now: int) -> None:
        """Remove the `count` voxels that are first in the order of eviction."""
        # the light and long unseen first, older rows first where equal, protected ones last
        voxels = self.columns.rows
        priority = voxels.log_mass - self.config.evict_decay * (now - voxels.last_seen)
        order = priority.masked_fill(kept, math.inf).argsort(stable=True)
        # `remove` wants ascending rows
        self.remove(order[:count].sort().values)
        log.debug("evicted %d voxels", count)

    def _now(self) -> int:
        """The newest window among the voxels."""
        return int(self.columns.rows.last_seen.max()) if len(self) else NO_WINDOW

    def fade(self, surfaces: ObservedSurfaces) -> tuple[int, int]:
        """Lighten voxels that the views look through, remove the lightest; says how many each."""
        # only what lies where the views look can be looked through
        config, voxels = self.config, self.columns.rows
        rows = self._within(*surfaces.box(config.fade_margin))
        # the views' votes against each of them
        evidence = surfaces.evidence(voxels.means[rows], config.fade_margin, config.voxel_size)
        against = evidence >= config.fade_views
        rows = rows[against]
        # those outvoted lose mass, and go with less than that of one of their Gaussians
        mass = voxels.log_mass[rows] - config.fade_rate * evidence[against]
        voxels.log_mass[rows] = mass
        light = mass < voxels.confidences[rows]
        self.remove(rows[light])
        return len(rows), int(light.sum())

    def _within(self, low: Float[Tensor, " 3"], high: Float[Tensor, " 3"]) -> Int64[Tensor, " n"]:
        """Rows of the voxels in a box. One comparison per voxel, the only cost of `fade` that grows with the map."""
        means = self.columns.rows.means
        rows = ((means[:, 0] >= low[0]) & (means[:, 0] <= high[0])).nonzero().squeeze(1)
        some = means.index_select(0, rows)
        return rows[((some >= low) & (some <= high)).all(dim=1)]

    def _merge(self, rows: Int64[Tensor, " n"], values: VoxelRows) -> None:
        """Merge voxels one by one into rows of the same cells."""
        # pairs of a row and its new voxel: 0 and n, 1 and n + 1, …
        pairs = torch.arange(2 * len(rows), device=self.device).view(2, -1).T.flatten()
        groups = Groups(pairs, torch.arange(0, 2 * len(rows) + 1, 2, device=self.device))
        both = VoxelRows.concatenated([self.columns.rows.select(rows), values])
        self._replace(rows, merge_groups(both, groups))

    def _fuse(self, groups: Groups) -> None:
        """Merge each group of rows into its first row."""
        members = self.columns.rows.select(groups.order)
        local = Groups(torch.arange(len(members), device=self.device), groups.offsets)
        self._replace(groups.order[groups.offsets[:-1]], merge_groups(members, local))

    def _replace(self, rows: Int64[Tensor, " n"], merged: VoxelRows) -> None:
        self.columns.write(rows, merged)
        self._measure(rows)

    def _measure(self, rows: slice | Int64[Tensor, " n"]) -> None:
        """Measure the lengths of features, as they are stored, in the text's space."""
        if self.space is not None:
            voxels = self.columns.rows
            voxels.norms[rows] = self.space.norms(voxels.features[rows])


def bytes_for(rows: int, layout: Layout) -> int:
    """Bytes of a store with room for so many rows."""
    return rows * layout.row_bytes + slots_for(rows) * BYTES_PER_SLOT


def rows_within(max_map_bytes: int, fixed: int, layout: Layout) -> int:
    """The largest store beside `fixed` bytes under the cap. Raises ValueError where there is no room for one voxel."""
    budget = max_map_bytes - fixed
    most = max(budget, 0) // layout.row_bytes
    rows = bisect.bisect_right(range(most + 1), budget, key=lambda rows: bytes_for(rows, layout)) - 1
    if rows < 1:
        raise ValueError(
            f"max_map_bytes = {max_map_bytes} is too small: {fixed + bytes_for(1, layout)} is the least here"
        )
    return rows


def _heaviest(candidates: Int64[Tensor, " n"], log_mass: Float[Tensor, " all"], limit: int) -> Int64[Tensor, " m"]:
    """At most `limit` of the candidates, in their order, the heaviest."""
    if len(candidates) <= limit:
        return candidates
    heavy = log_mass[candidates].argsort(descending=True, stable=True)[:limit]
    return candidates[heavy.sort().values]


def _say_lost(count: int) -> None:
    if count:
        log.warning("%d voxels have left the range of the map's cells and are dropped", count)
