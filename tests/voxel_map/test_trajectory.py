"""Poses of keyframes against plain matrices: they move with their node, or with the map where they have none."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.node import Node
from ff3r_model.core.types import Similarity
from ff3r_model.voxel_map.trajectory import Trajectory


def similarity(seed: int, scale: float) -> Similarity:
    rng = np.random.default_rng(seed)
    return Similarity(
        scale, torch.tensor(Rotation.random(random_state=seed).as_matrix()), torch.tensor(rng.normal(size=3))
    )


def poses(count: int, seed: int = 0) -> torch.Tensor:
    found = torch.eye(4).repeat(count, 1, 1)
    found[:, :3, :3] = torch.tensor(Rotation.random(count, random_state=seed).as_matrix()).float()
    found[:, :3, 3] = torch.tensor(np.random.default_rng(seed).normal(size=(count, 3))).float()
    return found


def moved(motion: Similarity, pose: torch.Tensor) -> torch.Tensor:
    """Rotations compose, centres move with the similarity."""
    result = torch.eye(4, dtype=torch.float64)
    result[:3, :3] = motion.rotation @ pose[:3, :3].double()
    result[:3, 3] = motion.scale * motion.rotation @ pose[:3, 3].double() + motion.translation
    return result.float()


def close(found: Trajectory, expected: list[torch.Tensor]) -> None:
    for (_, pose), other in zip(found, expected, strict=True):
        torch.testing.assert_close(pose, other, atol=1e-5, rtol=1e-5)


def test_poses_move_with_their_node_and_no_other() -> None:
    trajectory, given, motion = Trajectory(10), poses(3), similarity(5, 2.5)
    nodes = [Node(7, similarity(1, 0.5)), Node(8, similarity(2, 3.0))]
    trajectory.add([1, 2], [10, 20], given[:2], nodes[0])
    trajectory.add([3], [30], given[2:], nodes[1])
    close(trajectory, list(given))
    nodes[0].transform(motion)
    close(trajectory, [moved(motion, given[0]), moved(motion, given[1]), given[2]])
    trajectory.transform({7: motion, 8: motion}, motion)
    close(trajectory, [moved(motion, given[0]), moved(motion, given[1]), given[2]])


def test_poses_without_a_node_move_with_the_map() -> None:
    trajectory, given, motion, own = Trajectory(10), poses(2), similarity(3, 0.7), similarity(4, 1.5)
    trajectory.add([1, 2], [10, 20], given)
    again = Trajectory(10)
    again.restore(trajectory.tensors() | {"keyframes.anchors": torch.tensor([-1, 5])})
    again.transform({5: own}, motion)
    close(again, [moved(motion, given[0]), moved(own, given[1])])
    node = Node(5, similarity(6, 2.0))
    again.reanchor({5: node})
    close(again, [moved(motion, given[0]), moved(own, given[1])])
    node.transform(motion)
    again.transform({5: own}, Similarity())
    close(again, [moved(motion, given[0]), moved(motion, moved(own, given[1]))])
    assert again.tensors()["keyframes.anchors"].tolist() == [-1, 5]


def test_poses_stay_where_they_are_when_their_node_becomes_another() -> None:
    trajectory, given, motion = Trajectory(10), poses(2), similarity(9, 1.3)
    old, kept = Node(4, similarity(1, 0.5)), Node(3, similarity(2, 2.0))
    trajectory.add([1], [10], given[:1], old)
    trajectory.add([2], [20], given[1:], kept)
    trajectory.reanchor({4: kept})
    close(trajectory, list(given))
    kept.transform(motion)
    close(trajectory, [moved(motion, pose) for pose in given])


def test_another_maps_poses_are_taken_in_by_their_stamps() -> None:
    own, other, given, motion = Trajectory(3), Trajectory(3), poses(4), similarity(8, 0.4)
    node = Node(2)
    own.add([1, 2], [10, 30], given[:2])
    other.add([3], [20], given[2:3], node)
    other.add([4], [40], given[3:])
    node.transform(motion)
    own.absorb(other, motion)
    close(own, [moved(motion, given[2]), given[1], moved(motion, given[3])])
    assert [stamp for stamp, _ in own] == [20, 30, 40], "the oldest went"
    assert own.ids == (3, 2, 4)
