"""Natural sort order of file names: numbers inside them compare as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

_NUMBER = re.compile(r"((?:(?:^|(?<=[_\s=(,]))-)?[0-9]+(?:\.[0-9]+)?)")
"""Digits, with decimals, and with a minus where that does not join two parts of a name (a-1, 2024-01-02)."""
_WHOLE = re.compile(r"([0-9]+)")
_FRACTION = re.compile(r"[0-9]+\.([0-9]+)")
_SEVERAL_DOTS = re.compile(r"[0-9]+\.[0-9]+\.[0-9]")

Key = tuple[list[tuple[int, Decimal, str]], str]


def natural_key(name: str, decimals: bool = True) -> Key:
    """Sorts names by their words and the numbers in them: a2 < a10, a_-1 < a_0.05 < a_0.1 < a_1.25 < a_1.5.

    Without `decimals`, and in names such as 1.10.2, points and dashes separate whole numbers. Names that have the same
    words and numbers (a1, a01) sort as text, so that the order is total.
    """
    number = _NUMBER if decimals and not _SEVERAL_DOTS.search(name) else _WHOLE
    parts = [part for part in number.split(name.lower()) if part]
    return [(0, Decimal(part), "") if number.fullmatch(part) else (1, Decimal(0), part) for part in parts], name


def natural_order(files: Iterable[Path]) -> list[Path]:
    """Files in natural order of their names.

    What follows a point counts on its own where the names show it: camera0.9, camera0.10, camera0.11.
    """
    found = list(files)
    decimals = not _counters([fraction for file in found for fraction in _FRACTION.findall(file.name)])
    return sorted(found, key=lambda file: natural_key(file.name, decimals))


def _counters(fractions: list[str]) -> bool:
    """Whether the digits behind points are numbers of their own: of several lengths, and no decimals are written so."""
    padded = any(len(digits) > 1 and digits.startswith("0") for digits in fractions)
    ends_in_zero = any(len(digits) > 1 and digits.endswith("0") for digits in fractions)
    return ends_in_zero and not padded and len({len(digits) for digits in fractions}) > 1
