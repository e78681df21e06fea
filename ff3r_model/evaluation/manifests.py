"""Manifests: which frames of which scene a network sees, and which are held out."""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ff3r_model.core.checked import read_json, record
from ff3r_model.core.errors import shown
from ff3r_model.core.ranges import Range
from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS
from ff3r_model.evaluation.errors import EvaluationError

VERSION = 1
MAX_FRAMES = 10**9


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


def make_splits(scene: str, numbers: Sequence[int], views: int, windows: int, stride: int, targets: int) -> list[Split]:
    """`windows` windows spread evenly over a scene, their context views `stride` numbers apart.

    `numbers` grow from frame to frame: 0, 1, 2, … or what stands in file names, of which a quarter of the stride may
    be missed. The held-out frames lie half-way between context views, spread over the window; a stride of 1 leaves
    none. Raises SplitError where no window fits.
    """
    contexts = [context for start in range(len(numbers)) if (context := _context(numbers, start, views, stride))]
    if not contexts:
        raise SplitError(
            f"{scene} has {len(numbers)} frames, numbers {numbers[0]} to {numbers[-1]}, and no {views} of them are "
            f"{stride} apart: lower --stride, or let it count the numbers in file names (--by-number)"
        )
    starts = np.linspace(0, len(contexts) - 1, min(windows, len(contexts)))
    chosen = [contexts[i] for i in np.unique(starts.round().astype(int))]
    gaps = np.unique(np.linspace(0, views - 2, min(targets, views - 1) + 2)[1:-1].round().astype(int)).tolist()
    return [Split(scene, context, _between(numbers, context, gaps, stride)) for context in chosen]


def _context(numbers: Sequence[int], start: int, views: int, stride: int) -> tuple[int, ...]:
    """Frames from `start` on, each nearest to `stride` numbers after the one before; none where one is missing."""
    context = [start]
    while len(context) < views:
        following = _nearest(numbers, numbers[context[-1]] + stride, stride / 4)
        if following is None or following <= context[-1]:
            return ()
        context.append(following)
    return tuple(context)


def _between(numbers: Sequence[int], context: tuple[int, ...], gaps: list[int], stride: int) -> tuple[int, ...]:
    """The frames half-way through gaps of a window, where there are any."""
    found = (_nearest(numbers, numbers[context[gap]] + stride // 2, stride / 4) for gap in gaps)
    return tuple(frame for frame in found if frame is not None and frame not in context)


def _nearest(numbers: Sequence[int], wanted: int, within: float) -> int | None:
    """The place of the number nearest to `wanted`."""
    after = bisect.bisect_left(numbers, wanted)
    near = min(
        range(max(after - 1, 0), min(after + 1, len(numbers))), key=lambda i: abs(numbers[i] - wanted), default=0
    )
    return near if abs(numbers[near] - wanted) <= within else None


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
