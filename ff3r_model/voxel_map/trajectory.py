"""Where the map's frames were taken: a bounded, ordered set of poses that move with the map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import transform_pose
from ff3r_model.core.types import Similarity
from ff3r_model.voxel_map.config import NO_WINDOW

KEYFRAME_BYTES = 8 + 8 + 8 + 16 * 4
"""Id, stamp, anchor and pose."""

_Row = tuple[int, int, Float[Tensor, "4 4"]]


class Keyframes:
    """Poses by keyframe id, at most `limit`; the oldest go first. Each is anchored to the window that brought it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rows: dict[int, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "4 4"]]]:
        """(stamp in ns, map_from_camera), in the order they came."""
        return iter([(stamp, pose) for stamp, _, pose in self._rows.values()])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return KEYFRAME_BYTES * len(self)

    def add(
        self,
        ids: Sequence[int],
        stamps: Sequence[int],
        map_from_camera: Float[Tensor, "views 4 4"],
        anchor: int = NO_WINDOW,
    ) -> None:
        """Remember poses. A keyframe that is known keeps its first one."""
        for keyframe, stamp, pose in zip(ids, stamps, map_from_camera.detach().float().cpu(), strict=True):
            self._rows.setdefault(keyframe, (stamp, anchor, pose.clone()))
        self._bound()

    def move(self, new_from_old: Mapping[int, Similarity]) -> None:
        """Let each pose go where its anchor's correction takes it."""
        for key, (stamp, anchor, pose) in self._rows.items():
            if anchor in new_from_old:
                moved = transform_pose(new_from_old[anchor], pose.double()).float()
                self._rows[key] = (stamp, anchor, moved)

    def relabel(self, new_of_old: Mapping[int, int]) -> None:
        """Give poses other anchors, where windows become one."""
        for key, (stamp, anchor, pose) in self._rows.items():
            self._rows[key] = (stamp, new_of_old.get(anchor, anchor), pose)

    def absorb(self, other: Keyframes, map_from_other: Similarity) -> None:
        """Take in the poses of another map, in the order of their stamps."""
        for key, (stamp, anchor, pose) in other._rows.items():
            moved = transform_pose(map_from_other, pose.double()).float()
            self._rows.setdefault(key, (stamp, anchor, moved))
        self._rows = dict(sorted(self._rows.items(), key=lambda item: item[1][0]))
        self._bound()

    def renumber(self, new_of_old: Mapping[int, int]) -> None:
        """Give the keyframes other ids."""
        self._rows = {new_of_old[key]: row for key, row in self._rows.items()}

    @property
    def ids(self) -> tuple[int, ...]:
        """Of all keyframes, in the order they came."""
        return tuple(self._rows)

    def rescale(self, factor: float) -> None:
        """Multiply the distances between the poses."""
        for _, _, pose in self._rows.values():
            pose[:3, 3] *= factor

    def clear(self) -> None:
        """Forget all."""
        self._rows.clear()

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        poses = [pose for _, pose in self]
        return {
            "keyframes.ids": torch.tensor(list(self._rows), dtype=torch.int64),
            "keyframes.stamps": torch.tensor([stamp for stamp, _ in self], dtype=torch.int64),
            "keyframes.anchors": torch.tensor([anchor for _, anchor, _ in self._rows.values()], dtype=torch.int64),
            "keyframes.map_from_camera": torch.stack(poses) if poses else torch.zeros(0, 4, 4),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave; files of format 1 know no anchors."""
        ids, stamps = tensors["keyframes.ids"].tolist(), tensors["keyframes.stamps"].tolist()
        anchors = tensors.get("keyframes.anchors", torch.full((len(ids),), NO_WINDOW)).tolist()
        rows = zip(ids, stamps, anchors, tensors["keyframes.map_from_camera"], strict=True)
        self._rows |= {key: (stamp, anchor, pose.float().clone()) for key, stamp, anchor, pose in rows}
        self._bound()

    def _bound(self) -> None:
        while len(self) > self.limit:
            del self._rows[next(iter(self._rows))]
