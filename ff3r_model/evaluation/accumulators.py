"""Metrics accumulated over the windows of a benchmark, for the network and for the constant predictor alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.evaluation.metrics import (
    ScaleBy,
    auc,
    commonest,
    confusion,
    depth_inliers,
    depth_rel,
    mean_iou,
    pair_errors,
)
from ff3r_model.evaluation.sample import Sample
from ff3r_model.evaluation.vocabulary import Vocabulary

Figures = dict[str, float | None]
"""By name; None where nothing was there to measure."""


@dataclass
class Means:
    """Means over windows, by name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float | None) -> None:
        """One window's value; None counts for nothing."""
        self.values.setdefault(name, []).extend([] if value is None else [value])

    def figures(self) -> Figures:
        """The means; None where no window had a value."""
        return {name: sum(found) / len(found) if found else None for name, found in self.values.items()}


@dataclass
class GeometryErrors:
    """Errors of depth (one scale per window), of relative pose for all pairs of views, and of trajectories."""

    by: ScaleBy = "median"
    means: Means = field(default_factory=lambda: Means({"depth_rel": [], "depth_tau": [], "ate": []}))
    errors: list[Float[Tensor, " pairs"]] = field(default_factory=list)

    def add(self, depth: Tensor, camera_from_world: Tensor, sample: Sample, ate: float | None) -> None:
        """Count one window, with its trajectory error in metres; one without any known depth has no depth error."""
        truth = sample.context
        if bool((truth.depth > 0).any()):
            self.means.add("depth_rel", depth_rel(depth, truth.depth, self.by))
            self.means.add("depth_tau", depth_inliers(depth, truth.depth, by=self.by))
        self.errors.append(pair_errors(camera_from_world, truth.cameras.camera_from_world).cpu())
        self.means.add("ate", ate)

    def figures(self) -> Figures:
        """Means over windows (ATE in metres), and AUC@5, 15, 30 over all pairs of all windows."""
        if not self.errors:
            return {}
        errors = torch.cat(self.errors)
        return self.means.figures() | {f"auc{limit}": auc(errors, limit) for limit in (5, 15, 30)}


class WordConfusion:
    """Semantic segmentation: one confusion matrix per vocabulary, over the pixels of all windows."""

    def __init__(self, vocabularies: Sequence[Vocabulary]) -> None:
        self.vocabularies = vocabularies
        self.matrices: list[Int[Tensor, "words words"]] = [
            torch.zeros(len(v.words), len(v.words), dtype=torch.int64) for v in vocabularies
        ]

    def add(self, number: int, labels: Tensor, truth: Tensor) -> None:
        """Count the pixels of one window for vocabulary `number`."""
        self.matrices[number] += confusion(labels.flatten(), truth.flatten(), len(self.matrices[number])).cpu()

    def figures(self, constant: bool = False) -> Figures:
        """Mean IoU by the vocabularies' keys, accuracy and classes of the first; or what `commonest` would get."""
        matrices = [commonest(matrix) for matrix in self.matrices] if constant else self.matrices
        means = Means()
        for vocabulary, matrix in zip(self.vocabularies, matrices, strict=True):
            means.add(vocabulary.figure, mean_iou(matrix)[0] if matrix.sum() else None)
        first = matrices[0]
        if not first.sum():
            return means.figures() | {"accuracy": None, "classes": None}
        right = float(first.diagonal().sum() / first.sum())
        return means.figures() | {"accuracy": right, "classes": float(mean_iou(first)[1])}
