"""The pose graph: where each window of a map lies, what says so, and where all of them lie best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gtsam
import torch
from torch import Tensor

from ff3r_model.core.geometry import compose, invert_similarity
from ff3r_model.core.node import Node
from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, check_range
from ff3r_model.core.types import Similarity

NODE_BYTES, EDGE_BYTES = 600, 900
"""What a node and an edge take in memory, Python's objects included: an estimate from above."""
_HUBER = 1.345
_FIXED = 1e-6


@dataclass(frozen=True)
class GraphConfig:
    """Bounds and weights of the graph."""

    max_windows: int = 2000
    """Nodes beyond this are merged with their neighbours, the least merged first."""
    keep_recent: int = 50
    """The newest nodes, which are never merged."""
    certainty: float = 0.2
    """An edge's standard deviations, as shares of its alignment's rms error: radians, shares of depth and of scale."""
    least_sigma: float = 1e-3
    max_strain: float = 6.0
    """A loop after which an edge between neighbours is off by more standard deviations than this is refused."""

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "max_windows")
        check_range(self, NOT_NEGATIVE, "keep_recent")
        check_range(self, POSITIVE, "certainty", "least_sigma", "max_strain")


@dataclass(frozen=True)
class Edge:
    """What one alignment says: where node b lies, seen from node a. All lengths are in the nodes' own units."""

    a_from_b: Similarity
    sigma: float
    """Standard deviation: radians, share of scale and, times `reach`, of the translation."""
    reach: float
    """Typical depth, in the unit of b."""
    loop: bool


class PoseGraph:
    """Nodes say where the windows of a submap lie, edges what alignments have said of pairs of them.

    Each node has its window's frame and unit. Edges are relative, so that they stay as they are when nodes move: a
    submap may be turned, scaled or taken into another without a change to them.
    """

    def __init__(self, config: GraphConfig | None = None) -> None:
        self.config = config or GraphConfig()
        self.nodes: dict[int, Node] = {}
        """By window id, in the order they came."""
        self.edges: dict[tuple[int, int], Edge] = {}
        self._merged: dict[int, int] = {}
        """How many windows each node stands for."""

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def nbytes(self) -> int:
        """Bytes held, about."""
        return NODE_BYTES * len(self.nodes) + EDGE_BYTES * len(self.edges)

    def add(self, node: Node) -> None:
        """A new window."""
        self.nodes[node.window] = node
        self._merged[node.window] = 1

    def connect(
        self, a: int, b: int, rms: float, reach: float, a_from_b: Similarity | None = None, loop: bool = False
    ) -> None:
        """Say where b lies seen from a; without `a_from_b`, as placed now.

        `rms` is the alignment's error relative to depth, `reach` that depth, in the unit of b. A loop takes the place
        of no edge that holds the graph together.
        """
        known = self.edges.get((a, b))
        if loop and known is not None and not known.loop:
            return
        if a_from_b is None:
            a_from_b = compose(invert_similarity(self.nodes[a].map_from_node), self.nodes[b].map_from_node)
        sigma = max(self.config.certainty * rms, self.config.least_sigma)
        self.edges[a, b] = Edge(a_from_b.double(), sigma, reach, loop)
        loops = [pair for pair, edge in self.edges.items() if edge.loop] if loop else []
        for pair in loops[: -self.config.max_windows]:
            del self.edges[pair]

    def optimise(self, fixed_scale: bool) -> dict[int, Similarity] | None:
        """Pose graph optimisation: new_from_old (map to map) by node, to where the edges agree best, for `transform`.

        Levenberg–Marquardt over Sim(3), or SE(3) with `fixed_scale`; loops weigh by Huber's loss. The first node stays.
        None where that strains an edge between neighbours beyond `max_strain`. Nothing moves yet.
        """
        problem = _Problem(self, fixed_scale)
        solved = problem.solve()
        if problem.strain > self.config.max_strain:
            return None
        old = {window: node.map_from_node for window, node in self.nodes.items()}
        return {window: compose(pose, invert_similarity(old[window])) for window, pose in solved.items()}

    def transform(self, by_anchor: Mapping[int, Similarity], others: Similarity) -> None:
        """Let each node go where its correction (new_from_old) takes it, or `others`, where it has none."""
        for window, node in self.nodes.items():
            node.transform(by_anchor.get(window, others))

    def merge_old(self) -> dict[int, Node]:
        """Merge neighbours once there are more than `max_windows` nodes, a tenth at once; says by what stands in for
        each that is gone."""
        # How many have to go, and which pairs may merge: neighbours of which neither is among the newest.
        excess = len(self.nodes) - self.config.max_windows
        if excess <= 0:
            return {}
        wanted = excess + self.config.max_windows // 10
        old = set(list(self.nodes)[: -self.config.keep_recent])
        pairs = [pair for pair, edge in self.edges.items() if not edge.loop and old.issuperset(pair)]
        # Neighbours that stand for the fewest windows first, each in one merge at most.
        pairs.sort(key=lambda pair: self._merged[pair[0]] + self._merged[pair[1]])
        gone: dict[int, int] = {}
        touched: set[int] = set()
        for a, b in pairs:
            if len(gone) < wanted and touched.isdisjoint((a, b)):
                gone[b] = a
                touched |= {a, b}
        for b, a in gone.items():
            self._merge(a, b)
        return {b: self.nodes[a] for b, a in gone.items()}

    def absorb(self, other: PoseGraph) -> None:
        """Take in the nodes and edges of another graph, whose nodes lie in this one's map already."""
        self.nodes |= other.nodes
        self.edges |= other.edges
        self._merged |= other._merged

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        edges = list(self.edges.values())
        return {
            "nodes": torch.tensor([[node, self._merged[node]] for node in self.nodes], dtype=torch.int64).view(-1, 2),
            "poses": _matrices([node.map_from_node for node in self.nodes.values()]),
            "pairs": torch.tensor([[*pair, edge.loop] for pair, edge in self.edges.items()]).long().view(-1, 3),
            "edges": _matrices([edge.a_from_b for edge in edges]),
            "weights": torch.tensor([[edge.sigma, edge.reach] for edge in edges], dtype=torch.float64).view(-1, 2),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave; nothing of none."""
        if not tensors:
            return
        poses, edges = _similarities(tensors["poses"]), _similarities(tensors["edges"])
        for (node, merged), pose in zip(tensors["nodes"].tolist(), poses, strict=True):
            self.nodes[node] = Node(node, pose)
            self._merged[node] = merged
        rows = zip(tensors["pairs"].tolist(), edges, tensors["weights"].tolist(), strict=True)
        for (a, b, loop), pose, (sigma, reach) in rows:
            self.edges[a, b] = Edge(pose, sigma, reach, bool(loop))

    def _merge(self, a: int, b: int) -> None:
        """Let node a stand for b: b's edges begin or end at a, as far off as the two together."""
        between = self.edges.pop((a, b), None) or self.edges.pop((b, a))
        a_from_b = compose(invert_similarity(self.nodes[a].map_from_node), self.nodes[b].map_from_node)
        for (first, second), edge in [(pair, edge) for pair, edge in self.edges.items() if b in pair]:
            del self.edges[first, second]
            sigma = math.hypot(edge.sigma, between.sigma)
            if first == b:
                pair, moved, reach = (a, second), compose(a_from_b, edge.a_from_b), edge.reach
            else:
                pair, moved = (first, a), compose(edge.a_from_b, invert_similarity(a_from_b))
                reach = edge.reach * a_from_b.scale
            known = self.edges.get(pair)
            if pair[0] != pair[1] and (known is None or sigma < known.sigma):
                self.edges[pair] = replace(edge, a_from_b=moved, sigma=sigma, reach=reach)
        self._merged[a] += self._merged.pop(b)
        del self.nodes[b]


class _Problem:
    """A graph as gtsam sees it. Its similarities are x ↦ s · (R x + t), so translations are divided by the scale."""

    def __init__(self, graph: PoseGraph, fixed_scale: bool) -> None:
        self.fixed_scale = fixed_scale
        self.poses = {window: node.map_from_node for window, node in graph.nodes.items()}
        self.factors, self.values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        self._rigid: list[Any] = []
        self.strain = 0.0
        """Largest error of an edge that is no loop, in standard deviations, once solved."""
        # Start from where the nodes lie; the first one is held there, since edges alone fix no frame.
        for node, pose in self.poses.items():
            self.values.insert(node, self._pose(pose))
        first = next(iter(self.poses))
        noise = gtsam.noiseModel.Isotropic.Sigma(6 if fixed_scale else 7, _FIXED)
        prior = gtsam.PriorFactorPose3 if fixed_scale else gtsam.PriorFactorSimilarity3
        self.factors.add(prior(first, self._pose(self.poses[first]), noise))
        # One factor per edge.
        for (a, b), edge in graph.edges.items():
            self._add(a, b, edge)

    def solve(self) -> dict[int, Similarity]:
        """map_from_node of all nodes."""
        solution = gtsam.LevenbergMarquardtOptimizer(self.factors, self.values).optimize()
        self.strain = max((math.sqrt(2 * factor.error(solution)) for factor in self._rigid), default=0.0)
        return {node: self._similarity(solution, node, pose.scale) for node, pose in self.poses.items()}

    def _add(self, a: int, b: int, edge: Edge) -> None:
        # SE(3) has one unit, the map's; Sim(3) compares in the unit of node b.
        unit_a, unit_b = (self.poses[a].scale, self.poses[b].scale) if self.fixed_scale else (1.0, 1.0)
        # Radians, then lengths, then the logarithm of the scale.
        model = gtsam.noiseModel
        sigmas = [edge.sigma] * 3 + [edge.sigma * edge.reach * unit_b] * 3 + [edge.sigma] * (not self.fixed_scale)
        noise: gtsam.noiseModel.Base = model.Diagonal.Sigmas(torch.tensor(sigmas, dtype=torch.float64).numpy())
        # A loop may be wrong, so that it must not count for more the worse it fits.
        if edge.loop:
            noise = model.Robust.Create(model.mEstimator.Huber.Create(_HUBER), noise)
        between = gtsam.BetweenFactorPose3 if self.fixed_scale else gtsam.BetweenFactorSimilarity3
        relative = replace(edge.a_from_b, translation=edge.a_from_b.translation * unit_a)
        factor = between(a, b, self._pose(relative), noise)
        self.factors.add(factor)
        if not edge.loop:
            self._rigid.append(factor)

    def _pose(self, pose: Similarity) -> Any:
        rotation = gtsam.Rot3.ClosestTo(pose.rotation.numpy())
        if self.fixed_scale:
            return gtsam.Pose3(rotation, pose.translation.numpy())
        return gtsam.Similarity3(rotation, (pose.translation / pose.scale).numpy(), pose.scale)

    def _similarity(self, solution: Any, node: int, scale: float) -> Similarity:
        pose = solution.atPose3(node) if self.fixed_scale else solution.atSimilarity3(node)
        scale = scale if self.fixed_scale else float(pose.scale())
        translation = torch.from_numpy(pose.translation().copy()) * (1.0 if self.fixed_scale else scale)
        return Similarity(scale, torch.from_numpy(pose.rotation().matrix().copy()), translation)


def _matrices(poses: list[Similarity]) -> Tensor:
    """Rotation, translation and scale of each in 13 numbers."""
    rows = [torch.cat([pose.rotation.flatten(), pose.translation, torch.tensor([pose.scale])]) for pose in poses]
    return torch.stack(rows).double() if rows else torch.zeros(0, 13, dtype=torch.float64)


def _similarities(rows: Tensor) -> list[Similarity]:
    return [Similarity(float(row[12]), row[:9].view(3, 3).clone(), row[9:12].clone()) for row in rows]
