"""The bounded semantic map: voxels found by hash, merged by the voxelization's own weights, evicted at a hard cap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from ff3r_model.core.checked import MALFORMED, record
from ff3r_model.core.errors import shown
from ff3r_model.core.node import Node
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Cameras, Gaussians, Similarity
from ff3r_model.gaussians.voxelize import VoxelizeConfig, VoxelizedGaussians, voxelize
from ff3r_model.voxel_map.columns import Layout
from ff3r_model.voxel_map.config import NO_WINDOW, MapConfig, ScaleInfo, check_voxels
from ff3r_model.voxel_map.contents import MapRecord, check_map, space_of
from ff3r_model.voxel_map.fading import ObservedSurfaces
from ff3r_model.voxel_map.file import MapFileError, read_map, write_map
from ff3r_model.voxel_map.fusion import VoxelMotion
from ff3r_model.voxel_map.hash_index import pack, unpack
from ff3r_model.voxel_map.rows import VoxelRows
from ff3r_model.voxel_map.store import VoxelStore, rows_within
from ff3r_model.voxel_map.trajectory import KEYFRAME_BYTES, Trajectory

Device = torch.device | str
_EXTRA = "extra."
"""Before the names of a file's tensors that are the caller's own."""


class VoxelMap:
    """Voxels of edge ε, each one Gaussian with a feature, in at most `max_map_bytes` bytes.

    A voxel keeps its log mass, log Σ exp(C − λd) over all Gaussians that entered it. Merging a window weighs both sides
    by their mass, which is what voxelizing everything at once would do, with two approximations: d is measured from the
    prototype of the Gaussian's own window, not from that of all windows, and of the rotations merged before, the map
    knows only their mean.

    A voxel is anchored to the window that brought it; where two merge, the heavier one's anchor stays. When windows are
    placed anew, `transform` takes the voxels along; keyframes move with the nodes that they are relative to.

    Eviction: voxels go in the order of log mass − evict_decay × windows since last seen, smallest first, oldest row
    first where equal; never those of the window that is being integrated, unless it alone exceeds the map.

    The cap holds for what the map keeps, at any time. Working memory comes on top: the window's own size for
    `integrate`, one column while columns grow or shrink, and about 64 bytes per voxel for what sorts the whole map
    (`transform` and each eviction).
    """

    def __init__(
        self,
        config: MapConfig,
        channels: int,
        space: TextSpace | None = None,
        device: Device = "cpu",
    ) -> None:
        if space is not None and space.channels != channels:
            raise ValueError(f"the text space has {space.channels} channels, the map {channels}")
        self.config = config
        self.channels = channels
        self.space = space
        self.device = torch.device(device)
        self.scale = ScaleInfo()
        self.revision = 0
        self.untrusted: set[int] = set()
        """Windows that may have misplaced what they brought: occupancy grids leave their voxels out."""
        self.max_rows = self._rows_under_cap()
        self.keyframes = Trajectory(config.max_keyframes)
        """Where its frames were taken."""
        self._store = VoxelStore(config, self._layout(), self.max_rows, space, self.device)

    def __len__(self) -> int:
        return len(self._store)

    @property
    def metric(self) -> bool:
        """Whether the map's unit is the metre."""
        return self.scale.metric

    @property
    def kind(self) -> dict[str, float]:
        """What two maps must agree in for their voxels to mix."""
        return {"voxel_size": self.config.voxel_size, "bands": self.config.bands, "channels": self.channels}

    @property
    def nbytes(self) -> int:
        """Bytes of everything the map holds, spare room included."""
        return self._store.nbytes + self.keyframes.nbytes + self._space_bytes()

    @property
    def features(self) -> Float[Tensor, "n channels"]:
        """The features as stored."""
        return self.rows.features

    @property
    def feature_norms(self) -> Float[Tensor, " n"] | None:
        """Lengths of the features in the text's space, where the map knows that space."""
        return None if self.space is None else self.rows.norms

    @property
    def members(self) -> Float[Tensor, " n"]:
        """About how many Gaussians each voxel was merged from: its mass over that of one of its mean confidence."""
        return (self.rows.log_mass - self.rows.confidences).exp()

    @property
    def rows(self) -> VoxelRows:
        """All voxels as they are stored, in no particular order: views, valid until the map changes."""
        return self._store.columns.rows

    def gaussians(self, rows: Int64[Tensor, " n"] | None = None) -> Gaussians:
        """The Gaussians of all voxels, or of some rows, in float32: copies."""
        return self.rows.gaussians(rows)

    def spread_rows(self, limit: int) -> Int64[Tensor, " n"]:
        """At most `limit` rows, spread evenly over all; all of them where there are no more."""
        count = min(limit, len(self))
        return torch.arange(count, device=self.device) * len(self) // max(count, 1)

    def seen_rows(self, limit: int) -> Int64[Tensor, " n"]:
        """At most `limit` rows of voxels, spread evenly over the Gaussians that voxels were merged from."""
        count = min(limit, len(self))
        members = self.members.double().cumsum(0)
        places = (torch.arange(count, dtype=torch.float64, device=self.device) + 0.5) / max(count, 1)
        return torch.searchsorted(members, places * (members[-1] if count else 0))

    @property
    def trusted(self) -> Bool[Tensor, " n"]:
        """Which voxels were brought by windows that are trusted."""
        untrusted = torch.tensor(sorted(self.untrusted), dtype=self.rows.anchors.dtype, device=self.device)
        return ~torch.isin(self.rows.anchors, untrusted)

    def cells(self, rows: Int64[Tensor, " n"] | None = None) -> Int[Tensor, "n 3"]:
        """The cells of all voxels, or of some rows: the centre of cell k is k · voxel_size."""
        keys = self.rows.keys
        return unpack(keys if rows is None else keys.index_select(0, rows))

    def integrate(self, gaussians: Gaussians | VoxelizedGaussians, window_id: int) -> None:
        """Merge a window that has been placed in the map's frame. Time is linear in the window, not in the map.

        `window_id` grows from window to window. Gaussians that are not voxelized yet are, with the map's ε and λ.
        """
        config, voxels = self.config, gaussians
        # one voxel per cell of the window
        if isinstance(voxels, Gaussians):
            voxels = voxelize(voxels, VoxelizeConfig(config.voxel_size, config.distance_weight))
        check_voxels(voxels, config, self.channels)
        # as rows, anchored to the window
        keys = pack(voxels.cells).to(self.device)
        values = VoxelRows.of_window(voxels, keys, window_id, config.bands)
        # merged with the voxels of the same cells, or added
        self.revision += 1
        self._store.enter(values, window_id, protect=True)

    def transform(self, by_anchor: Mapping[int, Similarity], others: Similarity | None = None) -> None:
        """Let each voxel go where its anchor's correction (new_from_old) takes it, or `others`, where it has none.

        Without `others` those stay. Voxels are sorted into cells anew, the voxel size stays; those that meet in a cell
        become one: attributes weighted by mass, the newest sight, the heaviest's anchor. Linear in the map. What leaves
        the range of cells is dropped with a warning. Keyframes of a pose graph move with its nodes, the rest like
        voxels. Raises ValueError for similarities that are not finite, or not of positive scale.
        """
        others = others or Similarity()
        motion = VoxelMotion(by_anchor, others, self.config.bands, self.device)
        self.keyframes.transform(by_anchor, others)
        self._store.move(motion)
        self.revision += 1

    def reanchor(self, nodes: Mapping[int, Node]) -> None:
        """Let what some windows brought move with other nodes from now on, where windows become one."""
        self.untrusted |= {node.window for window, node in nodes.items() if window in self.untrusted}
        self.untrusted -= set(nodes)
        self.keyframes.reanchor(nodes)
        self._store.relabel({window: node.window for window, node in nodes.items()})
        self.revision += 1

    def absorb(self, other: VoxelMap, map_from_other: Similarity) -> None:
        """Take in all voxels and keyframes of another map, with anchors and masses; `other` keeps its voxels.

        Linear in `other`. What exceeds the cap is evicted on the way, of both maps alike.
        """
        if other is self or self.kind != other.kind:
            raise ValueError(f"{other.kind} cannot be taken into {self.kind}: two maps that agree are needed")
        self.untrusted |= other.untrusted
        self.keyframes.absorb(other.keyframes, map_from_other)
        self._store.absorb(other._store, VoxelMotion({}, map_from_other, self.config.bands, self.device))
        self.revision += 1

    def fade(self, cameras: Cameras, depth: Float[Tensor, "v h w"], confidence: Float[Tensor, "v h w"]) -> int:
        """Let voxels that a window's rays pass through lose mass, and forget the lightest; says how many went.

        `cameras` and `depth` are in the map's frame and unit, depth ≤ 0 where unknown; each view should be shown once.
        A view counts, by its confidence, against voxels in front of the surface around their pixel by more than
        `fade_margin` of its depth and a voxel, and for those at that surface. Where the sum is at least `fade_views`,
        a voxel loses `fade_rate` nats per view; with less mass than one of its Gaussians it is forgotten. Whatever
        lies behind the surfaces or outside the images stays as it is. Costs time for the views and the voxels around
        them; of the rest of the map, one comparison per voxel (some milliseconds per million).
        """
        faded, gone = self._store.fade(ObservedSurfaces.of(cameras, depth, confidence))
        self.revision += bool(faded)
        return gone

    def set_budget(self, max_map_bytes: int) -> None:
        """Change the cap; evicts at once what does not fit. Raises ValueError where nothing would fit.

        Lowering it copies the map once, so it is better done in steps than bit by bit.
        """
        config, self.config = self.config, replace(self.config, max_map_bytes=max_map_bytes)
        try:
            self.max_rows = self._rows_under_cap()
        except ValueError:
            self.config = config
            raise
        self._store.limit(self.max_rows)
        self.revision += 1

    def add_keyframes(
        self, ids: Sequence[int], stamps: Sequence[int], poses: Float[Tensor, "n 4 4"], node: Node | None = None
    ) -> None:
        """Remember keyframes and their map_from_camera, the first pose of each; the oldest go beyond `max_keyframes`.

        They move with the pose graph's `node`; without one, with the map as a whole.
        """
        self.keyframes.add(ids, stamps, poses, node)

    def trajectory(self) -> Iterator[tuple[int, Float[Tensor, "4 4"]]]:
        """(stamp in ns, map_from_camera) of each keyframe, in the order they came."""
        return iter(self.keyframes)

    def save(
        self,
        path: Path | str,
        extra_tensors: Mapping[str, Tensor] | None = None,
        extra_header: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the map with its poses, scale and text space, and what the caller wants kept beside them.

        `extra_header` is anything that JSON can hold. Raises MapFileError; then `path` is as it was.
        """
        tensors = self.tensors()
        tensors |= {f"{_EXTRA}{name}": tensor for name, tensor in (extra_tensors or {}).items()}
        if self.space is not None:
            tensors["decoder"] = self.space.decoder
        write_map(Path(path), tensors, {**self.header(), "extra": dict(extra_header or {})})

    def tensors(self) -> dict[str, Tensor]:
        """Voxels and keyframes, for a file."""
        voxels = {f"voxels.{name}": column for name, column in vars(self.rows).items() if name != "norms"}
        return voxels | self.keyframes.tensors()

    def header(self) -> dict[str, Any]:
        """What `restored` needs besides the tensors; JSON can hold it."""
        header = {"config": asdict(self.config), "channels": self.channels, "scale": asdict(self.scale)}
        return {**header, "revision": self.revision, "untrusted": sorted(self.untrusted)}

    @classmethod
    def restored(
        cls, header: Any, tensors: Mapping[str, Tensor], space: TextSpace | None, device: Device = "cpu"
    ) -> VoxelMap:
        """The map that gave `header` and `tensors`. Raises ValueError for what no map can have given.

        It takes the memory of the rows that are there, whatever its configuration says of rows to come.
        """
        known = {field.name for field in fields(MapRecord)}
        kept = {name: value for name, value in header.items() if name in known} if isinstance(header, dict) else header
        record_of_map = record(MapRecord, kept, "its record")
        check_map(tensors, record_of_map)
        small = replace(record_of_map.config, initial_rows=max(1, len(tensors["voxels.keys"])))
        restored = cls(small, record_of_map.channels, space, device)
        restored.config = record_of_map.config
        restored.scale, restored.revision = record_of_map.scale, record_of_map.revision
        restored.untrusted = set(record_of_map.untrusted)
        restored._restore(tensors)
        return restored

    @classmethod
    def load(cls, path: Path | str, device: Device = "cpu") -> VoxelMap:
        """The map that `save` wrote. Raises MapFileError for a file that is damaged, foreign or newer."""
        return cls.load_with_extras(path, device)[0]

    @classmethod
    def load_with_extras(
        cls, path: Path | str, device: Device = "cpu"
    ) -> tuple[VoxelMap, dict[str, Tensor], dict[str, Any]]:
        """The map, the extra tensors (on the CPU) and the extra header that `save` was given. Raises as `load`."""
        header, tensors = read_map(Path(path))
        extras = {name.removeprefix(_EXTRA): tensors.pop(name) for name in list(tensors) if name.startswith(_EXTRA)}
        extra_header = header.get("extra", {})
        try:
            if not isinstance(extra_header, dict):
                raise ValueError(f"extra is {shown(extra_header)}, and should be an object")
            loaded = cls.restored(header, tensors, space_of(tensors, device), device)
        except MALFORMED as error:
            raise MapFileError(f"{path} holds a map that this program does not understand: {error}") from error
        return loaded, extras, extra_header

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the voxels and keyframes of a file."""
        prefix = "voxels."
        columns = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        columns.setdefault("anchors", torch.full_like(columns["last_seen"], NO_WINDOW))
        voxels = VoxelRows(**columns, norms=torch.zeros(len(columns["keys"])))
        if len(voxels) > self.max_rows:
            raise ValueError(f"{len(voxels)} voxels exceed max_map_bytes = {self.config.max_map_bytes}")
        self._store.make_room(len(voxels))
        self._store.append(voxels.to(self.device))
        self.keyframes.restore(tensors)

    def _layout(self) -> Layout:
        return Layout(self.channels, self.config.bands, self.config.compact)

    def _space_bytes(self) -> int:
        return 0 if self.space is None else self.space.nbytes

    def _rows_under_cap(self) -> int:
        """How many voxels fit under `max_map_bytes` with their index and as many keyframes as may be kept."""
        fixed = self._space_bytes() + KEYFRAME_BYTES * self.config.max_keyframes
        return rows_within(self.config.max_map_bytes, fixed, self._layout())
