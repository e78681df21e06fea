"""The pose graph: where each window of a map lies, what says so, and where all of them lie best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ff3r_model.core.geometry import compose, invert_similarity
from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, check_range
from ff3r_model.core.types import Similarity

NODE_BYTES, EDGE_BYTES = 600, 900
"""What a node and an edge take in memory, Python's objects included: an estimate from above."""
_HUBER = 1.345
_FIXED = 1e-6


class SolverMissingError(ImportError):
    """gtsam, which optimises pose graphs, is not installed."""


@dataclass(frozen=True)
class GraphConfig:
    """Bounds and weights of the graph. All ours."""

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
    """What one alignment says: where node b lies, seen from node a."""

    a_from_b: Similarity
    sigma: float
    """Standard deviation: radians, share of scale and, times `reach`, of the translation."""
    reach: float
    """Typical depth, in the map's unit."""
    loop: bool


class PoseGraph:
    """Nodes are anchor frames, map_from_node; each starts with the map's unit, so edges are in the map's unit too."""

    def __init__(self, config: GraphConfig | None = None) -> None:
        self.config = config or GraphConfig()
        self.nodes: dict[int, Similarity] = {}
        """map_from_node by window id, in the order they came."""
        self.edges: dict[tuple[int, int], Edge] = {}
        self._merged: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def nbytes(self) -> int:
        """Bytes held, about."""
        return NODE_BYTES * len(self.nodes) + EDGE_BYTES * len(self.edges)

    def add(self, node: int, map_from_node: Similarity) -> None:
        """A new window."""
        self.nodes[node] = _double(replace(map_from_node, scale=1.0))
        self._merged[node] = 1

    def connect(
        self, a: int, b: int, rms: float, reach: float, correction: Similarity | None = None, loop: bool = False
    ) -> None:
        """Say where b lies seen from a: as placed now, or after `correction` (map_from_map) of b alone.

        `rms` is the alignment's error relative to depth, `reach` the depth.
        """
        map_from_b = self.nodes[b] if correction is None else compose(_double(correction), self.nodes[b])
        sigma = max(self.config.certainty * rms, self.config.least_sigma)
        self.edges[a, b] = Edge(compose(invert_similarity(self.nodes[a]), map_from_b), sigma, reach, loop)
        loops = [pair for pair, edge in self.edges.items() if edge.loop] if loop else []
        for pair in loops[: -self.config.max_windows]:
            del self.edges[pair]

    def optimise(self, fixed_scale: bool) -> dict[int, Similarity] | None:
        """Move the nodes to where the edges agree best; new_from_old (map to map) by node. The first node stays.

        Levenberg–Marquardt over Sim(3), or SE(3) with `fixed_scale`; loops weigh by Huber's loss. None, and nothing
        moves, where that strains an edge between neighbours beyond `max_strain`. Raises SolverMissingError.
        """
        problem = _Problem(self, _solver(), fixed_scale)
        solved = problem.solve()
        if problem.strain > self.config.max_strain:
            return None
        moves = {node: compose(solved[node], invert_similarity(old)) for node, old in self.nodes.items()}
        self.nodes = solved
        return moves

    def merge_old(self) -> dict[int, int]:
        """Merge neighbours once there are more than `max_windows` nodes, a tenth at once: node of each that is gone."""
        excess = len(self.nodes) - self.config.max_windows
        if excess <= 0:
            return {}
        wanted = excess + self.config.max_windows // 10
        old = set(list(self.nodes)[: -self.config.keep_recent])
        pairs = [pair for pair, edge in self.edges.items() if not edge.loop and old.issuperset(pair)]
        pairs.sort(key=lambda pair: self._merged[pair[0]] + self._merged[pair[1]])
        gone: dict[int, int] = {}
        touched: set[int] = set()
        for a, b in pairs:
            if len(gone) < wanted and touched.isdisjoint((a, b)):
                gone[b] = a
                touched |= {a, b}
        for b, a in gone.items():
            self._merge(a, b)
        return gone

    def move(self, motion: Similarity) -> None:
        """Put all nodes into another frame; what lies between them stays."""
        self.nodes = {node: compose(_double(motion), pose) for node, pose in self.nodes.items()}

    def rescale(self, factor: float) -> None:
        """Multiply every length by `factor`."""
        self.nodes = {node: replace(pose, translation=pose.translation * factor) for node, pose in self.nodes.items()}
        for pair, edge in self.edges.items():
            moved = replace(edge.a_from_b, translation=edge.a_from_b.translation * factor)
            self.edges[pair] = replace(edge, a_from_b=moved, reach=edge.reach * factor)

    def absorb(self, other: PoseGraph, map_from_other: Similarity) -> None:
        """Take in the nodes and edges of another map's graph."""
        unit = map_from_other.scale
        graph = PoseGraph(self.config)
        graph.nodes, graph.edges = dict(other.nodes), dict(other.edges)
        graph.rescale(unit)
        turn = _double(replace(map_from_other, scale=1.0))
        self.nodes |= {node: compose(turn, pose) for node, pose in graph.nodes.items()}
        self.edges |= graph.edges
        self._merged |= other._merged

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        edges = list(self.edges.values())
        return {
            "nodes": torch.tensor([[node, self._merged[node]] for node in self.nodes], dtype=torch.int64).view(-1, 2),
            "poses": _matrices(list(self.nodes.values())),
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
            self.nodes[node], self._merged[node] = pose, merged
        rows = zip(tensors["pairs"].tolist(), edges, tensors["weights"].tolist(), strict=True)
        for (a, b, loop), pose, (sigma, reach) in rows:
            self.edges[a, b] = Edge(pose, sigma, reach, bool(loop))

    def _merge(self, a: int, b: int) -> None:
        """Let node a stand for b: b's edges begin or end at a, as far off as the two together."""
        between = self.edges.pop((a, b), None) or self.edges.pop((b, a))
        a_from_b = compose(invert_similarity(self.nodes[a]), self.nodes[b])
        for (first, second), edge in [(pair, edge) for pair, edge in self.edges.items() if b in pair]:
            del self.edges[first, second]
            sigma = math.hypot(edge.sigma, between.sigma)
            if first == b:
                pair, moved = (a, second), compose(a_from_b, edge.a_from_b)
            else:
                pair, moved = (first, a), compose(edge.a_from_b, invert_similarity(a_from_b))
            known = self.edges.get(pair)
            if pair[0] != pair[1] and (known is None or sigma < known.sigma):
                self.edges[pair] = replace(edge, a_from_b=moved, sigma=sigma)
        self._merged[a] += self._merged.pop(b)
        del self.nodes[b]


class _Problem:
    """A graph as gtsam sees it. Its similarities are x ↦ s · (R x + t), so translations are divided by the scale."""

    def __init__(self, graph: PoseGraph, gtsam: ModuleType, fixed_scale: bool) -> None:
        self.gtsam, self.fixed_scale, self.graph = gtsam, fixed_scale, graph
        self.factors, self.values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        self._rigid: list[Any] = []
        self.strain = 0.0
        """Largest error of an edge that is no loop, in standard deviations, once solved."""
        for node, pose in graph.nodes.items():
            self.values.insert(node, self._pose(pose))
        first = next(iter(graph.nodes))
        noise = gtsam.noiseModel.Isotropic.Sigma(6 if fixed_scale else 7, _FIXED)
        prior = gtsam.PriorFactorPose3 if fixed_scale else gtsam.PriorFactorSimilarity3
        self.factors.add(prior(first, self._pose(graph.nodes[first]), noise))
        for (a, b), edge in graph.edges.items():
            self._add(a, b, edge)

    def solve(self) -> dict[int, Similarity]:
        """map_from_node of all nodes."""
        solution = self.gtsam.LevenbergMarquardtOptimizer(self.factors, self.values).optimize()
        self.strain = max((math.sqrt(2 * factor.error(solution)) for factor in self._rigid), default=0.0)
        return {node: self._similarity(solution, node, pose.scale) for node, pose in self.graph.nodes.items()}

    def _add(self, a: int, b: int, edge: Edge) -> None:
        gtsam, model = self.gtsam, self.gtsam.noiseModel
        sigmas = [edge.sigma] * 3 + [edge.sigma * edge.reach] * 3 + [edge.sigma] * (not self.fixed_scale)
        noise = model.Diagonal.Sigmas(torch.tensor(sigmas, dtype=torch.float64).numpy())
        if edge.loop:
            noise = model.Robust.Create(model.mEstimator.Huber.Create(_HUBER), noise)
        between = gtsam.BetweenFactorPose3 if self.fixed_scale else gtsam.BetweenFactorSimilarity3
        scale = self.graph.nodes[a].scale if self.fixed_scale else 1.0
        relative = replace(edge.a_from_b, translation=edge.a_from_b.translation * scale)
        factor = between(a, b, self._pose(relative), noise)
        self.factors.add(factor)
        if not edge.loop:
            self._rigid.append(factor)

    def _pose(self, pose: Similarity) -> Any:
        rotation = self.gtsam.Rot3.ClosestTo(pose.rotation.numpy())
        if self.fixed_scale:
            return self.gtsam.Pose3(rotation, pose.translation.numpy())
        return self.gtsam.Similarity3(rotation, (pose.translation / pose.scale).numpy(), pose.scale)

    def _similarity(self, solution: Any, node: int, scale: float) -> Similarity:
        pose = solution.atPose3(node) if self.fixed_scale else solution.atSimilarity3(node)
        scale = scale if self.fixed_scale else float(pose.scale())
        translation = torch.from_numpy(pose.translation().copy()) * (1.0 if self.fixed_scale else scale)
        return Similarity(scale, torch.from_numpy(pose.rotation().matrix().copy()), translation)


def _solver() -> ModuleType:
    try:
        import gtsam
    except ImportError as error:
        raise SolverMissingError(f"loops need gtsam, which cannot be imported: {error}; pip install gtsam") from error
    module: ModuleType = gtsam
    return module


def _double(pose: Similarity) -> Similarity:
    return Similarity(pose.scale, pose.rotation.double().cpu(), pose.translation.double().cpu())


def _matrices(poses: list[Similarity]) -> Tensor:
    """Rotation, translation and scale of each in 13 numbers."""
    rows = [torch.cat([pose.rotation.flatten(), pose.translation, torch.tensor([pose.scale])]) for pose in poses]
    return torch.stack(rows).double() if rows else torch.zeros(0, 13, dtype=torch.float64)


def _similarities(rows: Tensor) -> list[Similarity]:
    return [Similarity(float(row[12]), row[:9].view(3, 3).clone(), row[9:12].clone()) for row in rows]
