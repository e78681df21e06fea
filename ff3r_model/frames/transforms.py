"""TF buffer: where one frame lies in another at a given time, from the messages of /tf and /tf_static.

tf2 has the same, but there are no wheels of tf2, and bags are read where no ROS is installed. Duck-typed: everything
with the fields of geometry_msgs/TransformStamped will do.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from ff3r_model.frames.stamps import LEAP, StampGate, is_time, nanoseconds_from_time

KEPT = 10 * 10**9
"""Nanoseconds of transforms that are remembered, as in tf2."""
MAX_POSES = 10_000
"""Transforms of one frame that are remembered: a thousand per second."""
MAX_FRAMES = 10_000
MAX_TRANSFORMS = 10_000
"""Of one message."""
MAX_NAME = 256
"""Characters of a frame's name."""
FARTHEST = 1e8
"""Metres from a frame to its parent: the Earth has 6.4e6."""
QUATERNION_NORMS = (1e-6, 1e6)
"""Lengths of quaternions that still say how something is turned."""
Matrix = np.ndarray
Pose = tuple[float, ...]
"""x, y, z of a translation and x, y, z, w of a quaternion, as they came."""
TransformMessage = Any
"""Anything with the fields of geometry_msgs/TransformStamped."""


class TransformUnavailable(LookupError):
    """No transform between two frames at that time; the message names what is missing."""


@dataclass
class _Edge:
    """How a frame moved in its parent."""

    parent: str
    stamps: list[int] = field(default_factory=list)
    poses: list[Pose] = field(default_factory=list)
    """parent_from_child; a static one stands alone, without a stamp."""
    gate: StampGate = field(default_factory=lambda: StampGate(LEAP, KEPT))

    @property
    def static(self) -> bool:
        return not self.stamps

    def add(self, stamp: int, pose: Pose) -> bool:
        """Keep the pose in order of time, forget what is older than KEPT before the newest; False for a lone stamp."""
        verdict = self.gate.judge(stamp)
        if verdict == "stray":
            return False
        if verdict == "jump":
            self.stamps, self.poses = [], []
        place = bisect.bisect_left(self.stamps, stamp)
        if place < len(self.stamps) and self.stamps[place] == stamp:
            self.poses[place] = pose
        elif place or len(self.stamps) < MAX_POSES:
            self.stamps.insert(place, stamp)
            self.poses.insert(place, pose)
            self._forget()
        return True

    def at(self, stamp: int, name: str) -> Matrix:
        """parent_from_child, interpolated between the two nearest times."""
        if self.static:
            return _matrix(self.poses[0])
        if not self.stamps[0] <= stamp <= self.stamps[-1]:
            early = stamp < self.stamps[0]
            end, which = (self.stamps[0], "before the oldest") if early else (self.stamps[-1], "after the newest")
            apart = abs(stamp - end) / 1e9
            raise TransformUnavailable(f"{name}: asked for {apart:.3f} s {which} known transform")
        right = bisect.bisect_left(self.stamps, stamp)
        if self.stamps[right] == stamp:
            return _matrix(self.poses[right])
        before, after = self.stamps[right - 1], self.stamps[right]
        share = (stamp - before) / (after - before)
        return _between(_matrix(self.poses[right - 1]), _matrix(self.poses[right]), share)

    def _forget(self) -> None:
        old = max(bisect.bisect_left(self.stamps, self.stamps[-1] - KEPT), len(self.stamps) - MAX_POSES)
        del self.stamps[:old], self.poses[:old]


class TransformBuffer:
    """TF buffer: the tree of frames of /tf and /tf_static, for the last ten seconds."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}
        self.rejected: Counter[str] = Counter()
        """Transforms that were not taken, by reason."""

    @property
    def frames(self) -> set[str]:
        """All known frames."""
        return set(self._edges) | {edge.parent for edge in self._edges.values()}

    def add(self, transforms: Iterable[TransformMessage], static: bool = False) -> None:
        """Take over a message's transforms. A frame that changes its parent starts again."""
        for number, message in enumerate(transforms):
            if number >= MAX_TRANSFORMS:
                self.rejected["too many transforms in one message"] += 1
                continue
            parent, child = message.header.frame_id.lstrip("/"), message.child_frame_id.lstrip("/")
            pose = _pose(message)
            if reason := self._unusable(parent, child, message, pose):
                self.rejected[reason] += 1
            elif static:
                self._edges[child] = _Edge(parent, poses=[pose])
            else:
                self._add_moving(parent, child, nanoseconds_from_time(message.header.stamp), pose)

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

    def _unusable(self, parent: str, child: str, message: TransformMessage, pose: Pose) -> str:
        """Why a transform is none, in a short phrase fit for counting; empty where it is one."""
        if not parent or not child or parent == child or max(len(parent), len(child)) > MAX_NAME:
            return "frame names"
        if not is_time(message.header.stamp):
            return "impossible stamp"
        if not all(map(math.isfinite, pose)) or max(map(abs, pose[:3])) > FARTHEST:
            return "impossible translation or rotation"
        if not QUATERNION_NORMS[0] <= math.hypot(*pose[3:]) <= QUATERNION_NORMS[1]:
            return "quaternion of no or endless length"
        return "too many frames" if len(self._edges) >= MAX_FRAMES and child not in self._edges else ""

    def _add_moving(self, parent: str, child: str, stamp: int, pose: Pose) -> None:
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.static:
            edge = self._edges[child] = _Edge(parent)
        if not edge.add(stamp, pose):
            self.rejected["stamp far from those before"] += 1

    def _chain(self, frame: str) -> list[str]:
        """The frame and its ancestors."""
        chain = {frame: None}  # in order, and quick to look into
        while (edge := self._edges.get(frame)) is not None and edge.parent not in chain:
            frame = edge.parent
            chain[frame] = None
        return list(chain)

    def _above(self, chain: list[str], top: str, stamp: int) -> Matrix:
        """top_from_chain[0]."""
        pose = np.eye(4)
        for frame in chain[: chain.index(top)]:
            pose = self._edges[frame].at(stamp, f"{self._edges[frame].parent} from {frame}") @ pose
        return pose


def _pose(message: TransformMessage) -> Pose:
    """What the message says, unchecked: millions of these are never looked up."""
    move, turn = message.transform.translation, message.transform.rotation
    return move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w


def _matrix(pose: Pose) -> Matrix:
    """The pose as a matrix of float64."""
    matrix = np.eye(4)
    quaternion = np.array(pose[3:]) / math.hypot(*pose[3:])
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), pose[:3]
    return matrix


def _between(before: Matrix, after: Matrix, share: float) -> Matrix:
    """Translation along the line, rotation along the great circle (slerp)."""
    pose = np.eye(4)
    ends = Rotation.from_matrix(np.stack([before[:3, :3], after[:3, :3]]))
    pose[:3, :3] = Slerp([0, 1], ends)(share).as_matrix()
    pose[:3, 3] = (1 - share) * before[:3, 3] + share * after[:3, 3]
    return pose
