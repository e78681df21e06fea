"""Training windows from procedural rooms: rendered once into shards, sampled many times."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ff3r_model.synthetic import make_room, make_trajectory, render
from ff3r_model.training.views import Views, make_views

log = logging.getLogger(__name__)

SIZES = ((112, 112), (84, 112), (112, 84))
"""Height and width of the rendered views; one per shard."""
FIRST_TRAINING_SEED = 100_000
"""Rooms below it are kept for demo, tests and evaluation."""
KINDS = ("random", "random", "random", "handheld", "robot")
"""Trajectory kinds, drawn evenly."""


def render_shard(first_seed: int, rooms: int, views: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """`views` views of each of `rooms` rooms (seeds first_seed, first_seed + 1, …) as compact arrays."""
    parts: list[dict[str, np.ndarray]] = []
    for seed in range(first_seed, first_seed + rooms):
        parts.append(_render_room(seed, views, size))
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _render_room(seed: int, views: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    height, width = size
    focal = width / 2 / np.tan(np.radians(rng.uniform(50, 85)) / 2)
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float32)
    room = make_room(seed)
    kind = str(rng.choice(KINDS))
    step = float(rng.uniform(0.25, 0.6)) if kind == "random" else float(rng.uniform(0.12, 0.35))
    poses = make_trajectory(room, seed, views, kind=kind, step=step)
    rendered = render(room, poses, intrinsics.expand(views, 3, 3), height, width)
    return {
        "images": rendered.images.numpy(),
        "depth": rendered.depth.numpy().astype(np.float16),
        "classes": rendered.classes.numpy().astype(np.int8),
        "colors": rendered.colors.numpy().astype(np.int8),
        "world_from_camera": poses.numpy().astype(np.float64),
        "intrinsics": intrinsics.numpy(),
    }


class RoomPool:
    """Shards in a folder, loaded as they appear, from which windows are drawn at random."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self._rng = np.random.default_rng(seed)
        self._shards: dict[str, dict[str, np.ndarray]] = {}

    def refresh(self) -> int:
        """Load shards that appeared since; returns how many rooms there are."""
        for path in sorted(self.folder.glob("shard_*.npz")):
            if path.name not in self._shards:
                with np.load(path) as arrays:
                    self._shards[path.name] = {name: arrays[name] for name in arrays.files}
        return sum(len(shard["images"]) for shard in self._shards.values())

    def windows(self, total_views: int, choices: tuple[int, ...]) -> Iterator[Views]:
        """Batches of equal windows holding about `total_views` views in all, endlessly."""
        while True:
            views = int(self._rng.choice(choices))
            shard = self._shards[str(self._rng.choice(list(self._shards)))]
            yield self._draw(shard, views, max(1, total_views // views))

    def _draw(self, shard: dict[str, np.ndarray], views: int, batch: int) -> Views:
        rooms = self._rng.choice(len(shard["images"]), size=batch, replace=batch > len(shard["images"]))
        samples = []
        for room in rooms:
            picks = self._pick(shard["images"].shape[1], views)
            arrays = {name: shard[name][room][picks] for name in shard if name != "intrinsics"}
            samples.append(arrays | {"intrinsics": shard["intrinsics"][room]})
        stacked = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        return make_views(stacked, mirror=bool(self._rng.random() < 0.5), jitter=self._rng)

    def _pick(self, available: int, views: int) -> np.ndarray:
        """A random span with an even stride, shuffled half of the time (the paper: random span, shuffled)."""
        stride = int(self._rng.integers(1, max(1, (available - 1) // max(views - 1, 1)) + 1))
        start = int(self._rng.integers(0, available - (views - 1) * stride))
        picks = start + stride * np.arange(views)
        if self._rng.random() < 0.5:
            self._rng.shuffle(picks)
        return picks


def write_shards(folder: Path, first_seed: int, shards: int, rooms: int, views: int) -> None:
    """Render shards into `folder`, each under its final name only when complete; existing ones are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(shards):
        path = folder / f"shard_{first_seed + index * rooms:07d}.npz"
        if path.exists():
            continue
        arrays = render_shard(first_seed + index * rooms, rooms, views, SIZES[index % len(SIZES)])
        partial = folder / f".{path.name}"
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        partial.rename(path)
        log.info("shard %d of %d: %s", index + 1, shards, path.name)
