"""Manifests: which frames of which scene a network sees, and which are held out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ff3r_model.core.errors import UserError

VERSION = 1


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


def make_splits(scene: str, frames: int, views: int, windows: int, stride: int, targets: int) -> list[Split]:
    """`windows` windows spread evenly over a scene, their context views `stride` frames apart.

    The held-out frames lie half-way between context views, spread over the window; a stride of 1 leaves none.
    Raises SplitError where the scene is shorter than a window.
    """
    length = (views - 1) * stride + 1
    if length > frames:
        raise SplitError(f"{scene} has {frames} frames, and {views} views {stride} apart span {length}: lower --stride")
    starts = np.unique(np.linspace(0, frames - length, min(windows, frames)).round().astype(int)).tolist()
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
        data = json.loads(path.read_text())
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']!r} is not {VERSION}")
        splits = [Split(w["scene"], tuple(w["context"]), tuple(w["targets"])) for w in data["windows"]]
        numbers = [number for split in splits for number in (*split.context, *split.targets)]
        if not splits or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("frames must be whole numbers from 0")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SplitError(f"{path} is no manifest of windows: {type(error).__name__} {error}") from error
    return splits
