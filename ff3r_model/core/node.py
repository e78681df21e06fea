"""A node of the pose graph: what is kept relative to it moves with it, by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import compose, invert_similarity, rigid, transform_pose
from ff3r_model.core.types import Similarity


@dataclass(eq=False)
class Node:
    """A window's own frame, and where that lies in its submap.

    Keyframes are kept as `node_from_camera`, lengths in the node's unit. Reading multiplies by `map_from_node`, all
    that an optimisation of the pose graph, a turn or a change of scale has to change. It is in float64.
    """

    window: int
    map_from_node: Similarity = field(default_factory=Similarity)
    submap: int = 0
    """Number of the submap that it is part of."""

    def __post_init__(self) -> None:
        self.map_from_node = self.map_from_node.double()

    def place(self, node_from_camera: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
        """map_from_camera, computed in float64."""
        return transform_pose(self.map_from_node, node_from_camera.double()).to(node_from_camera)

    def relative(self, map_from_camera: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
        """node_from_camera, computed in float64."""
        node_from_map = invert_similarity(self.map_from_node)
        return transform_pose(node_from_map, map_from_camera.double()).to(map_from_camera)

    def transform(self, new_from_old: Similarity) -> None:
        """Go elsewhere in the map, or into another; computed in float64."""
        self.map_from_node = compose(new_from_old.double(), self.map_from_node)


def place_each(nodes: Sequence[Node], node_from_camera: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """map_from_camera of poses that are each relative to a node of its own: `Node.place` for many at once."""
    distinct = list(dict.fromkeys(nodes))
    row = {node: index for index, node in enumerate(distinct)}
    which = torch.tensor([row[node] for node in nodes], dtype=torch.int64)
    places = [node.map_from_node for node in distinct]
    rotations = torch.stack([place.rotation for place in places])[which]
    translations = torch.stack([place.translation for place in places])[which]
    scales = torch.tensor([place.scale for place in places], dtype=torch.float64)[which]
    poses = node_from_camera.double()
    centres = scales[:, None] * (rotations @ poses[:, :3, 3:]).squeeze(2) + translations
    return rigid(rotations @ poses[:, :3, :3], centres).to(node_from_camera)
