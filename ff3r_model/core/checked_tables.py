"""Tables of tensors that are checked before they are used: dictionaries of `Column`s, whose rows agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ff3r_model.core.ranges import Range

FINITE = Range(-1e12, 1e12)
"""Of values that are multiplied with others: their squares and sums stay numbers in float32."""


@dataclass(frozen=True)
class Column:
    """What a tensor of a file must be."""

    dtype: torch.dtype
    shape: tuple[int | str, ...]
    """A name stands for a size that is the same wherever the name is; all names but `rows` for at least 1."""
    allowed: Range | None = FINITE
    """Of every value, which is then a number; None: any value."""
    optional: bool = False
    """Older files do without it."""


Table = Mapping[str, Column]


def check_table(table: Table, tensors: Mapping[str, Tensor], where: str = "") -> dict[str, int]:
    """Raise ValueError unless `tensors` has the table's columns, of their types, shapes and ranges.

    Tensors that the table does not name are not looked at. Returns the sizes that its names stand for.
    """
    sizes: dict[str, int] = {}
    for name, column in table.items():
        tensor = tensors.get(name)
        if tensor is None:
            if column.optional:
                continue
            raise ValueError(f"{where}{name} is missing")
        if tensor.dtype is not column.dtype:
            raise ValueError(f"{where}{name} is of type {tensor.dtype}, and should be {column.dtype}")
        _check_shape(tensor, column, sizes, f"{where}{name}")
        if column.allowed is not None:
            check_values(tensor, column.allowed, f"{where}{name}")
    return sizes


def _check_shape(tensor: Tensor, column: Column, sizes: dict[str, int], where: str) -> None:
    wanted = "[" + ", ".join(str(sizes.get(str(side), side)) for side in column.shape) + "]"
    fits = tensor.ndim == len(column.shape)
    for side, size in zip(column.shape, tensor.shape, strict=False):
        least = 0 if side == "rows" else 1
        fits = fits and size >= least and size == (sizes.setdefault(side, size) if isinstance(side, str) else side)
    if not fits:
        raise ValueError(f"{where} is {list(tensor.shape)}, and should be {wanted}")


def check_values(tensor: Tensor, allowed: Range, where: str) -> None:
    """Raise ValueError for a value that is no number, or out of range: named with its place."""
    if not tensor.numel():
        return
    low, high = (float(end) for end in tensor.aminmax())  # NaN where there is one
    if low in allowed and high in allowed:
        return
    values = tensor.flatten().double()
    wrong = ~((values >= allowed.low) & (values <= allowed.high))
    if allowed.above:
        wrong |= values == allowed.low
    place = int(wrong.int().argmax())
    raise ValueError(f"{where} must be {allowed}, not {float(values[place])!r} (value {place})")


def check_rows(good: Tensor, where: str, what: str) -> None:
    """Raise ValueError naming the first row that is not good; `good`: one truth value per row."""
    if not bool(good.all()):
        raise ValueError(f"{where}: {what} in row {int((~good).int().argmax())}")
