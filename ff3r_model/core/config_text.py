"""A configuration as a commented YAML file: what `core.config_file` reads back."""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from ff3r_model.core.config_file import dataclass_of, settable

WIDTH = 100
"""Columns of the comments."""


def config_text(config: Any) -> str:
    """The whole tree as YAML, every field with its docstring as a comment. Reads back as `config`."""
    return "\n".join(_lines(config)) + "\n"


def _lines(config: Any) -> Iterator[str]:
    hints, told = typing.get_type_hints(type(config)), field_docs(type(config))
    for name in settable(type(config)):
        value, inner = getattr(config, name), dataclass_of(hints[name])
        yield from _comment(hints[name], told.get(name, ""))
        if inner is None:
            yield f"{name}: {_scalar(value)}"
        elif value is None:  # an optional section that is off: what it would be
            yield f"{name}: null"
            yield from (f"# {line}" for line in (f"{name}:", *_indented(inner())))
        else:
            yield f"{name}:"
            yield from _indented(value)


def _indented(config: Any) -> Iterator[str]:
    return (f"  {line}" for line in _lines(config))


def _comment(hint: Any, told: str) -> Iterator[str]:
    """What a section is or a field means, and its choices."""
    inner = dataclass_of(hint)
    if inner is not None:
        told = " ".join(filter(None, (inspect.getdoc(inner), told)))
    literals = [part for part in (hint, *get_args(hint)) if get_origin(part) is Literal]
    if choices := [option for literal in literals for option in get_args(literal)]:
        told = f"{told} One of {', '.join(map(str, choices))}.".strip()
    return (f"# {line}" for line in textwrap.wrap(" ".join(told.split()), WIDTH, break_on_hyphens=False))


def _scalar(value: Any) -> str:
    """As YAML writes it, on one line."""
    plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()


def field_docs(kind: type[Any]) -> dict[str, str]:
    """The docstring below each field of a dataclass, by name."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        above.target.id: below.value.value
        for above, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }
