"""Place recognition: what a find is worth once the map has moved."""

from __future__ import annotations

import torch

from ff3r_model.core.geometry import compose, invert_similarity
from ff3r_model.core.node import Node
from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.slam.alignment import AlignConfig
from ff3r_model.slam.keyframe_archive import ArchivedFrame, KeyframeArchive
from ff3r_model.slam.place_recognition import LoopConfig, PlaceRecognition, Revisit


def frame(keyframe: int, node: Node) -> ArchivedFrame:
    thin, empty = torch.ones(2, 2).half(), torch.zeros(0, dtype=torch.uint8).numpy()
    return ArchivedFrame(
        keyframe, keyframe, node, empty, thin, 2.0, thin, torch.eye(3), None, torch.eye(4), torch.ones(4).half()
    )


def never(window: Window) -> Prediction:
    raise AssertionError("no joint window was to be asked for")


def test_finds_wait_for_confirmation_only_as_long_as_the_map_stays() -> None:
    places = PlaceRecognition(never, KeyframeArchive(10**6), LoopConfig(), AlignConfig())
    revisit = Revisit(frame(0, Node(0)), frame(1, Node(20)), Similarity(), 0.01, 2.0)
    places._found = [(20, revisit)]
    assert places.look(Node(21), 0) == [] and places._found
    assert places.look(Node(22), 1) == [] and not places._found
    places._found = [(20, revisit)]
    assert places.look(Node(33), 1) == [] and not places._found, "it has waited too long"


def test_what_a_revisit_says_of_its_nodes_survives_any_motion_of_the_map() -> None:
    """The edge takes the present node to where the correction puts it, also once both maps are turned and scaled."""
    before = Node(0, Similarity(2.0, torch.eye(3), torch.tensor([1.0, 0, 0])))
    now = Node(9, Similarity(0.5, torch.eye(3)[[1, 2, 0]], torch.tensor([0.0, 3.0, 0])))
    correction = Similarity(1.5, torch.eye(3)[[2, 0, 1]], torch.tensor([0.0, 0.0, 4.0]))
    revisit = Revisit(frame(0, before), frame(1, now), correction, 0.01, 3.0)
    edge, reach = revisit.before_from_now, revisit.node_reach
    placed = compose(before.map_from_node, edge)
    expected = compose(correction.double(), now.map_from_node)
    torch.testing.assert_close(placed.translation, expected.translation)
    torch.testing.assert_close(placed.rotation, expected.rotation)
    assert placed.scale * reach == 3.0, "the reach, in the unit of the earlier map"
    motion, other = Similarity(3.0, torch.eye(3), torch.ones(3)), Similarity(0.25)
    before.transform(motion)
    now.transform(other)
    moved = compose(compose(motion, correction).double(), invert_similarity(other.double()))
    again = Revisit(revisit.before, revisit.now, moved, 0.01, 9.0)
    torch.testing.assert_close(again.before_from_now.translation, edge.translation)
    assert abs(again.before_from_now.scale - edge.scale) < 1e-9 and abs(again.node_reach - reach) < 1e-9
