"""Where the map's frames were taken: a bounded, ordered set of poses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

KEYFRAME_BYTES = 8 + 8 + 16 * 4
"""Id, stamp and pose."""


class Keyframes:
    """Poses by keyframe id, at most `limit`; the oldest go first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._poses: dict[int, tuple[int, Float[Tensor, "4 4"]]] = {}

    def __len__(self) -> int:
        return len(self._poses)

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "4 4"]]]:
        """(stamp in ns, map_from_camera), in the order they came."""
        return iter(list(self._poses.values()))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return KEYFRAME_BYTES * len(self)

    def add(self, ids: Sequence[int], stamps: Sequence[int], map_from_camera: Float[Tensor, "views 4 4"]) -> None:
        """Remember poses. A keyframe that is known keeps its first one."""
        for keyframe, stamp, pose in zip(ids, stamps, map_from_camera.detach().float().cpu(), strict=True):
            self._poses.setdefault(keyframe, (stamp, pose.clone()))
        while len(self) > self.limit:
            del self._poses[next(iter(self._poses))]

    def rescale(self, factor: float) -> None:
        """Multiply the distances between the poses."""
        for _, pose in self._poses.values():
            pose[:3, 3] *= factor

    def clear(self) -> None:
        """Forget all."""
        self._poses.clear()

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        poses = [pose for _, pose in self]
        return {
            "keyframes.ids": torch.tensor(list(self._poses), dtype=torch.int64),
            "keyframes.stamps": torch.tensor([stamp for stamp, _ in self], dtype=torch.int64),
            "keyframes.map_from_camera": torch.stack(poses) if poses else torch.zeros(0, 4, 4),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        ids, stamps = tensors["keyframes.ids"].tolist(), tensors["keyframes.stamps"].tolist()
        self.add(ids, stamps, tensors["keyframes.map_from_camera"])
