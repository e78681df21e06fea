"""Manifests: which frames of which scene a network sees, and which are held out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ff3r_model.core.checked import read_json, record
from ff3r_model.core.errors import UserError, shown
from ff3r_model.core.ranges import Range
from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS

VERSION = 1
MAX_FRAMES = 10**9


class EvaluationError(UserError):
    """A range, a manifest, or a file of results that makes no sense."""


class SplitError(EvaluationError):
    """A manifest that cannot be read, or a scene too short for one."""


@dataclass(frozen=True)
class Split:
    """One window: frames by their place among the scene's frames."""

    scene: str
    context: tuple[int, ...]
    """What the network sees, in the order in which it was taken."""
    targets: tuple[int, ...]
    """Held out."""

    def __post_init__(self) -> None:
        if not MIN_VIEWS <= len(self.context) <= MAX_VIEWS:
            raise ValueError(f"context must have {MIN_VIEWS} to {MAX_VIEWS} frames, not {len(self.context)}")
        if not all(number in Range(0, MAX_FRAMES) for number in (*self.context, *self.targets)):
            raise ValueError(f"context and targets must be frames from 0 to {MAX_FRAMES}, not {shown(self)}")


def make_splits(scene: str, frames: int, views: int, windows: int, stride: int, targets: int) -> list[Split]:
    """`windows` windows spread evenly over a scene, their context views `stride` frames apart.

    The held-out frames lie half-way between context views, spread over the window; a stride of 1 leaves none.
    Raises SplitError where the scene is shorter than a window.
    """
    length = (views - 1) * stride + 1
    if length > frames:
        raise SplitError(f"{scene} has {frames} frames, and {views} views {stride} apart span {length}: lower --stride")
    starts = np.unique(np.linspace(0, frames - length, windows).round().astype(int)).tolist()
    gaps = np.unique(np.linspace(0, views - 2, min(targets, views - 1) + 2)[1:-1].round().astype(int)).tolist()
    between = [gap * stride + stride // 2 for gap in gaps] if stride > 1 else []
    return [Split(scene, tuple(range(s, s + length, stride)), tuple(s + offset for offset in between)) for s in starts]


def write_manifest(path: Path, splits: Iterable[Split]) -> None:
    """One line per window."""
    lines = ",\n  ".join(json.dumps(asdict(split)) for split in splits)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"version": {VERSION}, "windows": [\n  {lines}\n]}}\n')


def read_manifest(path: Path) -> list[Split]:
    """The windows of a manifest. Raises SplitError."""
    try:
        return list(record(_Manifest, read_json(path), "it").windows)
    except (OSError, ValueError) as error:
        raise SplitError(f"{path} is no manifest of windows: {error}") from error


@dataclass(frozen=True)
class _Manifest:
    """The JSON of a manifest."""

    version: int
    windows: tuple[Split, ...]

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"version is {self.version}, and should be {VERSION}")
        if not self.windows:
            raise ValueError("windows is empty")
