"""TUM RGB-D lists: `rgb.txt`, `depth.txt` and `groundtruth.txt`, in order of time, whatever state they are in."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import quaternion_to_matrix, rigid
from ff3r_model.frames.source import SourceError

log = logging.getLogger(__name__)

LARGEST_STAMP = 9e9
"""Seconds: nanoseconds fit into 64 bits up to there."""
UNIT_QUATERNION = 0.1
"""By how much a quaternion's length may differ from 1."""

T = TypeVar("T")


class RgbdError(SourceError):
    """A folder that holds no RGB-D sequence, or a damaged one; the message names what is missing."""


@dataclass(frozen=True)
class Row(Generic[T]):
    """A line that can be used."""

    number: int
    """Among the lines that are neither empty nor comments, from 0."""
    stamp: float
    """Seconds."""
    value: T


def read_files(path: Path) -> list[Row[Path]]:
    """The files of a list of images, sorted by time. Raises RgbdError where no line can be used."""
    return _in_order(_rows(path, lambda words: path.parent / words, "a time and a file"))


def read_poses(path: Path) -> list[Row[Float[Tensor, "4 4"]]]:
    """world_from_camera of a list of poses (stamp tx ty tz qx qy qz qw), sorted by time.

    Raises RgbdError where no line can be used.
    """
    rows = _in_order(_rows(path, _pose, "eight numbers with a quaternion of length 1"))
    values = torch.tensor([row.value for row in rows], dtype=torch.float64).reshape(-1, 7)
    poses = rigid(quaternion_to_matrix(values[:, [6, 3, 4, 5]]), values[:, :3]).float()
    return [Row(row.number, row.stamp, pose) for row, pose in zip(rows, poses, strict=True)]


def _in_order(rows: list[Row[T]]) -> list[Row[T]]:
    """Sorted by time; of those at one time the first."""
    first = {row.stamp: row for row in reversed(rows)}
    return [first[stamp] for stamp in sorted(first)]


def _rows(path: Path, value: Callable[[str], T], needed: str) -> list[Row[T]]:
    """Lines that cannot be used are left out, which is said with their numbers."""
    rows, bad = list[Row[T]](), list[str]()
    for line_number, line in enumerate(_read(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            stamp, words = re.split(r"[\s,;]+", line, maxsplit=1)
            rows.append(Row(len(rows) + len(bad), _stamp(stamp), value(words.strip(" ,;"))))
        except ValueError:
            bad.append(f"line {line_number} ({line[:40]!r})")
    told = f"{path}: {len(bad)} lines are not {needed}: {', '.join(bad[:3])}"
    if not rows:
        raise RgbdError(told if bad else f"{path} holds no line with {needed}")
    if bad:
        log.warning("%s; left out", told)
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise RgbdError(f"{path} cannot be read: {error.strerror}") from error


def _stamp(word: str) -> float:
    stamp = float(word)
    if not 0 <= stamp < LARGEST_STAMP:  # also what is not a number
        raise ValueError(f"{word} is no time in seconds")
    return stamp


def _pose(words: str) -> list[float]:
    values = [float(word) for word in re.split(r"[\s,;]+", words)]
    if len(values) != 7 or not all(map(math.isfinite, values)):
        raise ValueError("seven finite numbers are needed")
    if abs(math.hypot(*values[3:]) - 1) > UNIT_QUATERNION:
        raise ValueError("the quaternion has not the length 1")
    return values


def read_numbers(path: Path, count: int) -> Float[Tensor, " count"]:
    """All numbers in a file. Raises RgbdError."""
    try:
        values = [float(word) for word in path.read_text().replace(",", " ").split()]
    except (OSError, ValueError) as error:
        raise RgbdError(f"{path} cannot be read: {error}") from error
    if len(values) != count:
        raise RgbdError(f"{path} holds {len(values)} numbers, {count} are needed")
    return torch.tensor(values, dtype=torch.float64)
