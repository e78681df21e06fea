"""What is read is checked before it is used: descriptions of JSON records and of tables of tensors.

A record is described by a dataclass: its fields' types, and the ranges that its `__post_init__` checks. A table is a
dictionary of `Column`s, whose rows agree.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import torch
from torch import Tensor

from ff3r_model.core.config_file import check_value
from ff3r_model.core.errors import shown
from ff3r_model.core.files import regular_file
from ff3r_model.core.ranges import Range

Kind = TypeVar("Kind")
FINITE = Range(-1e12, 1e12)
"""Of values that are multiplied with others: their squares and sums stay numbers in float32."""
MAX_JSON = 64 * 2**20
"""Bytes of a file of JSON: far more than any of ours."""
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError)
"""What content that nobody has thought of can raise; to be caught around the reading of a file, and nowhere else."""


def json_value(text: str | bytes) -> Any:
    """Parsed JSON. Raises ValueError for anything else, deep nesting and numbers of thousands of digits included."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error


def read_json(path: Path, follow_links: bool = True) -> Any:
    """The JSON in a file. Raises OSError as `regular_file`, ValueError as `json_value` and for one of `MAX_JSON`."""
    with regular_file(path, follow_links) as file:
        text = file.read(MAX_JSON)
    if len(text) == MAX_JSON:
        raise ValueError(f"it is larger than {MAX_JSON >> 20} MiB")
    return json_value(text)


def record(kind: type[Kind], value: Any, where: str) -> Kind:
    """The dataclass that a JSON object describes, every value of its field's type and in its range.

    Fields with a default may be missing. Raises ValueError that names the entry, its value and what is allowed.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {shown(value)}, and should be an object")
    hints = typing.get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(value) - known):
        raise ValueError(
            f"{where} has the unknown fields {shown(', '.join(unknown))[1:-1]}; known are {', '.join(sorted(known))}"
        )
    made = {name: _made(hints[name], each, f"{where}.{name}") for name, each in value.items()}
    try:
        return kind(**made)
    except TypeError as error:
        raise ValueError(f"{where} lacks fields: {str(error).partition('missing ')[2]}") from error
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from error


def _made(hint: Any, value: Any, where: str) -> Any:
    """A value of a record as a field of this type takes it."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in options:
            return None
        return _made(next(option for option in options if option is not NoneType), value, where)
    if is_dataclass(hint):
        return record(hint, value, where)  # type: ignore[arg-type]
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {shown(value)}, and should be an object")
        return {_made(options[0], key, where): _made(options[1], each, f"{where}.{key}") for key, each in value.items()}
    if origin is tuple and isinstance(value, list):
        kinds = [options[0]] * len(value) if options[-1] is Ellipsis else list(options)
        if len(kinds) != len(value):
            raise ValueError(f"{where} has {len(value)} values, and should have {len(kinds)}")
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_made(kind, item, f"{where}[{index}]") for index, (kind, item) in pairs)
    return value if hint is Any else check_value(hint, value, "", where)


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
