"""Voxels as a structure of arrays: one row per voxel, one tensor per attribute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from ff3r_model.core.types import Gaussians
from ff3r_model.gaussians.voxelize import VoxelizedGaussians


@dataclass(frozen=True)
class VoxelRows:
    """n voxels, each a Gaussian with a feature, with its cell, its mass and where it comes from.

    Floats are float32; the store may keep quaternions, harmonics and features in float16.
    """

    keys: Int64[Tensor, " n"]
    """Of the cells, as `hash_index.pack` makes them."""
    means: Float[Tensor, "n 3"]
    scales: Float[Tensor, "n 3"]
    quaternions: Float[Tensor, "n 4"]
    harmonics: Float[Tensor, "n bands 3"]
    opacities: Float[Tensor, " n"]
    confidences: Float[Tensor, " n"]
    features: Float[Tensor, "n channels"]
    log_mass: Float[Tensor, " n"]
    """log Σ exp(C − λd) over all Gaussians that entered the voxel: what it weighs when it is merged."""
    last_seen: Int32[Tensor, " n"]
    """The newest window that saw it."""
    anchors: Int32[Tensor, " n"]
    """The window that it moves with."""
    norms: Float[Tensor, " n"]
    """Lengths of the features in the text's space; 0 where nobody knows them."""

    def __len__(self) -> int:
        return self.keys.shape[0]

    @classmethod
    def of_window(cls, voxels: VoxelizedGaussians, keys: Int64[Tensor, " n"], window_id: int, bands: int) -> VoxelRows:
        """A window's voxels as rows on the device of `keys`, seen by it and anchored to it, without their norms."""
        gaussians = {name: getattr(voxels.gaussians, name).detach().to(keys.device) for name in GAUSSIANS}
        window = torch.full_like(keys, window_id, dtype=torch.int32)
        return cls(
            **{**gaussians, "harmonics": gaussians["harmonics"][:, :bands]},
            keys=keys,
            log_mass=voxels.log_mass.detach().to(keys.device),
            last_seen=window,
            anchors=window.clone(),
            norms=torch.zeros_like(keys, dtype=torch.float32),
        )

    @classmethod
    def concatenated(cls, parts: Sequence[VoxelRows]) -> VoxelRows:
        """The rows of all parts, one after the other, each attribute in the widest of its types."""
        return cls(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)})

    def select(self, index: slice | Int64[Tensor, " m"]) -> VoxelRows:
        """Some rows: views for a slice, copies for indices."""
        if isinstance(index, slice):
            return self._each(lambda column: column[index])
        return self._each(lambda column: column.index_select(0, index))

    def to(self, device: torch.device) -> VoxelRows:
        """The same rows on a device."""
        return self._each(lambda column: column.to(device))

    def gaussians(self, rows: Int64[Tensor, " m"] | None = None) -> Gaussians:
        """All rows, or some, as Gaussians in float32: copies."""
        columns = {name: getattr(self, name) for name in GAUSSIANS}
        if rows is not None:
            columns = {name: column.index_select(0, rows) for name, column in columns.items()}
        return Gaussians(**{name: column.to(torch.float32, copy=rows is None) for name, column in columns.items()})

    def _each(self, change: Callable[[Tensor], Tensor]) -> VoxelRows:
        return VoxelRows(**{name: change(column) for name, column in vars(self).items()})


GAUSSIANS = tuple(field.name for field in fields(Gaussians))
"""The attributes that make a row a Gaussian."""
