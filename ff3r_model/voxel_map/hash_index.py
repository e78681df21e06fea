"""A vectorised hash index: 64-bit cell keys → rows of the map's columns."""

from __future__ import annotations

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from ff3r_model.gaussians.voxelize import CELL_LIMIT

MAX_LOAD = 0.7
"""Share of the slots in use at which probing is still short."""
BYTES_PER_SLOT = 4
_EMPTY, _REMOVED = -1, -2
_MULTIPLIER = -7046029254386353131
"""Fibonacci hashing: 2⁶⁴ / φ, as a signed number."""
_BITS = 21
_BLOCK = 2**18
"""Keys per step of a rebuild, which bounds its working memory."""


def pack(cells: Int[Tensor, "n 3"]) -> Int64[Tensor, " n"]:
    """One key per cell; coordinates within ±CELL_LIMIT."""
    x, y, z = (cells.long() + CELL_LIMIT).unbind(1)
    return (x << 2 * _BITS) | (y << _BITS) | z


def unpack(keys: Int64[Tensor, " n"]) -> Int[Tensor, "n 3"]:
    """The cells of keys, int32."""
    mask = 2**_BITS - 1
    return torch.stack([keys >> 2 * _BITS, (keys >> _BITS) & mask, keys & mask], dim=1).int() - CELL_LIMIT


def slots_for(rows: int) -> int:
    """The smallest power of two that holds `rows` at `MAX_LOAD`."""
    return 1 << max(4, (max(1, int(rows / MAX_LOAD))).bit_length())


class HashIndex:
    """Open addressing with linear probing. A slot holds a row; the keys themselves are in the map's key column.

    All keys of a call are probed at once, so a call takes time linear in its keys and a few dozen tensor operations,
    whatever the size of the map.
    """

    def __init__(self, rows: int, device: torch.device | str = "cpu") -> None:
        self._table = torch.full((slots_for(rows),), _EMPTY, dtype=torch.int32, device=device)
        self._removed = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self._table.nbytes

    @property
    def slots(self) -> int:
        """Size of the table."""
        return len(self._table)

    def find(self, keys: Int64[Tensor, " n"], column: Int64[Tensor, " rows"]) -> Int64[Tensor, " n"]:
        """The row of each key, −1 where there is none. `column` holds the key of each row."""
        slots = self._slots_of(keys, column)
        rows = self._table[slots.clamp_min(0)].long()
        return torch.where(slots < 0, -1, rows)

    def insert(self, keys: Int64[Tensor, " n"], rows: Int64[Tensor, " n"]) -> None:
        """Add keys that differ from each other and are not in the index. The caller keeps the load in bounds."""
        slots, values = self._home(keys), rows.int()
        while len(values):
            before = self._table[slots]
            free = before < 0
            self._table[slots[free]] = values[free]
            settled = free & (self._table[slots] == values)
            self._removed -= int((before[settled] == _REMOVED).sum())
            slots, values = (slots[~settled] + 1) & (self.slots - 1), values[~settled]

    def remove(self, keys: Int64[Tensor, " n"], column: Int64[Tensor, " rows"]) -> None:
        """Forget keys that are in the index."""
        self._table[self._slots_of(keys, column)] = _REMOVED
        self._removed += len(keys)

    def move(self, keys: Int64[Tensor, " n"], rows: Int64[Tensor, " n"], column: Int64[Tensor, " rows"]) -> None:
        """Let keys that are in the index point to other rows."""
        self._table[self._slots_of(keys, column)] = rows.int()

    def rebuild(self, column: Int64[Tensor, " rows"]) -> None:
        """Start afresh with the keys of all rows."""
        self._table.fill_(_EMPTY)
        self._removed = 0
        for keys, rows in zip(column.split(_BLOCK), torch.arange(len(column)).split(_BLOCK), strict=True):
            self.insert(keys, rows.to(column.device))

    def crowded(self, rows: int) -> bool:
        """Whether `rows` keys and the traces of removed ones make probing long."""
        return rows + self._removed > MAX_LOAD * self.slots

    def _home(self, keys: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return ((keys * _MULTIPLIER) >> 32) & (self.slots - 1)

    def _slots_of(self, keys: Int64[Tensor, " n"], column: Int64[Tensor, " rows"]) -> Int64[Tensor, " n"]:
        """The slot of each key, −1 where it is not in the index."""
        found = torch.full_like(keys, -1)
        slots, waiting = self._home(keys), torch.arange(len(keys), device=keys.device)
        while len(waiting):
            rows = self._table[slots].long()
            hit = rows >= 0
            hit[hit.clone()] = column[rows[hit]] == keys[waiting[hit]]
            found[waiting[hit]] = slots[hit]
            onward = ~hit & (rows != _EMPTY)
            slots, waiting = (slots[onward] + 1) & (self.slots - 1), waiting[onward]
        return found
