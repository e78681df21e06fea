"""Landmarks of a keyframe: the triangulated points that it sees, with the descriptors to find them by again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from ff3r_model.core.geometry import transform_points
from ff3r_model.core.types import Prediction
from ff3r_model.slam.refinement.features import DIMENSIONS


@dataclass(frozen=True)
class Landmarks:
    """Points in the frame of the camera that sees them; the direction to each is where it was seen."""

    positions: Float32[Tensor, "n 3"]
    """In the unit of the window that triangulated them."""
    descriptors: UInt8[Tensor, "n 128"]
    """Root-SIFT, quantised."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.positions.nbytes + self.descriptors.nbytes

    def scaled(self, factor: float) -> Landmarks:
        """The same in another unit."""
        return replace(self, positions=self.positions * factor)

    @classmethod
    def none(cls) -> Landmarks:
        """Of a keyframe in which nothing was triangulated."""
        return cls(torch.zeros(0, 3), torch.zeros(0, DIMENSIONS, dtype=torch.uint8))

    @classmethod
    def seen(cls, prediction: Prediction, view: int, most: int) -> Landmarks:
        """Those that a view of a window sees: up to `most`, the ones that most views see first."""
        points = prediction.points_seen
        if points is None or points.descriptors is None:
            return cls.none()
        rows = (points.view == view).nonzero().squeeze(1)
        camera_from_window = prediction.cameras.camera_from_world[view].double().cpu()
        positions = transform_points(camera_from_window, points.positions.double()[points.point[rows]])
        chosen = _most_seen(points.point, rows, positions[:, 2] > 0)[:most]
        return cls(positions[chosen].float(), points.descriptors[rows[chosen]])


def _most_seen(point: Int[Tensor, " n"], rows: Int[Tensor, " m"], front: Tensor) -> Int[Tensor, " k"]:
    """Which of the rows lie before the camera, by how many views see their points, falling."""
    times: Float[Tensor, " m"] = torch.bincount(point)[point[rows]].float()
    order = torch.argsort(times, descending=True, stable=True)
    return order[front[order]]


def joined(landmarks: Sequence[Landmarks]) -> dict[str, Tensor]:
    """Those of several keyframes as tensors for a file; none where there are none."""
    if not any(len(each) for each in landmarks):
        return {}
    return {
        "landmark_counts": torch.tensor([len(each) for each in landmarks]),
        "landmarks": torch.cat([each.positions for each in landmarks]),
        "landmark_descriptors": torch.cat([each.descriptors for each in landmarks]),
    }


def split(tensors: Mapping[str, Tensor], keyframes: int) -> list[Landmarks]:
    """What `joined` gave, by keyframe; older files have none."""
    if "landmark_counts" not in tensors:
        return [Landmarks.none()] * keyframes
    counts = tensors["landmark_counts"].tolist()
    parts = (tensors[name].split(counts) for name in ("landmarks", "landmark_descriptors"))
    return [Landmarks(*(part.clone() for part in each)) for each in zip(*parts, strict=True)]
