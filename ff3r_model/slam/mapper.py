"""The mapper, the back end of the SLAM system: predictions of windows in, one map out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, transform_pose
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Predict, Prediction, Window, WindowQuality
from ff3r_model.slam.alignment import Alignment, refused
from ff3r_model.slam.atlas import Atlas
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.contents import CameraRecord
from ff3r_model.slam.file import load_atlas, save_atlas
from ff3r_model.slam.keyframe_archive import ArchivedFrame
from ff3r_model.slam.loop_closure import LoopClosure
from ff3r_model.slam.pose_covariance import covariance_in_map
from ff3r_model.slam.relocalisation import Relocalisation, torn
from ff3r_model.voxel_map.voxel_map import VoxelMap

log = logging.getLogger(__name__)


class Mapper:
    """The map and where everything lies in it. Not thread safe.

    Windows are added to the active submap. One that cannot be joined to it is looked for in the archive, and goes on in
    the submap that has seen its place; else it begins a new one. Two become one when a place of the one is seen again.
    `map` is the submap that is shown: the last good one, until the active one is joined to it or is the better one,
    with more keyframes, and in metres where the shown one is.
    """

    def __init__(self, engine: Predict, space: TextSpace | int, config: MappingConfig | None = None) -> None:
        """`engine` predicts the windows that the mapper asks for itself; `space` is the features' or their width.

        Raises ValueError where `max_map_bytes` is too small for any map.
        """
        self.engine, self.space, self.config = engine, space, config or MappingConfig()
        self._start(Atlas(self.config, space))

    @property
    def map(self) -> VoxelMap:
        """Voxels and poses of the submap that is shown."""
        return self._atlas.shown.map

    @property
    def active(self) -> VoxelMap:
        """Voxels and poses of the submap that windows are added to: `map`, unless track of that was lost."""
        return self._atlas.active.map

    @property
    def numbers(self) -> tuple[int, int]:
        """Of the submap that is shown, and of the active one."""
        return self._atlas.shown.number, self._atlas.active.number

    @property
    def submaps(self) -> dict[int, VoxelMap]:
        """All submaps by number, the active one last."""
        return {submap.number: submap.map for submap in [*self._atlas.others.values(), self._atlas.active]}

    def why_unscaled(self, number: int | None = None) -> str:
        """What keeps each source of scale from making a submap (None: the one shown) metric; empty if it is metric.

        Also empty where no source is offered at all.
        """
        submap = self._atlas.shown if number is None else self._atlas.submap(number)
        return "" if submap.map.metric else "; ".join(submap.reference.ladder.shortcomings())

    @property
    def nbytes(self) -> int:
        """Bytes of everything held: voxels, indices, graphs, poses and archive, of all submaps."""
        return self._atlas.nbytes

    def place(self, window: Window, prediction: Prediction) -> MapUpdate:
        """Put a window and what the network says of it into the map, or say why not."""
        seconds: dict[str, float] = {}
        # 1. Locate: where the window lies in the active submap or, lost, in any; or that it begins a new one.
        with timed(seconds, "align"):
            alignment, fresh, beside = self._locate(window, prediction)
        if not alignment.accepted:
            return self._update(window, prediction, alignment, seconds)
        # 2. Integrate: its voxels, its node of the pose graph, its keyframes.
        with timed(seconds, "integrate"):
            self._atlas.integrate(window, prediction, alignment, fresh, None if beside is None else beside.node)
            # 3. Hold to the world: turn, scale and floor of the whole submap, once windows have shown them.
            corrected = self._atlas.hold_to_world(window, prediction)
        # 4. Close loops: where this place was seen before, the map is corrected, or two submaps become one.
        with timed(seconds, "loops"):
            note, moved = self._loops.close()
        moved = self._atlas.choose_shown() or moved
        doubt = self.config.distrust(prediction.quality)
        reason = "; ".join(part for part in (alignment.reason, doubt, note) if part)
        placed = replace(alignment, map_from_window=self._atlas.active.newest.map_from_node, reason=reason)
        update = self._update(window, prediction, placed, seconds)
        relocalised = None if beside is None else beside.keyframe
        return replace(update, corrected=corrected or moved, trusted=not doubt, relocalised=relocalised)

    def trajectory(self) -> Iterator[tuple[int, Float[Tensor, "4 4"]]]:
        """(stamp in ns, map_from_camera) of each keyframe of the map, in the order they came."""
        return self.map.trajectory()

    def reset(self) -> None:
        """Start an empty map."""
        self._start(Atlas(self.config, self.space))

    def save(self, path: Path, words: str = "", camera: CameraRecord | None = None) -> None:
        """Write all submaps, graphs and the archive; `words` is the fingerprint of what gives features their meaning.

        `camera` is what the run believes of its camera. Raises MapFileError, and leaves an older file alone.
        """
        save_atlas(self._atlas, path, words, camera)

    def load(self, path: Path, words: str = "") -> CameraRecord | None:
        """Go on with a saved map in place of the present one, which stays if the file is not a map of this network.

        Windows that follow go on in it where they see a place of it by points; else they begin a new submap, which is
        joined to it once a place is recognised.
        A file with another fingerprint than `words` is refused. Raises MapFileError. Returns what the run that wrote it
        believed of its camera.
        """
        atlas, camera = load_atlas(path, self.config, self.space, words)
        self._start(atlas)
        return camera

    def _start(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self._loops = LoopClosure(self.engine, atlas)
        self._relocalisation = Relocalisation(atlas)
        self._lost = 0
        """Windows in a row that could not be aligned."""

    def _locate(
        self, window: Window, prediction: Prediction
    ) -> tuple[Alignment, Int[Tensor, " fresh"], ArchivedFrame | None]:
        """Where the window lies in the map, which of its views are new there, and the old keyframe that told."""
        active, config = self._atlas.active, self.config
        # The views that the map has not seen yet, which must show something.
        known = () if active.frames is None else active.frames.keyframes
        fresh = torch.tensor([view for view, key in enumerate(window.keyframes) if key not in known], dtype=torch.int64)
        usable = int(((prediction.depth[fresh] > 0) & prediction.depth[fresh].isfinite()).sum())
        if usable < config.align.min_pairs:
            return refused(f"only {usable} pixels of the new views have a depth"), fresh, None
        if not bool(prediction.cameras.camera_from_world.isfinite().all()):
            return refused("the predicted poses are no finite numbers"), fresh, None
        # Aligned to the window before, then pulled towards what is known of up and floor.
        alignment = refused("it follows a map from a file" if len(active.map) else "")
        if torn(prediction.quality, fresh):
            alignment = refused("nothing ties what the new views show to what was mapped before")
        elif active.frames is not None:
            alignment = active.locate(window, prediction, config.align)
        if alignment.accepted:
            self._lost = 0
            return alignment, fresh, None
        # It does not fit: the camera is looked for wherever it was before.
        found = self._relocalisation.find(window, prediction, fresh)
        if found is not None:
            self._lost = 0
            self._atlas.resume(found.keyframe.submap)
            log.info("%s", found.alignment.reason)
            return found.alignment, fresh, found.keyframe
        # It was nowhere: left out a few times, then the beginning of a submap.
        self._lost += 1
        alone = active.frames is None or len(fresh) == len(window.keyframes)
        if self._lost <= config.patience and not alone:
            return alignment, fresh, None
        return self._begin(window, prediction, fresh, alignment.reason), fresh, None

    def _begin(self, window: Window, prediction: Prediction, fresh: Int[Tensor, " fresh"], reason: str) -> Alignment:
        """The placement of a submap's first window, at its first new view. The first submap of all needs no reason."""
        self._lost = 0
        if reason:
            before, active = self._atlas.active.number, self._atlas.begin()
            reason = f"submap {active.number} begins, apart from {before}: {reason}"
            log.warning("%s", reason)
        placed = self._atlas.active.reference.begin(window, prediction, int(fresh[0]))
        return Alignment(placed, 0.0, 1.0, True, reason)

    def _update(
        self, window: Window, prediction: Prediction, alignment: Alignment, seconds: dict[str, float]
    ) -> MapUpdate:
        poses = transform_pose(alignment.map_from_window, invert_rigid(prediction.cameras.camera_from_world))
        shown, active = self.numbers
        update = MapUpdate(window, poses, alignment.accepted, alignment.reason, seconds, active, shown)
        quality = prediction.quality
        covariance = None if quality is None else covariance_in_map(quality, alignment.map_from_window, poses)
        return replace(update, quality=quality, pose_covariance=covariance)


@dataclass(frozen=True)
class MapUpdate:
    """What one window did."""

    window: Window
    map_from_camera: Float[Tensor, "views 4 4"]
    """Poses of the window's cameras in the submap that the window is in; meaningless where not accepted."""
    accepted: bool
    """Whether the window entered the map."""
    reason: str
    """Why not, or what is out of the ordinary about it; empty otherwise."""
    seconds: dict[str, float]
    """Per stage: network, align, integrate, loops."""
    submap: int = 0
    """Number of the submap that the window is in."""
    shown: int = 0
    """Number of the submap that is the map from now on."""
    corrected: bool = False
    """Whether what was in the map before has moved: path and map are to be published anew."""
    quality: WindowQuality | None = None
    """How far the window's cameras may be off among each other; None where nobody measured it."""
    trusted: bool = True
    """Whether what the window shows may be an obstacle or floor, and measure lengths: its claimed error is small."""
    relocalised: int | None = None
    """The old keyframe beside which a camera that was lost was found again; None where it was not lost."""
    pose_covariance: Float[Tensor, "views 6 6"] | None = None
    """Of `map_from_camera` by `covariance_in_map`: position and rotation, about the submap's axes and relative to the
    window's first registered camera; NaN for views whose cameras tracks do not determine."""

    @property
    def apart(self) -> bool:
        """Whether the window is in a submap apart from the map: its poses say nothing of places in the map."""
        return self.submap != self.shown


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
