"""The trajectory: poses of the map's keyframes, a bounded, ordered set that moves with the nodes of the pose graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import transform_pose
from ff3r_model.core.node import Node, place_each
from ff3r_model.core.types import Similarity
from ff3r_model.voxel_map.config import NO_WINDOW

KEYFRAME_BYTES = 8 + 8 + 8 + 16 * 4
"""Id, stamp, node and pose."""


@dataclass(frozen=True)
class _Keyframe:
    stamp: int
    node: Node
    node_from_camera: Float[Tensor, "4 4"]

    @property
    def map_from_camera(self) -> Float[Tensor, "4 4"]:
        return self.node.place(self.node_from_camera)


class Trajectory:
    """Poses by keyframe id, at most `limit`; the oldest go first.

    Each is relative to the pose graph's node of the window that brought it, so that it moves when the node does. Poses
    without such a node (a map that has no graph, a file) are relative to nodes of the trajectory's own.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rows: dict[int, _Keyframe] = {}
        self._own: dict[int, Node] = {}
        """By window; moved by `transform` alone."""

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "4 4"]]]:
        """(stamp in ns, map_from_camera), in the order they came."""
        return iter([(row.stamp, pose) for row, pose in zip(self._rows.values(), self._poses(), strict=True)])

    @property
    def ids(self) -> tuple[int, ...]:
        """Of all keyframes, in the order they came."""
        return tuple(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return KEYFRAME_BYTES * len(self)

    def add(
        self,
        ids: Sequence[int],
        stamps: Sequence[int],
        map_from_camera: Float[Tensor, "views 4 4"],
        node: Node | None = None,
    ) -> None:
        """Remember poses, which move with `node`. A keyframe that is known keeps its first one."""
        node = node or self._without_graph(NO_WINDOW)
        poses = node.relative(map_from_camera.detach().float().cpu())
        for keyframe, stamp, pose in zip(ids, stamps, poses, strict=True):
            self._rows.setdefault(keyframe, _Keyframe(stamp, node, pose.clone()))
        self._bound()

    def transform(self, by_anchor: Mapping[int, Similarity], others: Similarity) -> None:
        """Let poses that no graph moves go where their window's correction takes them, or `others` without one."""
        for node in self._own.values():
            node.transform(by_anchor.get(node.window, others))

    def reanchor(self, nodes: Mapping[int, Node]) -> None:
        """Let the poses of some windows move with other nodes from now on; they stay where they are."""
        for key, row in self._rows.items():
            node = nodes.get(row.node.window, row.node)
            if node is not row.node:
                self._rows[key] = _Keyframe(row.stamp, node, node.relative(row.map_from_camera))

    def absorb(self, other: Trajectory, map_from_other: Similarity) -> None:
        """Take in the poses of another map, in the order of their stamps. Nodes of a graph take theirs along."""
        for key, row in other._rows.items():
            if row.node is other._own.get(row.node.window):
                node = self._without_graph(row.node.window)
                pose = transform_pose(map_from_other, row.map_from_camera.double()).float()
                row = replace(row, node=node, node_from_camera=node.relative(pose))
            self._rows.setdefault(key, row)
        self._rows = dict(sorted(self._rows.items(), key=lambda item: item[1].stamp))
        self._bound()

    def renumber(self, new_of_old: Mapping[int, int]) -> None:
        """Give the keyframes other ids."""
        self._rows = {new_of_old[key]: row for key, row in self._rows.items()}

    def tensors(self) -> dict[str, Tensor]:
        """For a file: poses in the map."""
        rows = list(self._rows.values())
        return {
            "keyframes.ids": torch.tensor(list(self._rows), dtype=torch.int64),
            "keyframes.stamps": torch.tensor([row.stamp for row in rows], dtype=torch.int64),
            "keyframes.anchors": torch.tensor([row.node.window for row in rows], dtype=torch.int64),
            "keyframes.map_from_camera": self._poses(),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave; files of format 1 know no anchors. `reanchor` gives the poses to a graph."""
        ids, stamps = tensors["keyframes.ids"].tolist(), tensors["keyframes.stamps"].tolist()
        anchors = tensors.get("keyframes.anchors", torch.full((len(ids),), NO_WINDOW)).tolist()
        rows = zip(ids, stamps, anchors, tensors["keyframes.map_from_camera"], strict=True)
        for key, stamp, anchor, pose in rows:
            node = self._without_graph(anchor)
            self._rows[key] = _Keyframe(stamp, node, node.relative(pose.float()))
        self._bound()

    def _poses(self) -> Float[Tensor, "n 4 4"]:
        """map_from_camera of all keyframes."""
        rows = list(self._rows.values())
        if not rows:
            return torch.zeros(0, 4, 4)
        return place_each([row.node for row in rows], torch.stack([row.node_from_camera for row in rows]))

    def _without_graph(self, window: int) -> Node:
        return self._own.setdefault(window, Node(window))

    def _bound(self) -> None:
        while len(self) > self.limit:
            del self._rows[next(iter(self._rows))]
