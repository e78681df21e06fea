"""The benchmark of held-out procedural rooms: depth, pose and open-vocabulary classes of one window per room."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from ff3r_model.engine import Engine
from ff3r_model.evaluation.metrics import auc, confusion, depth_inliers, depth_rel, mean_iou, pair_errors
from ff3r_model.refine import refine_cameras
from ff3r_model.synthetic import CLASSES
from ff3r_model.text import TextEncoder
from ff3r_model.text_space import TextSpace
from ff3r_model.training.data import render_shard
from ff3r_model.training.views import Views, make_views
from ff3r_model.types import Window

HELD_OUT = range(0, 100)
"""Seeds that training never draws (it starts at `FIRST_TRAINING_SEED`)."""


@dataclass
class Tally:
    """What accumulates over windows for one predictor."""

    depth_rel: list[float] = field(default_factory=list)
    depth_tau: list[float] = field(default_factory=list)
    pose: list[Tensor] = field(default_factory=list)
    confusion: Int[Tensor, "classes classes"] = field(
        default_factory=lambda: torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    )

    def add(self, depth: Tensor, camera_from_world: Tensor, labels: Tensor, truth: Views) -> None:
        """Count one window."""
        self.depth_rel.append(depth_rel(depth, truth.depth[0]))
        self.depth_tau.append(depth_inliers(depth, truth.depth[0]))
        self.pose.append(pair_errors(camera_from_world, truth.camera_from_world[0]))
        self.confusion += confusion(labels.flatten(), truth.classes[0].flatten(), len(CLASSES))

    def figures(self) -> dict[str, float]:
        """The means, under the benchmark's names."""
        miou, present = mean_iou(self.confusion)
        return {
            "depth_rel": sum(self.depth_rel) / len(self.depth_rel),
            "depth_tau": sum(self.depth_tau) / len(self.depth_tau),
            "auc30": auc(torch.cat(self.pose), 30),
            "auc15": auc(torch.cat(self.pose), 15),
            "auc5": auc(torch.cat(self.pose), 5),
            "miou": miou,
            "accuracy": float(self.confusion.diagonal().sum() / self.confusion.sum()),
            "classes": float(present),
        }


def held_out_window(seed: int, views: int, size: tuple[int, int] = (112, 112)) -> Views:
    """One window of the benchmark, a function of its seed alone."""
    return make_views(render_shard(seed, 1, views, size))


def evaluate(
    engine: Engine, text: TextEncoder, space: TextSpace, views: int, seeds: range = HELD_OUT
) -> dict[str, float]:
    """Figures of a network over held-out rooms, and beside each the `constant_` predictor's.

    `engine` should not refine poses: `auc30` is the network's own, `auc30_refined` what optical flow makes of it. The
    constant predictor says: cameras at one place, the truth's mean depth everywhere, the commonest class.
    """
    network, constant, refined, seconds = Tally(), Tally(), list[Tensor](), 0.0
    embeddings = text.encode(list(CLASSES))
    for seed in tqdm(seeds, desc=f"held-out rooms, {views} views", unit="window"):
        truth = held_out_window(seed, views)
        window = Window(truth.images[0], tuple(range(views)), tuple(range(views)))
        start = time.perf_counter()
        prediction = engine(window)
        seconds += time.perf_counter() - start
        labels = space.similarity(prediction.gaussians.features, embeddings).argmax(-1)
        network.add(prediction.depth, prediction.cameras.camera_from_world, labels, truth)
        better = refine_cameras(window.images, prediction.depth, prediction.cameras)
        refined.append(pair_errors(better.camera_from_world, truth.camera_from_world[0]))
        flat = torch.full_like(truth.depth[0], float(truth.depth[truth.depth > 0].mean()))
        still = torch.eye(4).expand(views, 4, 4)
        constant.add(flat, still, torch.full_like(truth.classes[0], CLASSES.index("wall")), truth)
    figures = network.figures() | {"seconds_per_window": seconds / len(seeds)}
    figures["auc30_refined"] = auc(torch.cat(refined), 30)
    return figures | {f"constant_{name}": value for name, value in constant.figures().items()}
