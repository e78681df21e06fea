"""Nodes of the pose graph against 4 × 4 matrices."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import rigid
from ff3r_model.core.node import Node, place_each
from ff3r_model.core.types import Similarity


def similarity(seed: int) -> Similarity:
    rng = np.random.default_rng(seed)
    rotation = torch.tensor(Rotation.random(random_state=seed).as_matrix()).float()
    return Similarity(float(rng.uniform(0.3, 3)), rotation, torch.tensor(rng.normal(size=3)).float())


def matrix(motion: Similarity) -> torch.Tensor:
    found = torch.eye(4, dtype=torch.float64)
    found[:3, :3], found[:3, 3] = motion.scale * motion.rotation.double(), motion.translation.double()
    return found


def cameras(count: int) -> torch.Tensor:
    turns = torch.tensor(Rotation.random(count, random_state=7).as_matrix()).float()
    return rigid(turns, torch.randn(count, 3, generator=torch.Generator().manual_seed(0)))


def test_what_is_relative_to_a_node_moves_with_it() -> None:
    where, motion, poses = similarity(1), similarity(2), cameras(4)
    node = Node(3, where)
    torch.testing.assert_close(node.relative(node.place(poses)), poses)
    for found, pose in zip(node.place(poses), poses, strict=True):
        torch.testing.assert_close(found[:3, 3].double(), (matrix(where) @ pose.double())[:3, 3])
        torch.testing.assert_close(found[:3, :3], where.rotation @ pose[:3, :3])
    node.transform(motion)
    torch.testing.assert_close(matrix(node.map_from_node), matrix(motion) @ matrix(where))
    assert node.map_from_node.rotation.dtype == torch.float64
    assert float((node.place(poses)[0, :3, :3] @ node.place(poses)[0, :3, :3].T - torch.eye(3)).abs().max()) < 1e-5


def test_many_nodes_at_once_are_each_node_by_itself() -> None:
    nodes, poses = [Node(0, similarity(1)), Node(1, similarity(2)), Node(2)], cameras(5)
    which = [nodes[2], nodes[0], nodes[1], nodes[0], nodes[2]]
    expected = torch.stack([node.place(pose) for node, pose in zip(which, poses, strict=True)])
    torch.testing.assert_close(place_each(which, poses), expected)
