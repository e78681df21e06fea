"""The pose graph against least squares by SciPy, by hand, and over long chains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import apply_similarity, compose, invert_similarity
from ff3r_model.core.node import Node
from ff3r_model.core.types import Similarity
from ff3r_model.slam.pose_graph import GraphConfig, PoseGraph

HERE = Similarity(1.0, torch.eye(3).double(), torch.zeros(3).double())


def similarity(rng: np.random.Generator, spread: float, scale: float = 0.0) -> Similarity:
    """Near the identity."""
    turn = torch.tensor(Rotation.from_rotvec(spread * rng.normal(size=3)).as_matrix())
    return Similarity(math.exp(scale * rng.normal()), turn, torch.tensor(spread * rng.normal(size=3)))


def circle(count: int, drift: Similarity) -> PoseGraph:
    """A chain once around a circle, each step a little off, and the loop edge that says where it should end."""
    graph = PoseGraph(GraphConfig(max_strain=1e3))
    turn = Rotation.from_euler("z", 2 * math.pi / count).as_matrix()
    step = Similarity(1.0, torch.tensor(turn), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    here = HERE
    for node in range(count):
        graph.add(Node(node, Similarity(1.0, here.rotation, here.translation)))
        if node:
            graph.connect(node - 1, node, rms=0.05, reach=2.0)
        here = compose(compose(here, step), drift)
    graph.connect(0, count - 1, 0.05, 2.0, invert_similarity(step), loop=True)
    return graph


def poses(graph: PoseGraph) -> dict[int, Similarity]:
    return {window: node.map_from_node for window, node in graph.nodes.items()}


@pytest.mark.parametrize("fixed", [False, True])
def test_least_squares_agrees_with_scipy(fixed: bool) -> None:
    """Loss and minimum of a small loop: no other poses have a smaller loss, by SciPy's solver from the same start."""
    rng = np.random.default_rng(0)
    graph = circle(8, similarity(rng, 0.01, 0.0 if fixed else 0.02))
    edges = {pair: (edge.a_from_b, edge.sigma, edge.reach, edge.loop) for pair, edge in graph.edges.items()}
    before = poses(graph)
    moves = graph.optimise(fixed)
    assert moves is not None
    assert poses(graph) == before, "nothing moves yet"
    graph.transform(moves, HERE)

    def unpack(x: np.ndarray) -> dict[int, Similarity]:
        poses = {0: before[0]}
        for node, row in enumerate(x.reshape(-1, 7), start=1):
            scale = 1.0 if fixed else math.exp(row[6])
            poses[node] = Similarity(
                scale, torch.tensor(Rotation.from_rotvec(row[:3]).as_matrix()), torch.tensor(row[3:6])
            )
        return poses

    def residuals(poses: dict[int, Similarity]) -> np.ndarray:
        rows = []
        for (a, b), (measured, sigma, reach, loop) in edges.items():
            error = compose(invert_similarity(measured), compose(invert_similarity(poses[a]), poses[b]))
            turn = Rotation.from_matrix(error.rotation.numpy()).as_rotvec() / sigma
            shift = error.translation.numpy() / sigma / reach / error.scale
            size = 0 if fixed else math.log(error.scale) / sigma
            row = np.array([*turn, *shift, size])
            length = np.linalg.norm(row)
            huber = math.sqrt(2 * 1.345 * length - 1.345**2) / length if loop and length > 1.345 else 1.0
            rows.append(huber * row)
        return np.concatenate(rows)

    start = np.concatenate([[*Rotation.from_matrix(p.rotation.numpy()).as_rotvec(), *p.translation, math.log(p.scale)]
                            for p in list(before.values())[1:]])  # fmt: skip
    best = least_squares(lambda x: residuals(unpack(x)), start)
    ours = float(np.square(residuals(poses(graph))).sum())
    assert ours < float(np.square(residuals(before)).sum()) / 3
    assert ours == pytest.approx(2 * best.cost, rel=0.02)
    for node, move in moves.items():
        there = compose(move, before[node])
        assert there.translation.allclose(graph.nodes[node].map_from_node.translation, atol=1e-9)
    assert moves[0].translation.norm() < 1e-4, "the first node stays"


def test_a_loop_that_tears_the_chain_is_refused_and_nothing_moves() -> None:
    graph = circle(6, Similarity())
    graph.config = GraphConfig(max_strain=3.0)
    wrong = Similarity(1.0, torch.eye(3).double(), torch.tensor([8.0, 0, 0]).double())
    for back in (0, 1, 2):
        edge = compose(invert_similarity(graph.nodes[back].map_from_node), compose(wrong, graph.nodes[5].map_from_node))
        graph.connect(back, 5, 0.01, 1.0, edge, loop=True)
    before = poses(graph)
    assert graph.optimise(fixed_scale=False) is None
    assert poses(graph) == before


def test_two_thousand_windows_keep_few_nodes_and_their_loops() -> None:
    graph = PoseGraph(GraphConfig(max_windows=100, keep_recent=20))
    rng = np.random.default_rng(1)
    here, stands_for = HERE, {}
    for node in range(2000):
        graph.add(Node(node, here))
        stands_for[node] = node
        if node:
            graph.connect(node - 1, node, 0.05, 2.0)
        if node % 50 == 49:
            graph.connect(min(graph.nodes), node, 0.05, 2.0, loop=True)
        here = compose(here, similarity(rng, 0.1))
        here = Similarity(1.0, here.rotation, here.translation)
        gone = graph.merge_old()
        stands_for = {key: gone[value].window if value in gone else value for key, value in stands_for.items()}
        assert len(graph) <= 101 and graph.nbytes < 101 * 2400
    assert set(stands_for.values()) == set(graph.nodes), "every window is stood for by a node that is there"
    assert set(range(1980, 2000)) <= set(graph.nodes)
    for (a, b), edge in graph.edges.items():
        expected = compose(invert_similarity(graph.nodes[a].map_from_node), graph.nodes[b].map_from_node)
        assert edge.a_from_b.translation.allclose(expected.translation, atol=1e-5), "merging keeps what edges say"
        assert edge.a_from_b.rotation.allclose(expected.rotation, atol=1e-5)
    moves = graph.optimise(fixed_scale=False)
    assert moves is not None
    assert max(float(move.translation.norm()) for move in moves.values()) < 1e-3


def test_scaling_and_joining_keep_what_edges_say() -> None:
    rng = np.random.default_rng(2)
    graph, other = circle(5, similarity(rng, 0.02)), circle(5, Similarity())
    shifted = PoseGraph()
    shifted.nodes = {window + 10: Node(window + 10, node.map_from_node) for window, node in other.nodes.items()}
    shifted.edges = {(a + 10, b + 10): edge for (a, b), edge in other.edges.items()}
    shifted._merged = {window: 1 for window in shifted.nodes}
    motion = Similarity(2.5, similarity(rng, 1.0).rotation, torch.tensor([1.0, 2, 3]).double())
    where = apply_similarity(motion, shifted.nodes[13].map_from_node.translation)
    half = graph.nodes[3].map_from_node.translation / 2
    graph.transform({}, Similarity(0.5))
    assert graph.nodes[3].map_from_node.translation.allclose(half)
    shifted.transform({}, motion)
    graph.absorb(shifted)
    assert graph.nodes[13].map_from_node.translation.allclose(where)
    assert len(graph) == 10
    for a, b, unit in ((12, 13, 2.5), (2, 3, 0.5)):
        expected = compose(invert_similarity(graph.nodes[a].map_from_node), graph.nodes[b].map_from_node)
        assert graph.edges[a, b].a_from_b.translation.allclose(expected.translation)
        assert graph.edges[a, b].a_from_b.scale == pytest.approx(expected.scale)
        assert graph.edges[a, b].reach * graph.nodes[b].map_from_node.scale == pytest.approx(2.0 * unit)


@pytest.mark.parametrize("fixed", [False, True])
def test_the_optimum_does_not_hang_on_the_nodes_units(fixed: bool) -> None:
    """The same loop with nodes of units of their own, as windows have, and in a map of another unit."""
    rng = np.random.default_rng(4)
    plain = circle(8, similarity(rng, 0.02, 0.0 if fixed else 0.02))
    odd, units = PoseGraph(plain.config), [float(unit) for unit in rng.uniform(0.3, 3.0, 8)]
    for window, node in plain.nodes.items():
        odd.add(Node(window, compose(node.map_from_node, Similarity(units[window]))))
    for (a, b), edge in plain.edges.items():
        relative = compose(Similarity(1 / units[a]).double(), compose(edge.a_from_b, Similarity(units[b])))
        odd.connect(a, b, 0.05, 2.0 / units[b], relative, edge.loop)
    odd.transform({}, Similarity(1.7))
    for graph in (plain, odd):
        moves = graph.optimise(fixed)
        assert moves is not None
        graph.transform(moves, HERE)
    for window in plain.nodes:
        found, expected = odd.nodes[window].map_from_node, plain.nodes[window].map_from_node
        torch.testing.assert_close(found.translation / 1.7, expected.translation, atol=2e-3, rtol=0)
        torch.testing.assert_close(found.rotation, expected.rotation, atol=1e-3, rtol=0)
        assert found.scale / 1.7 / units[window] == pytest.approx(expected.scale, abs=1e-3)


def test_a_graph_comes_back_from_its_tensors() -> None:
    graph = circle(6, similarity(np.random.default_rng(3), 0.02))
    again = PoseGraph()
    again.restore({name: tensor.clone() for name, tensor in graph.tensors().items()})
    assert again.nodes.keys() == graph.nodes.keys() and again.edges.keys() == graph.edges.keys()
    for pair, edge in graph.edges.items():
        assert again.edges[pair].a_from_b.translation.equal(edge.a_from_b.translation)
        assert (again.edges[pair].loop, again.edges[pair].sigma) == (edge.loop, edge.sigma)
    empty = PoseGraph()
    empty.restore(PoseGraph().tensors())
    assert not len(empty)
