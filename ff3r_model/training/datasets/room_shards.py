"""Shards of procedural rooms: rendered once, sampled many times (`datasets.rooms`)."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from ff3r_model.core.files import replaced
from ff3r_model.synthetic import make_room, make_trajectory, render

log = logging.getLogger(__name__)

SHARDS = "shard_*.npz"
"""What shards are called."""
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


def write_shards(folder: Path, first_seed: int, shards: int, rooms: int, views: int) -> None:
    """Render shards into `folder`, each under its final name only when complete; existing ones are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(shards):
        path = folder / f"shard_{first_seed + index * rooms:07d}.npz"
        if path.exists():
            continue
        arrays = render_shard(first_seed + index * rooms, rooms, views, SIZES[index % len(SIZES)])
        with replaced(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        log.info("shard %d of %d: %s", index + 1, shards, path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=320)
    parser.add_argument("--rooms", type=int, default=16, help="rooms per shard")
    parser.add_argument("--views", type=int, default=12, help="views per room")
    parser.add_argument("--first-seed", type=int, default=FIRST_TRAINING_SEED)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_shards(options.folder, options.first_seed, options.shards, options.rooms, options.views)
