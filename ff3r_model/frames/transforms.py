"""TF buffer: where one frame lies in another at a given time, from the messages of /tf and /tf_static.

tf2 has the same, but there are no wheels of tf2, and bags are read where no ROS is installed. Duck-typed: everything
with the fields of geometry_msgs/TransformStamped will do.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from ff3r_model.frames.stamps import nanoseconds_from_time

KEPT = 10 * 10**9
"""Nanoseconds of transforms that are remembered, as in tf2."""
Matrix = np.ndarray
TransformMessage = Any
"""Anything with the fields of geometry_msgs/TransformStamped."""


class TransformUnavailable(LookupError):
    """No transform between two frames at that time; the message names what is missing."""


@dataclass
class _Edge:
    """How a frame moved in its parent."""

    parent: str
    stamps: list[int] = field(default_factory=list)
    poses: list[Matrix] = field(default_factory=list)
    """parent_from_child; a static one stands alone, without a stamp."""

    @property
    def static(self) -> bool:
        return not self.stamps

    def add(self, stamp: int, pose: Matrix) -> None:
        """Keep the pose in order of time, forget what is older than KEPT before the newest."""
        place = bisect.bisect_left(self.stamps, stamp)
        if place < len(self.stamps) and self.stamps[place] == stamp:
            self.poses[place] = pose
            return
        self.stamps.insert(place, stamp)
        self.poses.insert(place, pose)
        old = bisect.bisect_left(self.stamps, self.stamps[-1] - KEPT)
        del self.stamps[:old], self.poses[:old]

    def at(self, stamp: int, name: str) -> Matrix:
        """parent_from_child, interpolated between the two nearest times."""
        if self.static:
            return self.poses[0]
        if not self.stamps[0] <= stamp <= self.stamps[-1]:
            early = stamp < self.stamps[0]
            end, which = (self.stamps[0], "before the oldest") if early else (self.stamps[-1], "after the newest")
            apart = abs(stamp - end) / 1e9
            raise TransformUnavailable(f"{name}: asked for {apart:.3f} s {which} known transform")
        right = bisect.bisect_left(self.stamps, stamp)
        if self.stamps[right] == stamp:
            return self.poses[right]
        before, after = self.stamps[right - 1], self.stamps[right]
        return _between(self.poses[right - 1], self.poses[right], (stamp - before) / (after - before))


class TransformBuffer:
    """TF buffer: the tree of frames of /tf and /tf_static, for the last ten seconds."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}
        self.rejected = 0
        """Transforms that were no transforms: not finite, a quaternion of no length, a frame in itself."""

    @property
    def frames(self) -> set[str]:
        """All known frames."""
        return set(self._edges) | {edge.parent for edge in self._edges.values()}

    def add(self, transforms: Iterable[TransformMessage], static: bool = False) -> None:
        """Take over a message's transforms. A frame that changes its parent starts again."""
        for message in transforms:
            parent, child = message.header.frame_id.lstrip("/"), message.child_frame_id.lstrip("/")
            pose = _matrix(message)
            if pose is None or not parent or not child or parent == child:
                self.rejected += 1
            elif static:
                self._edges[child] = _Edge(parent, poses=[pose])
            else:
                edge = self._edges.get(child)
                if edge is None or edge.parent != parent or edge.static:
                    edge = self._edges[child] = _Edge(parent)
                edge.add(nanoseconds_from_time(message.header.stamp), pose)

    def lookup(self, target: str, source: str, stamp: int) -> Float[Tensor, "4 4"]:
        """target_from_source at `stamp` (ns), interpolated. Raises TransformUnavailable, never extrapolates."""
        target, source = target.lstrip("/"), source.lstrip("/")
        up_from_target, up_from_source = self._chain(target), self._chain(source)
        common = next((frame for frame in up_from_source if frame in up_from_target), None)
        if common is None:
            unknown = [frame for frame in (target, source) if frame not in self.frames]
            reason = f"nobody publishes {', '.join(unknown)}" if unknown else "they are in different trees"
            raise TransformUnavailable(f"{target} from {source}: {reason}")
        joined = np.linalg.inv(self._above(up_from_target, common, stamp)) @ self._above(up_from_source, common, stamp)
        return torch.from_numpy(joined)

    def parent(self, frame: str) -> str | None:
        """Of the frame in the tree, or None for a root or a stranger."""
        edge = self._edges.get(frame.lstrip("/"))
        return None if edge is None else edge.parent

    def clear(self) -> None:
        """Forget what moves (time jumped back); what is static stays."""
        self._edges = {child: edge for child, edge in self._edges.items() if edge.static}

    def _chain(self, frame: str) -> list[str]:
        """The frame and its ancestors."""
        chain = [frame]
        while (edge := self._edges.get(chain[-1])) is not None and edge.parent not in chain:
            chain.append(edge.parent)
        return chain

    def _above(self, chain: list[str], top: str, stamp: int) -> Matrix:
        """top_from_chain[0]."""
        pose = np.eye(4)
        for frame in chain[: chain.index(top)]:
            pose = self._edges[frame].at(stamp, f"{self._edges[frame].parent} from {frame}") @ pose
        return pose


def _matrix(message: TransformMessage) -> Matrix | None:
    """parent_from_child in float64, or None for what is no transform."""
    move, turn = message.transform.translation, message.transform.rotation
    values = np.array([move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w])
    if not np.isfinite(values).all() or np.linalg.norm(values[3:]) < 1e-6:
        return None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_quat(values[3:]).as_matrix(), values[:3]
    return pose


def _between(before: Matrix, after: Matrix, share: float) -> Matrix:
    """Translation along the line, rotation along the great circle (slerp)."""
    pose = np.eye(4)
    ends = Rotation.from_matrix(np.stack([before[:3, :3], after[:3, :3]]))
    pose[:3, :3] = Slerp([0, 1], ends)(share).as_matrix()
    pose[:3, 3] = (1 - share) * before[:3, 3] + share * after[:3, 3]
    return pose
