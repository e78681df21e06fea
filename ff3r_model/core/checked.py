"""JSON that is checked before it is used: a record is described by a dataclass.

Its fields' types, and the ranges that its `__post_init__` checks. Tables of tensors: `checked_tables`.
"""

from __future__ import annotations

import json
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from ff3r_model.core.config_file import check_value
from ff3r_model.core.errors import shown
from ff3r_model.core.files import regular_file

Kind = TypeVar("Kind")
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
