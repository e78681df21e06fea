"""The voxels of a map as growing columns: one preallocated tensor per attribute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from ff3r_model.voxel_map.rows import VoxelRows


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
    """Dense rows: the first `len` of `capacity` are in use."""

    def __init__(self, layout: Layout, capacity: int, device: torch.device) -> None:
        self.layout = layout
        self.capacity = capacity
        self._count = 0
        self._data = {
            name: torch.zeros(capacity, *shape, dtype=dtype, device=device)
            for name, (shape, dtype) in layout.fields().items()
        }
        """By attribute, with spare room; each grows by itself."""

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> VoxelRows:
        """The rows in use: views, so that what is written into them is kept."""
        return VoxelRows(**{name: column[: self._count] for name, column in self._data.items()})

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return sum(column.nbytes for column in self._data.values())

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` rows, one column after the other."""
        for name, column in self._data.items():
            grown = column.new_zeros(capacity, *column.shape[1:])
            grown[: self._count] = column[: self._count]
            self._data[name] = grown
        self.capacity = capacity

    def blocks(self, size: int) -> Iterator[slice]:
        """The rows in use, `size` at a time."""
        return (slice(start, min(start + size, self._count)) for start in range(0, self._count, size))

    def append(self, values: VoxelRows) -> slice:
        """Add rows, for which there must be room; says which they are. What float16 cannot hold is clamped."""
        added = slice(self._count, self._count + len(values))
        self._count = added.stop
        self.write(added, values)
        return added

    def write(self, rows: slice | Int64[Tensor, " n"], values: VoxelRows) -> None:
        """Replace rows in use. What float16 cannot hold is clamped."""
        for name, column in self._data.items():
            column[rows] = _fit(getattr(values, name), column.dtype)

    def movers(self, victims: Int64[Tensor, " n"]) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
        """Which rows fill which holes when the victims go: (from, to)."""
        left = self._count - len(victims)
        stays = torch.ones_like(victims, dtype=torch.bool)
        stays[victims[victims >= left] - left] = False
        return stays.nonzero().squeeze(1) + left, victims[victims < left]

    def remove(self, victims: Int64[Tensor, " n"]) -> None:
        """Drop rows; the last ones take their places."""
        source, target = self.movers(victims)
        for column in self._data.values():
            column[target] = column[source]
        self._count -= len(victims)


def _fit(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values in a column's type, clamped to what float16 can hold."""
    if dtype == torch.float16 and values.dtype != dtype:
        values = values.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    return values.to(dtype)
