"""Semantic-aware voxelization (voxel downsampling), the paper's equations 5 to 8: one Gaussian per occupied voxel.

One implementation for every device. A stable sort of short integer keys brings the Gaussians of a voxel together; then
every sum over a voxel is a weighted embedding bag, which reads the attributes where they lie instead of sorting them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ff3r_model.core.types import Gaussians
from ff3r_model.gaussians.groups import Groups, group, mean_rotation, softmax_within

log = logging.getLogger(__name__)

CELL_LIMIT = 2**20 - 1
"""Largest cell coordinate: three of them, with signs, fit one 64-bit key."""
_CPU_BLOCK = 2**12
"""Gaussians per step of `semantic_distance` on a CPU, where a step's features should stay in the cache."""
_BLOCK = 2**22
"""The same elsewhere, where launches cost more."""


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


def voxelize(gaussians: Gaussians, config: VoxelizeConfig) -> VoxelizedGaussians:
    """Merge the Gaussians of each cell of edge ε into one.

    Equation 5 gives the cell, round(mean / ε); equation 6 the prototype, the plain mean of the members' features;
    equation 7 the weights, the softmax over the cell of C − λ·(1 − cos(feature, prototype)); equation 8 every
    attribute, Σ w·a, where rotations are averaged as rotations (`mean_rotation`, here with w ≥ 0). Gaussians with
    values that are not finite or cells out of range are dropped and counted. Differentiable in all attributes.
    """
    # Leave out what cannot be placed.
    usable = _usable(gaussians, config.epsilon)
    dropped = len(gaussians) - int(usable.sum())
    if dropped:
        log.warning("voxelization leaves out %d of %d Gaussians: not finite or out of range", dropped, len(usable))
        gaussians = gaussians.select(usable)
    # Equation 5: cells, and who shares one.
    cells = cells_of(gaussians.means, config.epsilon)
    if not len(cells):
        return VoxelizedGaussians(gaussians, cells, gaussians.confidences, config.epsilon, dropped)
    groups = group(cells)
    # Equations 6 and 7: prototypes, and weights by confidence and semantic distance to them.
    weights, log_mass = softmax_within(_logits(gaussians, groups, config.distance_weight), groups)
    # Equation 8: one weighted mean per cell.
    occupied = cells.index_select(0, groups.order[groups.offsets[:-1]])
    return VoxelizedGaussians(_average(gaussians, weights, groups), occupied, log_mass, config.epsilon, dropped)


def cells_of(means: Float[Tensor, "n 3"], epsilon: float) -> Int[Tensor, "n 3"]:
    """Equation 5: the cell whose centre, a multiple of ε, is nearest."""
    return torch.round(means.detach() / epsilon).int()


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
