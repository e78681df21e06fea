"""Groups of rows that share a voxel, and what is computed within each: sums, softmax, mean rotation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

_POWER_ROUNDS = 3
"""Power iterations towards the mean rotation; each shrinks the error by the ratio of the two largest eigenvalues."""


@dataclass(frozen=True)
class Groups:
    """Rows that share a voxel: those of voxel v are order[offsets[v] : offsets[v + 1]]."""

    order: Int[Tensor, " n"]
    offsets: Int[Tensor, " voxels_plus_one"]

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    def sum(self, values: Float[Tensor, "all c"], weights: Float[Tensor, " n"] | None = None) -> Float[Tensor, "v c"]:
        """Σ w·value over each voxel, w in the order of `order`; plain sums without weights."""
        return embedding_bag(
            self.order, values, self.offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )

    def spread(self, values: Shaped[Tensor, " v"]) -> Shaped[Tensor, " n"]:
        """Each voxel's value for each of its members, in the order of `order`."""
        return torch.repeat_interleave(values, self.offsets.diff(), output_size=self.order.shape[0])

    def shared(self) -> tuple[Bool[Tensor, " v"], Bool[Tensor, " n"], Groups]:
        """Which voxels have more than one member, which members they are, and those voxels alone."""
        counts = self.offsets.diff()
        voxels = counts > 1
        members = self.spread(voxels)
        offsets = torch.cat([counts.new_zeros(1), counts[voxels].cumsum(0)])
        return voxels, members, Groups(self.order[members], offsets)

    def blocks(self, size: int) -> Iterator[Groups]:
        """Runs of whole voxels with about `size` rows each."""
        steps = torch.arange(0, self.order.shape[0], size, device=self.offsets.device)
        bounds = [*torch.searchsorted(self.offsets, steps).unique().tolist(), len(self)]
        for first, last in itertools.pairwise(bounds):
            offsets = self.offsets[first : last + 1]
            if first < last:
                start, stop = offsets[[0, -1]].tolist()
                yield Groups(self.order[start:stop], offsets - start)


def group(cells: Int[Tensor, "n 3"]) -> Groups:
    """Find the rows that share a cell, by one stable sort of keys that are as short as the extent allows; n > 0."""
    low, high = cells.amin(dim=0), cells.amax(dim=0)
    x, y, z = (cells - low).long().unbind(1)
    _, rows, layers = (high - low + 1).tolist()
    return group_keys((x * rows + y) * layers + z)


def group_keys(keys: Int64[Tensor, " n"]) -> Groups:
    """The rows that share a key, in the order of the keys."""
    ordered, order = torch.sort(keys, stable=True)
    counts = torch.unique_consecutive(ordered, return_counts=True)[1]
    return Groups(order, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))


def mean_rotation(
    quaternions: Float[Tensor, "all 4"], weights: Float[Tensor, " n"], groups: Groups
) -> Float[Tensor, "v 4"]:
    """The weighted mean of each voxel's rotations, of unit norm: the dominant eigenvector of Σ w·q·qᵀ.

    The sum does not see the signs of the quaternions, and its dominant eigenvector is the mean in the chordal sense
    (Markley et al. 2007). Power iteration starts from the row with the largest diagonal, which is itself a
    sign-consistent weighted mean, so a few rounds suffice wherever the rotations have a common direction. The matrix
    has trace 1, so no number leaves its range on the way.
    """
    parts = (quaternions[:, part].index_select(0, groups.order) for part in range(4))
    matrix = torch.stack([groups.sum(quaternions, weights * part) for part in parts], dim=1)
    largest = torch.diagonal(matrix, dim1=1, dim2=2).max(dim=1).indices
    first = torch.arange(0, 4 * len(largest), 4, device=largest.device)
    vector = matrix.flatten(0, 1).index_select(0, first + largest)[:, :, None]
    for _ in range(_POWER_ROUNDS):
        vector = matrix @ vector
    return normalize(vector.squeeze(2), dim=1)


def softmax_within(logits: Float[Tensor, " n"], groups: Groups) -> tuple[Float[Tensor, " n"], Float[Tensor, " v"]]:
    """Softmax within each voxel, and the log of its denominator."""
    highest = torch.segment_reduce(logits.detach(), "max", offsets=groups.offsets)
    exponentials = (logits - groups.spread(highest)).exp()
    sums = torch.segment_reduce(exponentials, "sum", offsets=groups.offsets)
    return exponentials / groups.spread(sums), highest + sums.log()
