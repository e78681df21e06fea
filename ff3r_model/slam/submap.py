"""One connected part of what was seen: voxels, the pose graph of its windows, and its reference to the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.node import Node
from ff3r_model.core.types import Cameras, Gaussians, Prediction, Similarity, Window
from ff3r_model.slam.alignment import AlignConfig, Alignment, align_window
from ff3r_model.slam.placed_frames import PlacedFrames, thinned_prediction
from ff3r_model.slam.pose_graph import PoseGraph
from ff3r_model.slam.reference.world_reference import WorldReference
from ff3r_model.voxel_map.voxel_map import VoxelMap


class Submap:
    """A map of its own. Keyframes move with the graph's nodes by themselves, so that `transform` has few to move."""

    def __init__(self, number: int, voxels: VoxelMap, graph: PoseGraph, reference: WorldReference) -> None:
        self.number = number
        self.map = voxels
        self.graph = graph
        self.reference = reference
        self.frames: PlacedFrames | None = None
        """Of the newest window, which the next one is aligned to; None before the first one and after loading."""
        self._adopt(graph.nodes)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.map.nbytes + self.graph.nbytes + (0 if self.frames is None else self.frames.nbytes)

    def outdoes(self, shown: Submap) -> bool:
        """Whether it is the better one to show: more keyframes (more voxels where equal), and metres if `shown` has."""
        if shown.map.metric and not self.map.metric:
            return False
        return (len(self.map.keyframes), len(self.map)) > (len(shown.map.keyframes), len(shown.map))

    @property
    def newest(self) -> Node:
        """The newest window's node."""
        assert self.frames is not None
        return self.frames.node

    def locate(self, window: Window, prediction: Prediction, config: AlignConfig) -> Alignment:
        """Where the window lies: aligned to the newest window's frames, then held to what is known of up and floor."""
        assert self.frames is not None
        thin = thinned_prediction(prediction, config.long_side)
        scale = self.reference.known_scale(window, prediction, self.map.scale)
        alignment = align_window(thin, window, self.frames, config, scale)
        if not alignment.accepted:
            return alignment
        held = self.reference.pull_towards(window, prediction, alignment.map_from_window)
        return replace(alignment, map_from_window=held)

    def integrate(
        self,
        frames: PlacedFrames,
        new: PlacedFrames,
        stamps: Sequence[int],
        gaussians: Gaussians,
        rms: float,
        beside: Node | None = None,
    ) -> None:
        """Take in a window: the frames that the next one is aligned to, the new views and their placed Gaussians.

        `rms` is its alignment's, to the node `beside` or to the newest window.
        """
        node = new.node
        # What the new views look through fades, what they see is merged.
        self.map.fade(Cameras(invert_rigid(new.map_from_camera), new.intrinsics), new.depth, new.confidence)
        self.map.integrate(gaussians, node.window)
        # A node of the pose graph, an edge to the one that it was aligned to, and the keyframes that move with it.
        self.graph.add(node)
        beside = beside or (None if self.frames is None else self.newest)
        if beside is not None:
            self.graph.connect(beside.window, node.window, rms, float(frames.node_depth.median()))
        self.map.add_keyframes(new.keyframes, stamps, new.map_from_camera, node)
        self.frames = frames

    def transform(self, by_anchor: Mapping[int, Similarity], others: Similarity) -> None:
        """Move each window by its correction (new_from_old), or all of the submap alike by `others`."""
        self.graph.transform(by_anchor, others)
        self.map.transform(by_anchor, others)
        self.reference.transform(others)

    def merge_old_windows(self) -> dict[int, Node]:
        """Bring the graph within its bounds; says by what stands in for each window that is gone."""
        stand_ins = self.graph.merge_old()
        if stand_ins:
            self.map.reanchor(stand_ins)
        return stand_ins

    def absorb(self, other: Submap, map_from_other: Similarity) -> None:
        """Take in another submap, whose newest window is the newest of both from now on."""
        self.map.absorb(other.map, map_from_other)
        other.graph.transform({}, map_from_other)
        other.reference.transform(map_from_other)
        self._adopt(other.graph.nodes)
        self.graph.absorb(other.graph)
        self.reference.inherit_floor(other.reference)
        self.frames = other.frames

    def anchor_floor(self) -> None:
        """Put the floor below the keyframes."""
        self.reference.anchor_floor(torch.stack([pose[:3, 3] for _, pose in self.map.trajectory()]))

    def _adopt(self, nodes: Mapping[int, Node]) -> None:
        """Let nodes be this submap's, and keyframes move with them."""
        for node in nodes.values():
            node.submap = self.number
        self.map.keyframes.reanchor(nodes)


def certain_gaussians(prediction: Prediction, views: Int[Tensor, " n"], drop: float) -> Gaussians:
    """The Gaussians of some views, without the least certain share of them and those of no confidence, which move."""
    confidence = prediction.depth_confidence[views.to(prediction.depth.device)]
    sample = confidence.flatten()[:: 1 + confidence.numel() // 100_000]
    keep = torch.zeros_like(prediction.depth, dtype=torch.bool)
    keep[views] = (confidence >= torch.quantile(sample, drop)) & (confidence > 0)
    return prediction.gaussians.select(keep.flatten())
