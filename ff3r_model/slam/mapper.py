"""Predictions in, one map out: where each window lies, what of it enters the map, what moves when a place returns."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.core.geometry import compose, invert_rigid, invert_similarity, transform_pose
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Cameras, Gaussians, Predict, Prediction, Similarity, Window
from ff3r_model.gaussians.transform import transform_gaussians
from ff3r_model.slam.alignment import Alignment, align_window, map_from_first_camera
from ff3r_model.slam.atlas import Atlas, one_size
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.file import load_atlas, save_atlas
from ff3r_model.slam.keyframe_archive import archived
from ff3r_model.slam.loop_closure import PlaceRecognition, Revisit
from ff3r_model.slam.placed_frames import SharedFrames, thinned_prediction
from ff3r_model.slam.pose_graph import SolverMissingError
from ff3r_model.slam.reference.floor import upright
from ff3r_model.voxel_map.voxel_map import VoxelMap

log = logging.getLogger(__name__)


class Mapper:
    """The map and where everything lies in it. Not thread safe.

    Windows are added to the active submap, `map`. One that cannot be joined to it begins a new submap; two become one
    when a place of the one is seen again from the other.
    """

    def __init__(self, engine: Predict, space: TextSpace | int, config: MappingConfig | None = None) -> None:
        """`engine` predicts the windows that the mapper asks for itself; `space` is the features' or their width.

        Raises ValueError where `max_map_bytes` is too small for any map.
        """
        self.engine, self.space, self.config = engine, space, config or MappingConfig()
        self._start(Atlas(self.config, space))

    @property
    def map(self) -> VoxelMap:
        """The active submap's voxels and poses."""
        return self._atlas.active.map

    @property
    def submaps(self) -> dict[int, VoxelMap]:
        """All submaps by number, the active one last."""
        return {submap.number: submap.map for submap in [*self._atlas.others.values(), self._atlas.active]}

    @property
    def nbytes(self) -> int:
        """Bytes of everything held: voxels, indices, graphs, poses and archive, of all submaps."""
        return self._atlas.nbytes

    def place(self, window: Window, prediction: Prediction) -> MapUpdate:
        """Put a window and what the network says of it into the map, or say why not."""
        seconds: dict[str, float] = {}
        with timed(seconds, "align"):
            alignment, fresh = self._align(window, prediction)
        if not alignment.accepted:
            return self._update(window, prediction, alignment, seconds)
        with timed(seconds, "integrate"):
            self._integrate(window, prediction, alignment, fresh)
            corrected = self._level(window, prediction) | self._make_metric(window, prediction)
        with timed(seconds, "loops"):
            note, moved = self._revisit()
        reason = "; ".join(part for part in (alignment.reason, note) if part)
        placed = replace(alignment, map_from_window=self._atlas.active.placed, reason=reason)
        return replace(self._update(window, prediction, placed, seconds), corrected=corrected or moved)

    def trajectory(self) -> Iterator[tuple[int, Float[Tensor, "4 4"]]]:
        """(stamp in ns, map_from_camera) of each keyframe of the map, in the order they came."""
        return self.map.trajectory()

    def reset(self) -> None:
        """Start an empty map."""
        self._start(Atlas(self.config, self.space))

    def save(self, path: Path) -> None:
        """Write all submaps, graphs and the archive. Raises MapFileError, and leaves an older file alone."""
        save_atlas(self._atlas, path)

    def load(self, path: Path) -> None:
        """Go on with a saved map in place of the present one, which stays if the file is not a map of this network.

        Windows that follow begin a new submap, which is joined to the saved one once they see a place of it.
        Raises MapFileError.
        """
        self._start(load_atlas(path, self.config, self.space))

    def _start(self, atlas: Atlas) -> None:
        self._atlas, self._lost = atlas, 0
        self._places = PlaceRecognition(self.engine, atlas.archive, self.config.loops, self.config.align)

    def _align(self, window: Window, prediction: Prediction) -> tuple[Alignment, Int[Tensor, " fresh"]]:
        """Where the window lies in the map, and which of its views are new there."""
        active = self._atlas.active
        known = () if active.shared is None else active.shared.keyframes
        fresh = torch.tensor([view for view, key in enumerate(window.keyframes) if key not in known], dtype=torch.int64)
        usable = int(((prediction.depth[fresh] > 0) & prediction.depth[fresh].isfinite()).sum())
        if usable < self.config.align.min_pairs:
            return Alignment(
                Similarity(), math.inf, 0.0, False, f"only {usable} pixels of the new views have a depth"
            ), fresh
        if active.shared is None:
            reason = "it follows a map from a file" if len(active.map) else ""
            return self._first(window, prediction, fresh, reason), fresh
        thin = thinned_prediction(prediction, self.config.align.long_side)
        scale = active.standing.known_scale(window, prediction, active.map.scale)
        alignment = align_window(thin, window, active.shared, self.config.align, scale)
        if alignment.accepted:
            self._lost = 0
            held = active.standing.hold(window, prediction, alignment.map_from_window)
            return replace(alignment, map_from_window=held), fresh
        self._lost += 1
        alone = len(fresh) == len(window.keyframes)
        if self._lost <= self.config.patience and not alone:
            return alignment, fresh
        return self._first(window, prediction, fresh, alignment.reason), fresh

    def _first(self, window: Window, prediction: Prediction, fresh: Int[Tensor, " fresh"], reason: str) -> Alignment:
        """The placement of a submap's first window: upright at its first new view. The first submap needs no reason."""
        self._lost = 0
        if reason:
            before, active = self._atlas.active.number, self._atlas.begin()
            reason = f"submap {active.number} begins, apart from {before}: {reason}"
            log.warning("%s", reason)
        camera = prediction.cameras.camera_from_world[fresh[:1]].cpu()
        placed = compose(map_from_first_camera(), Similarity(1.0, camera[0, :3, :3], camera[0, :3, 3]))
        if window.up is not None and bool(window.up[fresh[0]].isfinite().all()):
            placed = upright(placed, invert_rigid(camera), window.up[fresh[:1]], 1.0)
            self._atlas.active.standing.gravity.source = "measured"
        return Alignment(placed, 0.0, 1.0, True, reason)

    def _certain(self, prediction: Prediction, fresh: Int[Tensor, " fresh"]) -> Gaussians:
        """The certain Gaussians of the views that the map has not seen yet."""
        confidence = prediction.depth_confidence[fresh.to(prediction.depth.device)]
        sample = confidence.flatten()[:: 1 + confidence.numel() // 100_000]
        keep = torch.zeros_like(prediction.depth, dtype=torch.bool)
        keep[fresh] = confidence >= torch.quantile(sample, self.config.drop_uncertain)
        return prediction.gaussians.select(keep.flatten())

    def _integrate(
        self, window: Window, prediction: Prediction, alignment: Alignment, fresh: Int[Tensor, " fresh"]
    ) -> None:
        """The window's voxels, a node of the graph, and its new frames as keyframes and in the archive."""
        atlas, active = self._atlas, self._atlas.active
        node, atlas.next_window = atlas.next_window, atlas.next_window + 1
        placed = SharedFrames.of(prediction, window, alignment.map_from_window)
        shared = placed.thinned(self.config.align.long_side)
        shared = shared if active.shared is not None else shared.select(fresh)
        new = placed.select(fresh)
        atlas.share_out(shared.nbytes)
        self._add_voxels(prediction, alignment, fresh, new, node)
        active.map.add_keyframes(new.keyframes, [window.stamps[i] for i in fresh], new.map_from_camera, node)
        active.graph.add(node, alignment.map_from_window)
        if active.newest is not None and active.shared is not None:
            active.graph.connect(active.newest, node, alignment.rms, float(shared.depth.median()))
        active.shared, active.newest, active.placed = shared, node, alignment.map_from_window
        atlas.archive.add(archived(window, prediction, placed, fresh, node, active.number, self.config.archive))
        self._merge_old_windows()

    def _add_voxels(
        self, prediction: Prediction, alignment: Alignment, fresh: Int[Tensor, " fresh"], new: SharedFrames, node: int
    ) -> None:
        """What the new views look through fades, what they see is merged."""
        gaussians = transform_gaussians(alignment.map_from_window, self._certain(prediction, fresh))
        cameras = Cameras(invert_rigid(new.map_from_camera), new.intrinsics)
        self.map.fade(cameras, new.depth, new.confidence)
        self.map.integrate(gaussians, node)

    def _merge_old_windows(self) -> None:
        gone = self._atlas.active.graph.merge_old()
        if gone:
            self.map.relabel(gone)
            self._atlas.archive.relabel(gone)
            self._places.forget()

    def _level(self, window: Window, prediction: Prediction) -> bool:
        """Turn the map upright where a sensor, or the floor, says for the first time which way is up."""
        active = self._atlas.active
        turn = active.standing.turn(window, prediction, active.placed)
        if turn is None:
            return False
        self._atlas.archive.move(active.number, active.turn(turn))
        self._places.forget()
        log.info("the map was turned upright: up is known from %s", active.standing.gravity.source)
        return True

    def _make_metric(self, window: Window, prediction: Prediction) -> bool:
        """Scale the map once its windows have said how large it is, and again if a better source says so."""
        active = self._atlas.active
        scale = active.standing.observe(window, prediction, active.placed, self.map.scale)
        if scale is None:
            return False
        active.rescale(scale.factor, scale)
        self._atlas.archive.rescale(active.number, scale.factor)
        self._places.forget()
        active.standing.settle(scale.factor, torch.stack([pose[:3, 3] for _, pose in self.trajectory()]))
        log.info("the map is metric: 1 unit was %.3f m, by %s", scale.factor, scale.source)
        return True

    def _revisit(self) -> tuple[str, bool]:
        """Look whether the newest window's place was seen before, and let the map know: (what happened, what moved)."""
        active = self._atlas.active
        assert active.newest is not None
        revisits = self._places.look(active.newest, active.number, [active.newest])
        if not revisits:
            return "", False
        if revisits[0].before.submap == active.number:
            return self._close(revisits)
        return self._join(revisits)

    def _close(self, revisits: Sequence[Revisit]) -> tuple[str, bool]:
        """A place of the same submap: two more edges, and everything moves to where all edges agree best."""
        active = self._atlas.active
        pairs = self._connect(revisits)
        if all(revisit.error < self.map.config.voxel_size / 2 for revisit in revisits):
            return "", False
        try:
            moves = active.graph.optimise(fixed_scale=self.map.metric)
            refusal = "a loop is refused: it strains the map too much"
        except SolverMissingError as error:
            moves, refusal = None, str(error)
        if moves is None:
            for pair in pairs:
                active.graph.edges.pop(pair, None)
            log.warning("%s", refusal)
            return refusal, False
        active.move(moves)
        self._atlas.archive.move(active.number, moves)
        self._places.forget()
        text = f"loop closed: {max(revisit.error for revisit in revisits):.3f} off"
        log.info("%s", text)
        return text, True

    def _join(self, revisits: Sequence[Revisit]) -> tuple[str, bool]:
        """A place of another submap: the two are one from now on, in the frame of the older."""
        best, active = min(revisits, key=lambda revisit: revisit.rms), self._atlas.active
        into, correction = self._atlas.others[best.before.submap], best.correction
        if into.map.metric and self.map.metric:
            pose = best.now.map_from_camera
            correction = one_size(correction, Similarity(1.0, pose[:3, :3], pose[:3, 3]))
        factor = 1 / correction.scale if self.map.metric and not into.map.metric else 1.0
        self._atlas.join(into.number, correction)
        rest = [replace(each, correction=compose(each.correction, invert_similarity(correction))) for each in revisits]
        self._connect([each.rescaled(factor) for each in rest])
        self._places.forget()
        text = f"submap {active.number} joined to {into.number}: a place was seen again"
        log.info("%s", text)
        return text, True

    def _connect(self, revisits: Sequence[Revisit]) -> list[tuple[int, int]]:
        """An edge for each revisit."""
        graph = self._atlas.active.graph
        for each in revisits:
            graph.connect(each.before.anchor, each.now.anchor, each.rms, each.reach, each.correction, loop=True)
        return [(each.before.anchor, each.now.anchor) for each in revisits]

    def _update(
        self, window: Window, prediction: Prediction, alignment: Alignment, seconds: dict[str, float]
    ) -> MapUpdate:
        poses = transform_pose(alignment.map_from_window, invert_rigid(prediction.cameras.camera_from_world))
        return MapUpdate(window, poses, alignment.accepted, alignment.reason, seconds, self._atlas.active.number)


@dataclass(frozen=True)
class MapUpdate:
    """What one window did."""

    window: Window
    map_from_camera: Float[Tensor, "views 4 4"]
    """Poses of the window's cameras in the map; meaningless where not accepted."""
    accepted: bool
    """Whether the window entered the map."""
    reason: str
    """Why not, or what is out of the ordinary about it; empty otherwise."""
    seconds: dict[str, float]
    """Per stage: network, align, integrate, loops."""
    submap: int = 0
    """Number of the submap that the window is in, which is the map from now on."""
    corrected: bool = False
    """Whether what was in the map before has moved: path and map are to be published anew."""


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
