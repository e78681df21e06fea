"""An engine's windows with triangulated points: surface points of a sequence, each with a descriptor of its own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, project, transform_points
from ff3r_model.core.types import Predict, Prediction, SparsePoints, Window, WindowQuality
from ff3r_model.synthetic.sequences import Sequence


class TrackedEngine:
    """Adds what structure from motion would find, exactly, to the windows of an engine; keyframes are frame numbers."""

    def __init__(self, engine: Predict, sequence: Sequence, count: int = 4000) -> None:
        self.engine, self.sequence = engine, sequence
        generator = torch.Generator().manual_seed(0)
        surface = sequence.points(1).double()
        self.points = surface[torch.randperm(len(surface), generator=generator)[:count]]
        random = torch.rand(len(self.points), 128, generator=generator) ** 4
        self.descriptors = (random / random.norm(dim=1, keepdim=True) * 512).round().clamp(0, 255).byte()

    def __call__(self, window: Window) -> Prediction:
        """The engine's prediction of it, with points."""
        predicted, index = self.engine(window), list(window.keyframes)
        true = self.sequence.depth[index]
        known = (true > 0) & (predicted.depth > 0)
        scale = float((predicted.depth / true)[known].double().median())
        world = self.sequence.world_from_camera[index].double()
        seen = torch.stack([self._sees(frame) for frame in index])
        point = (seen.sum(0) >= 2).nonzero().squeeze(1)
        row, view = seen[:, point].T.nonzero().T
        positions = scale * transform_points(invert_rigid(world[0]), self.points[point])
        descriptors = self.descriptors[point[row]]
        points = SparsePoints(positions, row, view, point[row], torch.zeros(len(row), 2), descriptors)
        covariance = torch.zeros(len(index), 6, 6, dtype=torch.float64)
        quality = WindowQuality(2.0, (True,) * len(index), 0.3, 5.0, covariance, 0.8, 0.0)
        return replace(predicted, points_seen=points, quality=quality)

    def _sees(self, frame: int) -> Tensor:
        """Which points a frame sees: those in its picture that nothing hides."""
        camera_from_world = invert_rigid(self.sequence.world_from_camera[frame].double())
        intrinsics, depth = self.sequence.intrinsics.double(), self.sequence.depth[frame]
        pixels, z = project(transform_points(camera_from_world, self.points)[None], intrinsics[None])
        column, row = pixels[0].floor().long().unbind(-1)
        height, width = depth.shape
        inside = (z[0] > 0.2) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        measured = depth[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        return inside & ((measured - z[0]).abs() < 0.05 * z[0])
