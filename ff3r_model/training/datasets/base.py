"""The interface of data sets: scenes with views for each layout on disk, batches of windows for the trainer."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch.distributed as dist
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ff3r_model.core.errors import UserError
from ff3r_model.core.ranges import Range
from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS
from ff3r_model.training.datasets.batches import TrainingBatch

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Kind = TypeVar("Kind")
TOTAL_VIEWS = Range(1, 4096)
"""Views per step and process, at most far more than any memory holds."""


@dataclass(frozen=True)
class View:
    """One picture of a scene and what its data set knows about it."""

    id: str
    """Names the pixels for good: data set, scene, frame."""
    image: UInt8[Tensor, "height width 3"]
    intrinsics: Float[Tensor, "3 3"] | None = None
    """In the image's pixels."""
    world_from_camera: Float[Tensor, "4 4"] | None = None
    """OpenCV axes, in the data set's unit (ScanNet: metres; DL3DV: its own)."""
    depth: Float[Tensor, "height width"] | None = None
    """z in metres, registered to the image; 0 where unknown."""
    labels: Int[Tensor, "height width"] | None = None
    """Index into the data set's classes; -1 where unlabelled."""


@runtime_checkable
class Scene(Protocol):
    """Views of one place, in the order in which they were taken."""

    name: str

    def __len__(self) -> int: ...

    def view(self, index: int) -> View:
        """The view at `index`, read anew. Raises DataError for a file that cannot be read."""
        ...


@runtime_checkable
class Windows(Protocol):
    """Batches of windows by the number of the step: the same number always gives the same batch."""

    def batch(self, step: int, share: Share) -> TrainingBatch:
        """This process' part of what step `step` sees; with n times the windows per step, n processes see the same."""
        ...


class _ByStep(Dataset[TrainingBatch]):
    def __init__(self, windows: Windows, share: Share) -> None:
        self.windows, self.share = windows, share

    def __getitem__(self, step: int) -> TrainingBatch:
        return self.windows.batch(step, self.share)


class _From:
    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.first)


def stream(windows: Windows, first: int, share: Share, workers: int) -> Iterator[TrainingBatch]:
    """The batches of steps `first`, `first` + 1, …, endlessly; `workers` processes read ahead."""
    if not workers:
        return (windows.batch(step, share) for step in itertools.count(first))
    loader: DataLoader[TrainingBatch] = DataLoader(
        _ByStep(windows, share), batch_size=None, sampler=_From(first), num_workers=workers, prefetch_factor=4
    )
    return iter(loader)


def check_views(views: tuple[int, ...]) -> None:
    """Raise ValueError for numbers of views that no window has."""
    if not views or not all(MIN_VIEWS <= count <= MAX_VIEWS for count in views):
        raise ValueError(f"views must be one or more numbers of {MIN_VIEWS} to {MAX_VIEWS}, not {list(views)}")


class DataError(UserError):
    """Training data that cannot be used."""


def opened(paths: Sequence[Path], open_scene: Callable[[Path], Kind]) -> list[Kind]:
    """The scenes at `paths` but for those that cannot be used, which the log names. Raises DataError if none can."""
    scenes, errors = list[Kind](), list[DataError]()
    for path in paths:
        try:
            scenes.append(open_scene(path))
        except DataError as error:
            errors.append(error)
    if errors and not scenes:
        raise errors[0]
    for reason in errors:
        log.warning("left out: %s", reason)
    return scenes


@dataclass(frozen=True)
class Share:
    """Which of the processes this one is."""

    rank: int = 0
    world: int = 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process' equal part of what a step draws for all (as many as `world` divides)."""
        count = len(items) // self.world
        return items[self.rank * count : (self.rank + 1) * count]

    def agreed(self, value: float) -> float:
        """The first process' value, in all processes: clocks differ, and all must stop at the same step."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]
