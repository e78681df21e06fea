"""Ranges of configuration values, checked where a configuration is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LARGEST = 2.0**62
"""What is as large is no setting of anything, and would overflow where it is used."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, the ends included; `above` leaves the lower end out."""

    low: float | int = -LARGEST
    high: float | int = LARGEST
    above: bool = False

    def __contains__(self, value: float | int) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if self.high < LARGEST:
            return f"{'above ' if self.above else ''}{self.low:g} to {self.high:g}"
        return "positive" if self.above and self.low == 0 else f"at least {self.low:g}"


POSITIVE = Range(0, above=True)
NOT_NEGATIVE = Range(0)
AT_LEAST_ONE = Range(1)
SHARE = Range(0, 1)


def check_range(config: Any, allowed: Range, *names: str) -> None:
    """Raise ValueError for one of these fields of `config` that is outside the range; None is in every range."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value not in allowed:
            raise ValueError(f"{name} must be {allowed}, not {value}")
