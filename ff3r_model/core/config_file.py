"""Configuration files: a tree of dataclasses from YAML, with every key, type and range checked.

The keys are the fields' names. A file states what differs from the defaults; what it does not state stays.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from ff3r_model.core.errors import UserError, shown
from ff3r_model.core.files import regular_file

Kind = TypeVar("Kind")
Tree = dict[str, Any]
"""Values by name; a section is a tree of its own."""
MAX_BYTES = 2**20
"""Of a configuration file: a hundred times a whole one."""
NOT_IN_FILES = {"in_files": False}
"""Metadata of a field that code alone sets: no key of a file."""
EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used; the message names the file, the key, its value and what is allowed."""


def load_config(
    kind: type[Kind],
    path: Path | None = None,
    over: Mapping[str, Any] | None = None,
    under: Mapping[str, Any] | None = None,
) -> Kind:
    """A configuration from a YAML file (None: no file), between values that go before it and after it.

    `over` wins over the file and `under` gives way to it; both are values by dotted path, such as {"window.views": 8},
    of which None leaves a key alone. Raises ConfigError for a file, a key or a value that cannot be used.
    """
    where = "" if path is None else f"{path}: "
    stated = {} if path is None else check_tree(kind, read_tree(path), where)
    return build(kind, _nested(under or {}), stated, _nested(over or {}), where)


def read_tree(path: Path) -> Tree:
    """The mapping in a YAML (or JSON) file, unchecked. Raises ConfigError where there is none."""
    from ff3r_model.core import yaml_text  # here, so that checkpoints, whose records are checked below, need no YAML

    try:
        with regular_file(path) as file:
            text = file.read(MAX_BYTES)
        if len(text) == MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 10} KiB")
        stated = yaml_text.parse(text)
    except RecursionError as error:
        raise ConfigError(f"{path} cannot be read as YAML: it is nested too deeply") from error
    except (OSError, ValueError, yaml_text.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if stated is None:
        return {}
    if not isinstance(stated, dict):
        raise ConfigError(f"{path} should hold sections and keys, as `ff3r config` prints them, not {shown(stated)}")
    return stated


def check_tree(kind: type[Any], tree: Any, where: str = "", section: str = "") -> Tree:
    """The tree with its values as the fields of `kind` take them; `where` stands before the key in messages.

    Raises ConfigError for an unknown key, with the closest one that is known, and for a value of a wrong type.
    """
    if tree is None:  # `section:` with nothing below
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}{section} = {tree!r}: expected a section with keys {', '.join(settable(kind))}")
    hints, known = typing.get_type_hints(kind), settable(kind)
    for name in tree:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
            owner = f"{where}{section}" if section else where.removesuffix(": ") or "the configuration"
            raise ConfigError(f"{owner} has no {name}; {hint}")
    prefix = f"{section}." if section else ""
    return {name: check_value(hints[name], value, where, f"{prefix}{name}") for name, value in tree.items()}


def build(kind: type[Kind], under: Tree, stated: Tree, over: Tree, where: str = "", section: str = "") -> Kind:
    """The dataclass with the values of a file (`stated`, as `check_tree` gives them) between those of two other trees.

    Raises ConfigError with what the dataclass says of values out of their range; with file and section unless the value
    is one of `over`.
    """
    hints, given = typing.get_type_hints(kind), under | stated | over
    for name, value in given.items():
        inner = dataclass_of(hints[name])
        if inner is not None and value is not None:
            path = f"{section}.{name}" if section else name
            below, file, above = (tree.get(name) or {} for tree in (under, stated, over))
            given[name] = build(inner, below, file, above, where, path)
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        name = str(error).partition(" ")[0]  # our messages begin with the field's name
        if not stated or name in over:
            raise ConfigError(str(error)) from error
        joint = "" if not section else "." if name in hints else ": "
        raise ConfigError(f"{where}{section}{joint}{error}") from error


def _nested(values: Mapping[str, Any]) -> Tree:
    """{"a.b": 1} as {"a": {"b": 1}}, without what is None."""
    tree: Tree = {}
    for path, value in values.items():
        if value is None:
            continue
        *sections, name = path.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return tree


def settable(kind: type[Any]) -> list[str]:
    """Names of the fields that a file may set."""
    return [field.name for field in fields(kind) if field.metadata.get("in_files", True)]


def dataclass_of(hint: Any) -> type[Any] | None:
    """The dataclass that a field holds, be it optional; None for others."""
    return next((option for option in (hint, *get_args(hint)) if is_dataclass(option)), None)  # type: ignore[return-value]


def check_value(hint: Any, value: Any, where: str, key: str) -> Any:
    """The value as a field of this type takes it; `where` stands before the key in messages. Raises ConfigError."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in options:
            return None
        return check_value(next(option for option in options if option is not NoneType), value, where, key)
    if is_dataclass(hint):
        return check_tree(hint, value, where, key)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in options:
            raise ConfigError(f"{where}{key} = {shown(value)}: allowed are {', '.join(map(str, options))}")
        return value
    if origin is tuple:
        return _checked_tuple(options, value, where, key)
    if hint is float and type(value) in (int, float):
        try:
            return float(value)
        except OverflowError as error:  # a whole number of hundreds of digits
            raise ConfigError(f"{where}{key} is beyond any number that a computer holds") from error
    if hint is Path and isinstance(value, str):
        return Path(value).expanduser()
    if type(value) is not hint:
        raise ConfigError(f"{where}{key} = {shown(value)}: expected {EXPECTED[hint]}")
    return value


def _checked_tuple(options: tuple[Any, ...], value: Any, where: str, key: str) -> tuple[Any, ...]:
    """A list of the file as a tuple."""
    if not isinstance(value, list):
        raise ConfigError(f"{where}{key} = {shown(value)}: expected a list in square brackets")
    kinds = [options[0]] * len(value) if options[-1] is Ellipsis else list(options)
    if len(kinds) != len(value):
        raise ConfigError(f"{where}{key} = {shown(value)}: expected {len(kinds)} values")
    return tuple(check_value(kind, item, where, key) for kind, item in zip(kinds, value, strict=True))
