"""One connected part of what was seen: voxels, the graph of its windows, and what the next window is joined to."""

from __future__ import annotations

from collections.abc import Mapping

from ff3r_model.core.geometry import compose
from ff3r_model.core.types import Similarity
from ff3r_model.slam.placed_frames import SharedFrames
from ff3r_model.slam.pose_graph import PoseGraph
from ff3r_model.slam.reference.world_reference import Standing
from ff3r_model.voxel_map.config import ScaleInfo
from ff3r_model.voxel_map.voxel_map import VoxelMap


class Submap:
    """Everything lies in the map's frame and moves with the window, the node of the graph, that brought it."""

    def __init__(self, number: int, voxels: VoxelMap, graph: PoseGraph, standing: Standing) -> None:
        self.number, self.map, self.graph, self.standing = number, voxels, graph, standing
        self.shared: SharedFrames | None = None
        """Of the newest window; None before the first one."""
        self.newest: int | None = None
        """The newest window."""
        self.placed = Similarity()
        """map_from_window of the newest window."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.map.nbytes + self.graph.nbytes + self.shared_bytes

    @property
    def shared_bytes(self) -> int:
        """Bytes of the newest window's frames."""
        return 0 if self.shared is None else self.shared.nbytes

    def move(self, new_from_old: Mapping[int, Similarity]) -> None:
        """Let everything but the graph go where its window goes."""
        self.map.move(new_from_old)
        if self.newest is not None and self.newest in new_from_old:
            self._move_newest(new_from_old[self.newest])

    def turn(self, motion: Similarity) -> dict[int, Similarity]:
        """Move everything alike, the graph too; says by window how."""
        moves = dict.fromkeys(self.graph.nodes, motion)
        self.graph.move(motion)
        self.move(moves)
        return moves

    def rescale(self, factor: float, scale: ScaleInfo) -> None:
        """Multiply every length by `factor`, which gives the unit that `scale` tells."""
        self.map.rescale(factor, scale)
        self.graph.rescale(factor)
        self._move_newest(Similarity(factor))

    def absorb(self, other: Submap, map_from_other: Similarity) -> None:
        """Take in another submap, whose newest window is the newest of both from now on."""
        self.map.absorb(other.map, map_from_other)
        self.graph.absorb(other.graph, map_from_other)
        self.shared, self.newest, self.placed = other.shared, other.newest, other.placed
        self._move_newest(map_from_other)

    def _move_newest(self, motion: Similarity) -> None:
        self.placed = compose(motion, self.placed)
        self.shared = None if self.shared is None else self.shared.moved(motion)
