"""The bounded semantic map: voxels found by hash, merged by the voxelization's own weights, evicted at a hard cap."""

from __future__ import annotations

import bisect
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.keyframes import KEYFRAME_BYTES, Keyframes
from ff3r_model.map_columns import Columns, Layout, values_of
from ff3r_model.map_config import IntegrationStats, MapConfig, ScaleInfo
from ff3r_model.map_file import MapFileError, read_map, write_map
from ff3r_model.text_space import TextSpace
from ff3r_model.types import Gaussians
from ff3r_model.voxel_hash import BYTES_PER_SLOT, HashIndex, pack, slots_for, unpack
from ff3r_model.voxelize import VoxelizeConfig, VoxelizedGaussians, voxelize

__all__ = ["IntegrationStats", "MapConfig", "MapFileError", "ScaleInfo", "VoxelMap"]

logger = logging.getLogger(__name__)


class VoxelMap:
    """Voxels of edge ε, each one Gaussian with a feature, in at most `max_map_bytes` bytes.

    A voxel keeps its log mass, log Σ exp(C − λd) over all Gaussians that entered it. Merging a window weighs both sides
    by their mass, which is what voxelizing everything at once would do, with two approximations: d is measured from the
    prototype of the Gaussian's own window, not from that of all windows, and of the rotations merged before, the map
    knows only their mean.

    Eviction: voxels go in the order of log mass − evict_decay × windows since last seen, smallest first, oldest row
    first where equal; never those of the window that is being integrated, unless it alone exceeds the map.
    """

    def __init__(
        self,
        config: MapConfig,
        channels: int,
        space: TextSpace | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if space is not None and space.channels != channels:
            raise ValueError(f"the text space has {space.channels} channels, the map {channels}")
        self.config, self.channels, self.space, self.device = config, channels, space, torch.device(device)
        self.scale = ScaleInfo()
        self.revision = 0
        self.max_rows = self._rows_under_cap()
        self._keyframes = Keyframes(config.max_keyframes)
        self._start_empty()

    def __len__(self) -> int:
        return self._columns.rows

    @property
    def metric(self) -> bool:
        """Whether the map's unit is the metre."""
        return self.scale.metric

    @property
    def nbytes(self) -> int:
        """Bytes of everything the map holds, spare room included."""
        return self._columns.nbytes + self._index.nbytes + self._keyframes.nbytes + self._space_bytes()

    @property
    def features(self) -> Float[Tensor, "n channels"]:
        """The features as stored."""
        return self._columns["features"]

    @property
    def feature_norms(self) -> Float[Tensor, " n"] | None:
        """Lengths of the features in the text's space, where the map knows that space."""
        return None if self.space is None else self._columns["norms"]

    @property
    def log_mass(self) -> Float[Tensor, " n"]:
        """What each voxel weighs when a window is merged."""
        return self._columns["log_mass"]

    def gaussians(self) -> Gaussians:
        """The map's Gaussians, one per voxel, in float32. In no particular order; the same as `cells`."""
        return self._columns.gaussians()

    def cells(self, rows: Int[Tensor, " n"] | None = None) -> Int[Tensor, "n 3"]:
        """The cells of all voxels, or of some: the centre of cell k is k · voxel_size."""
        keys = self._columns["keys"]
        return unpack(keys if rows is None else keys.index_select(0, rows))

    def integrate(self, gaussians: Gaussians | VoxelizedGaussians, window_id: int) -> IntegrationStats:
        """Merge a window that has been placed in the map's frame. Time is linear in the window, not in the map.

        `window_id` grows from window to window. Gaussians that are not voxelized yet are, with the map's ε and λ.
        """
        voxels = (
            gaussians if isinstance(gaussians, VoxelizedGaussians) else voxelize(gaussians, self._voxelize_config())
        )
        self._check(voxels)
        values = values_of(voxels, pack(voxels.cells).to(self.device), window_id, self.config.bands)
        rows = self._index.find(values["keys"], self._columns["keys"])
        known, new = (rows >= 0).nonzero().squeeze(1), (rows < 0).nonzero().squeeze(1)
        self._merge(rows[known], _take(values, known))
        fitting = self._heaviest(new, values["log_mass"], self.max_rows - len(known))
        evicted = self._make_room(len(fitting), window_id)
        self._append(_take(values, fitting))
        self.revision += 1
        return IntegrationStats(len(fitting), len(known), evicted, len(new) - len(fitting))

    def add_keyframes(
        self, keyframes: Sequence[int], stamps: Sequence[int], map_from_camera: Float[Tensor, "views 4 4"]
    ) -> None:
        """Remember where frames were taken. A keyframe keeps its first pose; the oldest go beyond `max_keyframes`."""
        self._keyframes.add(keyframes, stamps, map_from_camera)

    def trajectory(self) -> Iterator[tuple[int, Float[Tensor, "4 4"]]]:
        """(stamp in ns, map_from_camera) of each keyframe, in the order they came."""
        return iter(self._keyframes)

    def rescale(self, factor: float, scale: ScaleInfo | None = None) -> None:
        """Multiply every length by `factor`, and say what the unit is now.

        The voxel size stays, so voxels are sorted into cells anew, and those that meet are merged by their mass.
        """
        if not (factor > 0 and math.isfinite(factor)):
            raise ValueError(f"a map is rescaled by a positive factor, not {factor}")
        self._keyframes.rescale(factor)
        if len(self):
            values = self._rescaled_values(factor)
            self._start_empty()
            self._make_room(len(values["keys"]), 0)
            self._append(values)
        self.scale = scale or self.scale
        self.revision += 1

    def clear(self) -> None:
        """Forget all voxels, keyframes and the scale."""
        self._start_empty()
        self._keyframes.clear()
        self.scale = ScaleInfo()
        self.revision += 1

    def save(self, path: Path | str) -> None:
        """Write the map with its poses, scale and text space. Raises MapFileError; then `path` is as it was."""
        names = [name for name in self._columns.layout.fields() if name != "norms"]
        tensors = {f"voxels.{name}": self._columns[name] for name in names} | self._keyframes.tensors()
        if self.space is not None:
            tensors["decoder"] = self.space.decoder
        header = {"config": asdict(self.config), "channels": self.channels, "scale": asdict(self.scale)}
        write_map(Path(path), tensors, {**header, "revision": self.revision})

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> VoxelMap:
        """The map that `save` wrote. Raises MapFileError for a file that is damaged, foreign or newer."""
        header, tensors = read_map(Path(path))
        try:
            space = TextSpace(tensors["decoder"].to(device)) if "decoder" in tensors else None
            loaded = cls(MapConfig(**header["config"]), header["channels"], space, device)
            loaded.scale, loaded.revision = ScaleInfo(**header["scale"]), header["revision"]
            loaded._restore(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise MapFileError(f"{path} holds a map that this program does not understand: {error}") from error
        return loaded

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over the voxels and keyframes of a file."""
        values = {name.removeprefix("voxels."): tensor.to(self.device) for name, tensor in tensors.items()}
        if len(values["keys"]) > self.max_rows:
            raise ValueError(f"{len(values['keys'])} voxels exceed max_map_bytes = {self.config.max_map_bytes}")
        self._make_room(len(values["keys"]), 0)
        self._append(values)
        self._keyframes.restore(tensors)

    def _start_empty(self) -> None:
        layout = Layout(self.channels, self.config.bands, self.config.compact)
        self._columns = Columns(layout, min(self.config.initial_rows, self.max_rows), self.device)
        self._index = HashIndex(self._columns.capacity, self.device)

    def _voxelize_config(self) -> VoxelizeConfig:
        return VoxelizeConfig(self.config.voxel_size, self.config.distance_weight)

    def _space_bytes(self) -> int:
        return 0 if self.space is None else self.space.nbytes

    def _rows_under_cap(self) -> int:
        """How many voxels fit under `max_map_bytes` with their index and as many keyframes as may be kept."""
        row = Layout(self.channels, self.config.bands, self.config.compact).row_bytes
        budget = self.config.max_map_bytes - self._space_bytes() - KEYFRAME_BYTES * self.config.max_keyframes

        def total(rows: int) -> int:
            return rows * row + slots_for(rows) * BYTES_PER_SLOT

        rows = bisect.bisect_right(range(max(budget, 0) // row + 1), budget, key=total) - 1
        if rows < 1:
            least = self.config.max_map_bytes - budget + total(1)
            raise ValueError(f"max_map_bytes = {self.config.max_map_bytes} is too small: {least} is the least here")
        return rows

    def _check(self, voxels: VoxelizedGaussians) -> None:
        """Raise ValueError for voxels that do not belong into this map."""
        if not math.isclose(voxels.epsilon, self.config.voxel_size, rel_tol=1e-6):
            raise ValueError(f"voxels of edge {voxels.epsilon} do not fit a map of edge {self.config.voxel_size}")
        channels, bands = voxels.gaussians.features.shape[1], voxels.gaussians.harmonics.shape[1]
        if channels != self.channels or bands < self.config.bands:
            raise ValueError(
                f"Gaussians with {channels} channels and {bands} harmonics do not fit a map with "
                f"{self.channels} and {self.config.bands}"
            )

    def _merge(self, rows: Tensor, values: dict[str, Tensor]) -> None:
        self._columns.merge(rows, values)
        if self.space is not None:
            self._columns.write(rows, {"norms": self.space.norms(self._columns["features"][rows])})

    def _append(self, values: dict[str, Tensor]) -> None:
        """Add voxels that are not in the map; there must be room."""
        features = values["features"]
        norms = features.new_zeros(len(features)) if self.space is None else self.space.norms(features)
        first = self._columns.rows
        self._columns.append({**values, "norms": norms})
        self._index.insert(values["keys"], torch.arange(first, self._columns.rows, device=self.device))

    @staticmethod
    def _heaviest(candidates: Tensor, log_mass: Tensor, limit: int) -> Tensor:
        """At most `limit` of the candidates, in their order, the heaviest."""
        if len(candidates) <= limit:
            return candidates
        heavy = log_mass[candidates].argsort(descending=True, stable=True)[:limit]
        return candidates[heavy.sort().values]

    def _make_room(self, count: int, window_id: int) -> int:
        """Evict or grow so that `count` voxels can be added; says how many were evicted."""
        excess = len(self) + count - self.max_rows
        if excess > 0:
            current = self._columns["last_seen"] == window_id
            spare = max(excess, int(self.config.eviction_share * self.max_rows))
            excess = min(spare, len(self) - int(current.sum()))
            self._evict(excess, current, window_id)
        needed = len(self) + count
        if needed > self._columns.capacity:
            self._columns.reserve(min(self.max_rows, max(needed, self._columns.capacity * 3 // 2)))
        if self._index.slots < slots_for(self._columns.capacity):
            self._index = HashIndex(self._columns.capacity, self.device)
            self._index.rebuild(self._columns["keys"])
        elif self._index.crowded(needed):
            self._index.rebuild(self._columns["keys"])
        return max(excess, 0)

    def _evict(self, count: int, keep: Tensor, window_id: int) -> None:
        """Remove the `count` voxels that are first in the order of eviction."""
        age = window_id - self._columns["last_seen"]
        order = self._columns["log_mass"] - self.config.evict_decay * age
        victims = order.masked_fill(keep, math.inf).argsort(stable=True)[:count].sort().values
        keys = self._columns["keys"]
        source, target = self._columns.movers(victims)
        self._index.remove(keys[victims], keys)
        self._index.move(keys[source], target, keys)
        self._columns.remove(victims)
        logger.debug("evicted %d voxels", count)

    def _rescaled_values(self, factor: float) -> dict[str, Tensor]:
        """All voxels, every length multiplied, in the cells where they lie then."""
        gaussians, seen = self._columns.gaussians(), self._columns["last_seen"].float()
        carried = torch.stack([gaussians.confidences, seen], dim=1)
        moved = replace(
            gaussians,
            means=gaussians.means * factor,
            scales=gaussians.scales * factor,
            confidences=self._columns["log_mass"],
            features=torch.cat([gaussians.features, carried], dim=1),
        )
        voxels = voxelize(moved, VoxelizeConfig(self.config.voxel_size, distance_weight=0.0))
        values = values_of(voxels, pack(voxels.cells), 0, self.config.bands)
        confidences, seen = values["features"][:, -2:].unbind(1)
        features = values["features"][:, :-2]
        return {**values, "features": features, "confidences": confidences, "last_seen": seen.round().int()}


def _take(values: dict[str, Tensor], index: Int[Tensor, " n"]) -> dict[str, Tensor]:
    return {name: column.index_select(0, index) for name, column in values.items()}
