"""Voxels that move, each by its window's correction, and the merging of those that share a cell, weighted by mass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ff3r_model.core.geometry import matrix_to_quaternion, quaternion_multiply
from ff3r_model.core.types import Similarity
from ff3r_model.gaussians.groups import Groups, mean_rotation, softmax_within
from ff3r_model.gaussians.spherical_harmonics import rotate_harmonics
from ff3r_model.gaussians.voxelize import CELL_LIMIT, cells_of
from ff3r_model.voxel_map.hash_index import pack
from ff3r_model.voxel_map.rows import VoxelRows

LOST = -1
"""Key of a voxel that a motion has thrown out of the range of cells."""
_AVERAGED = ("means", "scales", "harmonics", "opacities", "confidences", "features")
"""Attributes of which a merged voxel has the mean."""


class VoxelMotion:
    """Where voxels go: one similarity per anchor, and one for all anchors that have none of their own."""

    def __init__(
        self, new_from_old: Mapping[int, Similarity], others: Similarity, bands: int, device: torch.device
    ) -> None:
        anchors = sorted(new_from_old)
        each = [*(new_from_old[anchor] for anchor in anchors), others]
        self._anchors = torch.tensor(anchors, dtype=torch.int32, device=device)
        self._scales = torch.tensor([one.scale for one in each], dtype=torch.float64, device=device)
        self._rotations = torch.stack([one.rotation.double() for one in each]).to(device)
        self._translations = torch.stack([one.translation.double() for one in each]).to(device)
        self._quaternions = matrix_to_quaternion(self._rotations)
        self._turns = torch.stack([_turn(one.rotation, bands) for one in each]).to(device) if bands > 1 else None
        if not (self._scales > 0).all() or not all(torch.isfinite(part).all() for part in self._parts()):
            raise ValueError(f"a map moves by finite similarities of positive scale, not by {each}")

    def apply(self, rows: VoxelRows, voxel_size: float) -> VoxelRows:
        """The rows moved: keys (LOST where out of range), means, scales, quaternions and harmonics change."""
        which = self._which(rows.anchors)
        # y = s R x + t in float64; what leaves the range of cells is marked
        scales = self._scales[which, None]
        turned = (self._rotations[which] @ rows.means.double()[:, :, None]).squeeze(2)
        means = (scales * turned + self._translations[which]).float()
        lost = ~(means.abs() <= CELL_LIMIT * voxel_size).all(dim=1)
        means[lost] = 0
        # shape and colour turn and grow along
        rotated = quaternion_multiply(self._quaternions[which].float(), rows.quaternions.float())
        return replace(
            rows,
            keys=pack(cells_of(means, voxel_size)).masked_fill(lost, LOST),
            means=means,
            scales=(rows.scales * scales).float(),
            quaternions=normalize(rotated, dim=1),
            harmonics=self._turned(rows.harmonics, which),
        )

    def _which(self, anchors: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Row of each voxel's similarity; the last for anchors that have none."""
        known = len(self._anchors)
        if not known:
            return torch.zeros_like(anchors, dtype=torch.int64)
        place = torch.searchsorted(self._anchors, anchors).clamp_max(known - 1)
        return torch.where(self._anchors[place] == anchors, place, known)

    def _turned(self, harmonics: Float[Tensor, "n bands 3"], which: Int[Tensor, " n"]) -> Float[Tensor, "n bands 3"]:
        return harmonics if self._turns is None else self._turns[which] @ harmonics.float()

    def _parts(self) -> tuple[Tensor, ...]:
        return self._scales, self._rotations, self._translations


def merge_groups(rows: VoxelRows, groups: Groups) -> VoxelRows:
    """Merge voxels: one per group of rows, the mean of its members weighted by their mass, exp(log_mass).

    The members' mass becomes the voxel's; it has the newest sight, the heaviest member's anchor (the first's where
    equal) and the first member's key. Attributes are float32; norms are 0, for the caller to measure.
    """
    if not len(groups):
        return rows.select(groups.order)
    # weights: each member's share of its group's mass, in the order of the groups
    weights, log_mass = softmax_within(rows.log_mass.index_select(0, groups.order), groups)
    # what is linear is averaged, rotations have a mean of their own
    averaged = {name: _mean(getattr(rows, name).float(), weights, groups) for name in _AVERAGED}
    quaternions = mean_rotation(rows.quaternions.float(), weights, groups)
    # what cannot be averaged is chosen: the newest sight, the heaviest member's anchor
    group_of_member = groups.spread(torch.arange(len(groups), device=weights.device))
    seen = rows.last_seen.index_select(0, groups.order)
    newest = seen.new_zeros(len(groups)).scatter_reduce(0, group_of_member, seen, "amax", include_self=False)
    heaviest = groups.order[_first_largest(weights, group_of_member, groups)]
    return VoxelRows(
        **averaged,
        keys=rows.keys[groups.order[groups.offsets[:-1]]],
        quaternions=quaternions,
        log_mass=log_mass,
        last_seen=newest,
        anchors=rows.anchors[heaviest],
        norms=torch.zeros_like(log_mass),
    )


def _mean(values: Tensor, weights: Float[Tensor, " n"], groups: Groups) -> Tensor:
    return groups.sum(values.flatten(1) if values.ndim > 1 else values[:, None], weights).view(-1, *values.shape[1:])


def _first_largest(weights: Float[Tensor, " n"], member: Int[Tensor, " n"], groups: Groups) -> Int[Tensor, " v"]:
    """Place in the groups' order of each group's largest weight, the first where equal."""
    largest = torch.segment_reduce(weights, "max", offsets=groups.offsets)
    places = (weights == largest[member]).nonzero().squeeze(1)
    first = torch.full((len(groups),), len(weights), dtype=torch.int64, device=weights.device)
    return first.scatter_reduce(0, member[places], places, "amin")


def _turn(rotation: Float[Tensor, "3 3"], bands: int) -> Float[Tensor, "bands bands"]:
    """The matrix by which harmonics turn: what becomes of each of them alone."""
    alone = torch.eye(bands)[:, :, None].expand(-1, -1, 3)
    return rotate_harmonics(rotation.float(), alone)[:, :, 0].T
