"""Data set of synthetic rooms: windows from shards of rendered rooms, with data augmentation and all that is known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ff3r_model.core.ranges import check_range
from ff3r_model.core.types import MIN_VIEWS
from ff3r_model.training.datasets.base import TOTAL_VIEWS, DataError, Share, check_views
from ff3r_model.training.datasets.batches import TrainingBatch
from ff3r_model.training.datasets.room_shards import SHARDS
from ff3r_model.training.datasets.room_views import make_window

log = logging.getLogger(__name__)

ARRAYS = ("images", "depth", "classes", "colors", "world_from_camera", "intrinsics")
"""Of a shard."""
REFRESH_STEPS = 100
"""Steps between looks at the folder, into which shards may still be rendered."""


@dataclass(frozen=True)
class RoomConfig:
    """How windows are drawn, and their data augmentation."""

    total_views: int = 24
    """Views per step and process, split over equal windows."""
    views: tuple[int, ...] = (2, 3, 4, 5, 8, 8)
    """Views of a window, drawn evenly from these."""
    mirror: bool = True
    """Half of the batches are mirrored left to right."""
    jitter: bool = True
    """Brightness and its offset vary at random."""

    def __post_init__(self) -> None:
        check_views(self.views)
        check_range(self, TOTAL_VIEWS, "total_views")


class RoomWindows:
    """Windows from the shards in a folder; batches repeat exactly as long as no new shards appear in it."""

    def __init__(self, folder: Path, seed: int, config: RoomConfig | None = None) -> None:
        """Raises DataError where the folder holds no shards."""
        self.folder, self.seed, self.config = folder, seed, config or RoomConfig()
        self._shards: dict[str, dict[str, np.ndarray]] = {}
        self._damaged: set[str] = set()
        if not self.refresh():
            raise DataError(
                f"{folder} holds no {SHARDS} that can be read: render some with "
                f"`python -m ff3r_model.training.datasets.room_shards {folder}`"
            )

    def refresh(self) -> int:
        """Load shards that appeared since, but for damaged ones; returns how many rooms there are."""
        for path in sorted(self.folder.glob(SHARDS)):
            if path.name in self._shards or path.name in self._damaged:
                continue
            try:
                self._shards[path.name] = read_shard(path)
            except DataError as error:
                self._damaged.add(path.name)
                log.warning("left out: %s", error)
        return sum(len(shard["images"]) for shard in self._shards.values())

    def batch(self, step: int, share: Share) -> TrainingBatch:
        """This process' windows of a step: of one shard, of equally many views, with their truth."""
        if step % REFRESH_STEPS == 0:
            self.refresh()
        # Draw a shard, and windows of equally many views for all processes.
        rng = np.random.default_rng([self.seed, step])
        wanted = int(rng.choice(self.config.views))
        name = str(rng.choice(sorted(self._shards)))
        shard = self._shards[name]
        rooms, available = shard["images"].shape[:2]
        views = min(wanted, available)
        count = max(1, self.config.total_views // views)
        chosen = rng.choice(rooms, size=count * share.world, replace=count * share.world > rooms)
        drawn = [(int(room), pick(rng, available, views)) for room in chosen]
        # Draw the augmentation, for all processes too.
        mirror, gain = self.config.mirror and bool(rng.random() < 0.5), rng.uniform(0.85, 1.15, len(drawn)).tolist()
        offset = float(rng.uniform(-0.04, 0.04))
        # Make this process' windows.
        mine = share.of(drawn)
        truth = make_window(_stacked(shard, mine), mirror=mirror)
        images = truth.images
        if self.config.jitter:
            gains = truth.images.new_tensor(share.of(gain))[:, None, None, None, None]
            images = (images * gains + offset).clamp(0, 1)
        suffix = "mirrored" if mirror else ""
        ids = tuple(f"rooms/{name}/{room}/{view}{suffix}" for room, picks in mine for view in picks)
        return TrainingBatch(images, ids, truth=truth)


def read_shard(path: Path) -> dict[str, np.ndarray]:
    """A shard's arrays, by name. Raises DataError for a file that is damaged or holds something else."""
    try:
        with np.load(path) as arrays:
            shard = {name: arrays[name] for name in ARRAYS}
    except Exception as error:  # numpy, zipfile and zlib each raise their own
        raise DataError(f"{path} cannot be read as a shard of rooms: {type(error).__name__} {error}") from error
    rooms, views, height, width = (*shard["images"].shape, 0, 0, 0, 0)[:4]
    shapes = {
        "images": (rooms, views, height, width, 3), "depth": (rooms, views, height, width),
        "classes": (rooms, views, height, width), "colors": (rooms, views, height, width),
        "world_from_camera": (rooms, views, 4, 4), "intrinsics": (rooms, 3, 3),
    }  # fmt: skip
    wrong = [name for name, shape in shapes.items() if shard[name].shape != shape]
    if wrong or not rooms or views < MIN_VIEWS:
        found = {name: shard[name].shape for name in wrong or ["images"]}
        raise DataError(f"{path} is no shard of rooms of at least {MIN_VIEWS} views each: it has {found}")
    return shard


def pick(rng: np.random.Generator, available: int, views: int) -> np.ndarray:
    """A random span with an even stride, shuffled half of the time (the paper: random span, shuffled)."""
    stride = int(rng.integers(1, max(1, (available - 1) // max(views - 1, 1)) + 1))
    start = int(rng.integers(0, available - (views - 1) * stride))
    picks = start + stride * np.arange(views)
    if rng.random() < 0.5:
        rng.shuffle(picks)
    return picks


def _stacked(shard: dict[str, np.ndarray], windows: Sequence[tuple[int, np.ndarray]]) -> dict[str, np.ndarray]:
    samples = []
    for room, picks in windows:
        arrays = {name: shard[name][room][picks] for name in shard if name != "intrinsics"}
        samples.append(arrays | {"intrinsics": shard["intrinsics"][room]})
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
