"""Global attention with fewer keys on long windows of held-out rooms: how much faster, and how far from exact.

The shipped nano at 112×112, early layers looking at each view alone and keys in every second row and column. Both
networks see the same windows in turns; their cameras and depth are compared with each other and with the truth.
"""

from __future__ import annotations

from functools import partial
from statistics import mean, median

import torch

from benchmarks.common import Report, interleaved_seconds, main
from benchmarks.network.cost import flops
from ff3r_model.core.types import Cameras, Prediction, Window
from ff3r_model.engine.device import device_named
from ff3r_model.engine.frame_cache import CacheConfig
from ff3r_model.engine.torch_engine import TorchConfig, TorchEngine
from ff3r_model.evaluation.held_out_rooms import held_out_window
from ff3r_model.evaluation.metrics import depth_rel, pair_errors
from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint
from ff3r_model.network.sparse_attention import SparseConfig
from ff3r_model.training.datasets.room_views import RoomWindow

VIEWS = (16, 32, 64)
SEEDS = range(3)
KINDS = {"exact": None, "keys": SparseConfig(early=0, stride=2), "early": SparseConfig(early=1, stride=2)}
"""Exact; keys left out in every global layer; and with the first global layer frame by frame besides."""


def turned(ours: Cameras, theirs: Cameras) -> float:
    """Mean angle in degrees between the cameras of two predictions, each in its first camera's frame."""
    relative = ours.camera_from_world[:, :3, :3] @ theirs.camera_from_world[:, :3, :3].mT
    chord = (relative - torch.eye(3, device=relative.device)).norm(dim=(-2, -1))  # 2 √2 sin(angle / 2)
    return float(2 * (chord / 8**0.5).clamp(max=1).asin().rad2deg().mean())


def moved(ours: Cameras, theirs: Cameras) -> float:
    """Median distance between the cameras' centres as a share of the farthest centre from the first camera."""
    centres = [-(c.camera_from_world[:, :3, :3].mT @ c.camera_from_world[:, :3, 3:])[..., 0] for c in (ours, theirs)]
    return float((centres[0] - centres[1]).norm(dim=-1).median() / centres[1].norm(dim=-1).max())


def against_truth(prediction: Prediction, truth: RoomWindow) -> tuple[float, float]:
    """Depth Rel and the median pose error in degrees over all pairs of views."""
    errors = pair_errors(prediction.cameras.camera_from_world.cpu(), truth.camera_from_world[0])
    return depth_rel(prediction.depth.cpu(), truth.depth[0]), float(errors.median())


def measure_views(views: int, seeds: range, report: Report) -> None:
    """All kinds on the windows of one size."""
    network = load_checkpoint(NANO_WEIGHTS, device_named("auto")).network
    plain = CacheConfig(keyframes=0)
    engines = {
        kind: TorchEngine(network, config=TorchConfig(cache=plain, sparse=sparse)) for kind, sparse in KINDS.items()
    }
    truths = [held_out_window(seed, views) for seed in seeds]
    ids = tuple(range(views))
    windows = [Window(truth.images[0], ids, ids) for truth in truths]
    predictions = {kind: [engine(window) for window in windows] for kind, engine in engines.items()}
    runs = [partial(engine, windows[0]) for engine in engines.values()]
    times = interleaved_seconds(list(runs), repeats=3)
    counts = [flops(run) for run in runs]
    for (kind, results), elapsed, count in zip(predictions.items(), times, counts, strict=True):
        key = f"sparse_{kind}_{{}}_{views}"
        rel, pose = zip(*map(against_truth, results, truths), strict=True)
        report.add(key.format("ms"), 1e3 * elapsed, "ms", f"{views} views, {count / 1e9:.0f} GFLOP")
        report.add(key.format("rel"), mean(rel), "", "depth Rel against the truth")
        report.add(key.format("pose_deg"), mean(pose), "deg", "median pair error against the truth")
        if kind == "exact":
            continue
        pairs = list(zip(results, predictions["exact"], strict=True))
        report.add(key.format("speedup"), times[0] / elapsed, "x", f"operations: {counts[0] / count:.2f} x fewer")
        report.add(
            key.format("rel_exact"), mean(depth_rel(a.depth, b.depth) for a, b in pairs), "", "depth Rel to exact"
        )
        report.add(
            key.format("turn_exact_deg"), mean(turned(a.cameras, b.cameras) for a, b in pairs), "deg", "to exact"
        )
        report.add(key.format("move_exact"), median(moved(a.cameras, b.cameras) for a, b in pairs), "", "of the extent")


def measure(quick: bool, report: Report) -> None:
    """Every size."""
    torch.manual_seed(0)
    for views in VIEWS if not quick else (4,):
        measure_views(views, SEEDS if not quick else range(1), report)


if __name__ == "__main__":
    main("sparse", measure)
