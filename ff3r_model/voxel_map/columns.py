"""The voxels of a map as growing columns: one preallocated tensor per attribute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ff3r_model.core.types import Gaussians
from ff3r_model.gaussians.groups import Groups, mean_rotation
from ff3r_model.gaussians.voxelize import VoxelizedGaussians

_LERPED = ("means", "scales", "harmonics", "opacities", "confidences", "features")


@dataclass(frozen=True)
class Layout:
    """What a row holds."""

    channels: int
    bands: int
    compact: bool

    def fields(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each attribute of one voxel."""
        full, small = torch.float32, torch.float16 if self.compact else torch.float32
        return {
            "keys": ((), torch.int64),
            "means": ((3,), full),
            "scales": ((3,), full),
            "quaternions": ((4,), small),
            "harmonics": ((self.bands, 3), small),
            "opacities": ((), full),
            "confidences": ((), full),
            "features": ((self.channels,), small),
            "log_mass": ((), full),
            "last_seen": ((), torch.int32),
            "anchors": ((), torch.int32),
            "norms": ((), full),
        }

    @property
    def row_bytes(self) -> int:
        """Bytes of one voxel."""
        return sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in self.fields().values())


class Columns:
    """Rows of all attributes, dense: rows 0 to `rows` are in use."""

    def __init__(self, layout: Layout, capacity: int, device: torch.device) -> None:
        self.layout, self.rows, self.capacity, self.device = layout, 0, capacity, device
        self._data = {
            name: torch.zeros(capacity, *shape, dtype=dtype, device=device)
            for name, (shape, dtype) in layout.fields().items()
        }

    def __getitem__(self, name: str) -> Tensor:
        """The rows in use of one attribute, a view."""
        return self._data[name][: self.rows]

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return sum(column.nbytes for column in self._data.values())

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` rows, one column after the other."""
        for name, column in self._data.items():
            grown = column.new_zeros(capacity, *column.shape[1:])
            grown[: self.rows] = column[: self.rows]
            self._data[name] = grown
        self.capacity = capacity

    def blocks(self, size: int) -> Iterator[slice]:
        """The rows in use, `size` at a time."""
        return (slice(start, min(start + size, self.rows)) for start in range(0, self.rows, size))

    def take(self, rows: slice | Int64[Tensor, " n"]) -> dict[str, Tensor]:
        """All attributes of some rows, as they are stored."""
        return {name: column[: self.rows][rows] for name, column in self._data.items()}

    def append(self, values: dict[str, Tensor]) -> None:
        """Add rows; there must be room. Values too large for a compact column are clamped."""
        count = len(values["keys"])
        for name, column in self._data.items():
            column[self.rows : self.rows + count] = _fit(values[name], column.dtype)
        self.rows += count

    def write(self, rows: slice | Int64[Tensor, " n"], values: dict[str, Tensor]) -> None:
        """Replace some attributes of some rows."""
        for name, new in values.items():
            self._data[name][rows] = _fit(new, self._data[name].dtype)

    def movers(self, victims: Int64[Tensor, " n"]) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
        """Which rows fill which holes when the victims go: (from, to)."""
        left = self.rows - len(victims)
        stays = torch.ones(len(victims), dtype=torch.bool, device=self.device)
        stays[victims[victims >= left] - left] = False
        return stays.nonzero().squeeze(1) + left, victims[victims < left]

    def remove(self, victims: Int64[Tensor, " n"]) -> None:
        """Drop rows; the last ones take their places."""
        source, target = self.movers(victims)
        for column in self._data.values():
            column[target] = column[source]
        self.rows -= len(victims)

    def merge(self, rows: Int64[Tensor, " n"], values: dict[str, Tensor]) -> None:
        """Merge values into rows, both weighted by their mass; the newer sight and the heavier side's anchor stay.

        The norms are left to the caller.
        """
        old_mass, new_mass = self["log_mass"][rows], values["log_mass"]
        mass = torch.logaddexp(old_mass, new_mass)
        weight = (new_mass - mass).exp()
        anchors = torch.where(new_mass > old_mass, values["anchors"], self["anchors"][rows])
        seen = self["last_seen"][rows].maximum(values["last_seen"])
        merged = {"log_mass": mass, "last_seen": seen, "anchors": anchors}
        for name in _LERPED:
            old = self[name].index_select(0, rows).float()
            merged[name] = old.lerp(values[name], weight.view(-1, *[1] * (old.ndim - 1)))
        old_rotations = self["quaternions"].index_select(0, rows).float()
        merged["quaternions"] = _mean_of_two(old_rotations, values["quaternions"], weight)
        self.write(rows, merged)

    def gaussians(self, rows: Int64[Tensor, " n"] | None = None) -> Gaussians:
        """All rows, or some, as Gaussians in float32: copies."""
        columns = {name: self[name] for name in Gaussians.__dataclass_fields__}
        if rows is not None:
            columns = {name: column.index_select(0, rows) for name, column in columns.items()}
        return Gaussians(**{name: column.to(torch.float32, copy=rows is None) for name, column in columns.items()})


def values_of(voxels: VoxelizedGaussians, keys: Int64[Tensor, " n"], window_id: int, bands: int) -> dict[str, Tensor]:
    """A window's voxels as rows, without their norms."""
    gaussians = voxels.gaussians
    values = {name: getattr(gaussians, name).detach().to(keys.device) for name in Gaussians.__dataclass_fields__}
    values["harmonics"] = values["harmonics"][:, :bands]
    window = torch.full_like(keys, window_id, dtype=torch.int32)
    log_mass = voxels.log_mass.detach().to(keys.device)
    return {"keys": keys, "log_mass": log_mass, "last_seen": window, "anchors": window.clone(), **values}


def _mean_of_two(
    a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"], b_weight: Float[Tensor, " n"]
) -> Float[Tensor, "n 4"]:
    """The mean rotation of each pair of rows."""
    order = torch.arange(2 * len(a), device=a.device)
    pairs = Groups(order.view(2, -1).T.flatten(), torch.arange(0, 2 * len(a) + 1, 2, device=a.device))
    weights = torch.stack([1 - b_weight, b_weight], dim=1).flatten()
    return mean_rotation(torch.cat([a, b]), weights, pairs) if len(a) else a


def _fit(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values in a column's type, clamped to what float16 can hold."""
    if dtype == torch.float16:
        values = values.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    return values.to(dtype)
