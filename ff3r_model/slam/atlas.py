"""All submaps, and the one budget of bytes that they share with the archive."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from jaxtyping import Int
from torch import Tensor

from ff3r_model.core.geometry import compose
from ff3r_model.core.node import Node
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.gaussians.transform import transform_gaussians
from ff3r_model.slam.alignment import Alignment
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.keyframe_archive import KeyframeArchive, archived
from ff3r_model.slam.placed_frames import PlacedFrames
from ff3r_model.slam.pose_graph import EDGE_BYTES, NODE_BYTES, PoseGraph
from ff3r_model.slam.reference.world_reference import WorldReference
from ff3r_model.slam.submap import Submap, certain_gaussians
from ff3r_model.voxel_map.config import NO_WINDOW, MapConfig
from ff3r_model.voxel_map.trajectory import KEYFRAME_BYTES
from ff3r_model.voxel_map.voxel_map import VoxelMap

log = logging.getLogger(__name__)

WINDOW_BYTES = NODE_BYTES + 2 * EDGE_BYTES
"""Most that a window costs in the graph: its node, the edge to its neighbour, and as many loops as windows."""
SCALE_SAMPLE = 20_000
"""Samples of what was seen that are looked at for what lies under a floor."""
_BUDGET_STEP = 64
"""The active map's budget changes in steps of this part of the cap, since lowering it copies the map."""


class Atlas:
    """The active submap, the others, and the archive of all their keyframes; never above `max_map_bytes` in sum.

    The archive and the graph have shares of their own. Submaps that are not active keep what they hold, up to
    `inactive_share` of the rest; the active one's voxels have what is left.
    """

    def __init__(self, config: MappingConfig, space: TextSpace | int, like: MapConfig | None = None) -> None:
        """`like`: what voxels are, where a file has settled that. ValueError where `max_map_bytes` is too small."""
        self.config, self.space, self.cap = config, space, config.map.max_map_bytes
        self.map_config = self._bounded(like or config.map)
        self.archive = KeyframeArchive(int(config.archive_share * self.cap), config.archive)
        self.others: dict[int, Submap] = {}
        self.next_window = 0
        self.next_submap = 0
        self.corrections = 0
        """How often something in the atlas has moved, has become part of something else, or was forgotten."""
        self._shared_bytes = 0
        self.active = self.new_submap()
        self.shown = self.active
        """What users see: the last good submap, until the active one is joined to it or outdoes it."""

    @property
    def nbytes(self) -> int:
        """Bytes of everything held."""
        return self.archive.nbytes + self.active.nbytes + sum(other.nbytes for other in self.others.values())

    def submap(self, number: int) -> Submap:
        """One of them by number. Raises KeyError."""
        return self.active if number == self.active.number else self.others[number]

    def new_submap(
        self, voxels: VoxelMap | None = None, number: int | None = None, graph: Mapping[str, Tensor] | None = None
    ) -> Submap:
        """An empty submap of the next number, or one around voxels and the tensors of a pose graph."""
        config = self.config
        reference = WorldReference(config.scale, config.camera_height, config.ground_weight, config.gravity)
        windows = self._max_windows()
        recent = max(min(config.graph.keep_recent, windows // 2), 1)
        pose_graph = PoseGraph(replace(config.graph, max_windows=windows, keep_recent=recent))
        pose_graph.restore(graph or {})
        number = self.next_submap if number is None else number
        self.next_submap = max(self.next_submap, number + 1)
        return Submap(number, self._empty() if voxels is None else voxels, pose_graph, reference)

    def begin(self) -> Submap:
        """Put the active submap aside and begin a new one."""
        before, self.active = self.active, self.new_submap()
        before.frames = None
        self.others[before.number] = before
        self._squeeze()
        self.share_out()
        return self.active

    def resume(self, number: int) -> None:
        """Go on in another submap, or in the active one at another place: the next window is aligned to no other."""
        if number != self.active.number:
            before, self.active = self.active, self.others.pop(number)
            before.frames = None
            self.others[before.number] = before
            self._squeeze()
        self.active.frames = None
        self.share_out()

    def choose_shown(self) -> bool:
        """Show the active submap from now on, where it is the better one; True where it was not shown before."""
        if not self.active.outdoes(self.shown):
            return False
        log.info("submap %d is the map now, in place of %d", self.active.number, self.shown.number)
        self.shown = self.active
        return True

    def take_over(self, submaps: dict[int, Submap], active: int) -> None:
        """Go on with these submaps in place of all there were; `active`, or one that outdoes it, is shown and active.

        Nothing of a file grows, so that what was active when it was written is nothing special.
        """
        self.shown = submaps[active]
        for submap in submaps.values():
            self.shown = submap if submap.outdoes(self.shown) else self.shown
        self.active = self.shown
        self.others = {number: submap for number, submap in submaps.items() if submap is not self.active}
        seen = [submap.map.tensors()["voxels.last_seen"] for submap in submaps.values() if len(submap.map)]
        nodes = [node for submap in submaps.values() for node in submap.graph.nodes]
        self.next_window = 1 + max([NO_WINDOW, *nodes, *(int(each.max()) for each in seen)])
        self._squeeze()
        self.share_out()

    def share_out(self, shared_bytes: int = 0) -> None:
        """Give the active map's voxels what nobody else holds; a window's frames take up to `shared_bytes`."""
        self._shared_bytes = max(self._shared_bytes, shared_bytes)
        reserved = self.archive.budget + self._max_windows() * WINDOW_BYTES + self._shared_bytes
        spare = self.cap - reserved - sum(other.nbytes for other in self.others.values())
        step = self.cap // _BUDGET_STEP
        spare = max(spare // step * step, 0)
        if spare != self.active.map.config.max_map_bytes:
            self.active.map.set_budget(spare)

    def integrate(
        self,
        window: Window,
        prediction: Prediction,
        alignment: Alignment,
        fresh: Int[Tensor, " fresh"],
        beside: Node | None = None,
    ) -> None:
        """Put a window that has been located into the active submap, with its `fresh` views as keyframes.

        `beside`: the node that it was located by, where that is not the newest.
        """
        config, active = self.config, self.active
        # Its node of the pose graph, which all that it brings is relative to.
        node = Node(self.next_window, alignment.map_from_window, active.number)
        self.next_window += 1
        placed = PlacedFrames.of(prediction, window, node)
        # What the next window will be aligned to, and room for it.
        frames = placed.thinned(config.align.long_side)
        frames = frames.select(fresh) if active.frames is None else frames
        self.share_out(frames.nbytes)
        # Its voxels, node, edge and keyframes; then the archive.
        certain = certain_gaussians(prediction, fresh, config.drop_uncertain)
        gaussians = transform_gaussians(alignment.map_from_window, certain)
        if config.distrust(prediction.quality):
            active.map.untrusted.add(node.window)
        stamps = [window.stamps[view] for view in fresh]
        active.integrate(frames, placed.select(fresh), stamps, gaussians, alignment.rms, beside)
        self.archive.add(archived(window, prediction, placed, fresh, config.archive))
        # As many nodes as the graph may have.
        stand_ins = active.merge_old_windows()
        if stand_ins:
            self.archive.reanchor(stand_ins)
            self.corrections += 1

    def transform(self, by_anchor: Mapping[int, Similarity], others: Similarity | None = None) -> None:
        """Correct the active submap: each window by its new_from_old of the pose graph, or all of it by `others`.

        The one place where anything moves. What is kept relative to nodes, as the archive's keyframes, is not told.
        """
        self.active.transform(by_anchor, others or Similarity())
        self.corrections += 1

    def hold_to_world(self, window: Window, prediction: Prediction) -> bool:
        """Learn scale, up and floor from the newest window, if that is trusted; True where all of it moved."""
        active, reference = self.active, self.active.reference
        if self.config.distrust(prediction.quality):
            return False
        # Up: the map is turned where a sensor, or the floor, says for the first time which way that is.
        turn = reference.gravity.observe(window, prediction, active.newest.map_from_node)
        if turn is not None:
            self.transform({}, turn)
            log.info("the map was turned upright: up is known from %s", reference.gravity.source)
        # Scale, once enough windows have measured it, and again where a better source has, or more windows; the floor.
        points = active.map.gaussians(active.map.seen_rows(SCALE_SAMPLE)).means
        scale = reference.observe_scale(window, prediction, active.newest.map_from_node, active.map.scale, points)
        if scale is not None:
            active.map.scale = scale
        if scale is not None and scale.metric:
            self.transform({}, Similarity(scale.factor))
            active.anchor_floor()
            log.info("the map is metric: 1 unit was %.3f m, by %s", scale.factor, scale.source)
        return turn is not None or scale is not None

    def join(self, number: int, map_from_active: Similarity) -> None:
        """Let the active submap become part of another, which is active then. The other's frame stays, and its unit,
        unless only the active one is metric."""
        into, active = self.others.pop(number), self.active
        if active.map.metric and not into.map.metric:
            factor = 1 / map_from_active.scale
            into.transform({}, Similarity(factor))
            into.map.scale = active.map.scale
            map_from_active = compose(Similarity(factor), map_from_active)
        into.absorb(active, map_from_active)
        self.shown = into if self.shown is active else self.shown
        self.active = into
        self.corrections += 1
        self.share_out()

    def _empty(self) -> VoxelMap:
        channels, space = (self.space, None) if isinstance(self.space, int) else (self.space.channels, self.space)
        return VoxelMap(self.map_config, channels, space)

    def _bounded(self, config: MapConfig) -> MapConfig:
        """The active map's configuration: what is left for it, and as many poses as have room."""
        poses = int(self.config.keyframe_share * self.cap / KEYFRAME_BYTES)
        step = self.cap // _BUDGET_STEP
        left = self.cap - int(self.config.archive_share * self.cap) - self._max_windows() * WINDOW_BYTES
        return replace(config, max_map_bytes=left // step * step, max_keyframes=min(config.max_keyframes, poses))

    def _max_windows(self) -> int:
        fitting = int(self.config.graph_share * self.cap / WINDOW_BYTES)
        return max(min(self.config.graph.max_windows, fitting), 2)

    def _squeeze(self) -> None:
        """Bring the submaps that are not active within their share; those that do not fit at all are forgotten."""
        while len(self.others) >= self.config.max_submaps:
            self._forget(min(self.others.values(), key=lambda submap: (submap is self.shown, len(submap.map))))
        room = int(self.config.inactive_share * self._bounded(self.config.map).max_map_bytes)
        if sum(other.nbytes for other in self.others.values()) <= room:
            return
        # From the smallest: what it leaves of its share is for the larger ones.
        smallest_first = sorted(self.others.values(), key=lambda submap: submap.nbytes)
        for place, other in enumerate(smallest_first):
            allowed = room // (len(smallest_first) - place) - (other.nbytes - other.map.nbytes)
            try:
                if other.map.nbytes > allowed:
                    other.map.set_budget(allowed)
                room -= other.nbytes
            except ValueError:
                self._forget(other)

    def _forget(self, submap: Submap) -> None:
        log.warning("submap %d with %d voxels is forgotten: there is no room", submap.number, len(submap.map))
        self.archive.drop(submap.number)
        del self.others[submap.number]
        self.shown = self.active if submap is self.shown else self.shown
        self.corrections += 1
