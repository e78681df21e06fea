"""Semantic-aware voxelization, the paper's equations 5 to 8: one Gaussian per occupied voxel.

One implementation for every device. A stable sort of short integer keys brings the Gaussians of a voxel together; then
every sum over a voxel is a weighted embedding bag, which reads the attributes where they lie instead of sorting them.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from ff3r_model.types import Gaussians

logger = logging.getLogger(__name__)

CELL_LIMIT = 2**20 - 1
"""Largest cell coordinate: three of them, with signs, fit one 64-bit key."""
_CPU_BLOCK = 2**12
"""Gaussians per step of `semantic_distance` on a CPU, where a step's features should stay in the cache."""
_BLOCK = 2**22
"""The same elsewhere, where launches cost more."""
_POWER_ROUNDS = 3
"""Power iterations towards the mean rotation; each shrinks the error by the ratio of the two largest eigenvalues."""


@dataclass(frozen=True)
class VoxelizeConfig:
    """How Gaussians are merged into voxels."""

    epsilon: float = 0.05
    """Edge of a voxel, in the unit of the means. The paper gives ε no value."""
    distance_weight: float = 1.0
    """λ of equation 7, nats per unit of cosine distance. The paper gives it no value."""

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, not {self.epsilon}")
        if not self.distance_weight >= 0:
            raise ValueError(f"distance_weight must not be negative, is {self.distance_weight}")


@dataclass(frozen=True)
class VoxelizedGaussians:
    """One Gaussian per occupied voxel, sorted by cell (x, then y, then z)."""

    gaussians: Gaussians
    cells: Int[Tensor, "n 3"]
    """round(mean / ε) of the members, int32."""
    log_mass: Float[Tensor, " n"]
    """log Σ exp(C − λd) over the members: what the voxel weighs when it is merged with another set's."""
    epsilon: float
    dropped: int = 0
    """Gaussians left out: a value not finite, or a cell beyond `CELL_LIMIT`."""

    def __len__(self) -> int:
        return self.cells.shape[0]


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


def voxelize(gaussians: Gaussians, config: VoxelizeConfig) -> VoxelizedGaussians:
    """Merge the Gaussians of each cell of edge ε into one.

    Equation 5 gives the cell, round(mean / ε); equation 6 the prototype, the plain mean of the members' features;
    equation 7 the weights, the softmax over the cell of C − λ·(1 − cos(feature, prototype)); equation 8 every
    attribute, Σ w·a, where rotations are averaged as rotations (`mean_rotation`, here with w ≥ 0). Gaussians with
    values that are not finite or cells out of range are dropped and counted. Differentiable in all attributes.
    """
    usable = _usable(gaussians, config.epsilon)
    dropped = len(gaussians) - int(usable.sum())
    if dropped:
        logger.warning("voxelization leaves out %d of %d Gaussians: not finite or out of range", dropped, len(usable))
        gaussians = gaussians.select(usable)
    cells = cells_of(gaussians.means, config.epsilon)
    if not len(cells):
        return VoxelizedGaussians(gaussians, cells, gaussians.confidences, config.epsilon, dropped)
    groups = group(cells)
    weights, log_mass = softmax_within(_logits(gaussians, groups, config.distance_weight), groups)
    occupied = cells.index_select(0, groups.order[groups.offsets[:-1]])
    return VoxelizedGaussians(_average(gaussians, weights, groups), occupied, log_mass, config.epsilon, dropped)


def cells_of(means: Float[Tensor, "n 3"], epsilon: float) -> Int[Tensor, "n 3"]:
    """Equation 5: the cell whose centre, a multiple of ε, is nearest."""
    return torch.round(means.detach() / epsilon).int()


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


def semantic_distance(features: Float[Tensor, "all c"], groups: Groups) -> Float[Tensor, " n"]:
    """1 − cos(feature, its voxel's mean feature), of equations 6 and 7, in the order of `groups.order`.

    A feature of zeros resembles nothing: 1.
    """
    smallest = torch.finfo(features.dtype).tiny
    cosines = []
    for block in groups.blocks(_CPU_BLOCK if features.device.type == "cpu" else _BLOCK):
        prototypes, rows = block.sum(features), features.index_select(0, block.order)
        lengths = torch.linalg.vector_norm(prototypes, dim=1)
        voxel = block.spread(torch.arange(len(block), device=features.device))
        dots = torch.linalg.vecdot(rows, prototypes.index_select(0, voxel))
        scale = torch.linalg.vector_norm(rows, dim=1) * lengths.index_select(0, voxel)
        cosines.append(dots / scale.clamp_min(smallest))
    return 1 - torch.cat(cosines)


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


def _usable(gaussians: Gaussians, epsilon: float) -> Bool[Tensor, " n"]:
    """Where every value is finite and the cell in range. Sums of finite values stand for their parts."""
    in_range = gaussians.means.abs().amax(dim=1) <= CELL_LIMIT * epsilon
    total = gaussians.opacities + gaussians.confidences
    for part in (gaussians.scales, gaussians.quaternions, gaussians.harmonics.flatten(1), gaussians.features):
        total = total + part.sum(dim=1)
    return in_range & torch.isfinite(total)


def _logits(gaussians: Gaussians, groups: Groups, distance_weight: float) -> Float[Tensor, " n"]:
    """C − λd of equation 7, in the order of `groups.order`. A Gaussian that is alone is its own prototype: d = 0."""
    confidences = gaussians.confidences.index_select(0, groups.order)
    _, members, shared = groups.shared()
    if distance_weight == 0 or not len(shared):
        return confidences
    distance = semantic_distance(gaussians.features, shared)
    return confidences - distance_weight * torch.zeros_like(confidences).masked_scatter(members, distance)


def _rotations(quaternions: Float[Tensor, "n 4"], weights: Float[Tensor, " n"], groups: Groups) -> Float[Tensor, "v 4"]:
    """The mean rotation of each voxel, w ≥ 0."""
    means = groups.sum(quaternions, weights)
    voxels, members, shared = groups.shared()
    if len(shared):
        rows = voxels.nonzero().squeeze(1)
        means = means.index_copy(0, rows, mean_rotation(quaternions, weights[members], shared))
    return torch.where(means[:, :1] < 0, -means, means)


def softmax_within(logits: Float[Tensor, " n"], groups: Groups) -> tuple[Float[Tensor, " n"], Float[Tensor, " v"]]:
    """Softmax within each voxel, and the log of its denominator."""
    highest = torch.segment_reduce(logits.detach(), "max", offsets=groups.offsets)
    exponentials = (logits - groups.spread(highest)).exp()
    sums = torch.segment_reduce(exponentials, "sum", offsets=groups.offsets)
    return exponentials / groups.spread(sums), highest + sums.log()


def _average(gaussians: Gaussians, weights: Float[Tensor, " n"], groups: Groups) -> Gaussians:
    """Equation 8: Σ w·a for every attribute."""
    scalars = groups.sum(torch.stack([gaussians.opacities, gaussians.confidences], dim=1), weights)
    return Gaussians(
        means=groups.sum(gaussians.means, weights),
        scales=groups.sum(gaussians.scales, weights),
        quaternions=_rotations(gaussians.quaternions, weights, groups),
        harmonics=groups.sum(gaussians.harmonics.flatten(1), weights).unflatten(1, gaussians.harmonics.shape[1:]),
        opacities=scalars[:, 0],
        confidences=scalars[:, 1],
        features=groups.sum(gaussians.features, weights),
    )
