"""What a map file holds of voxels and keyframes, as descriptions that a file is checked by before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ff3r_model.core.checked_tables import Column, Table, check_rows, check_table
from ff3r_model.core.ranges import NOT_NEGATIVE, Range, check_range
from ff3r_model.core.text_space import TextSpace
from ff3r_model.voxel_map.columns import Layout
from ff3r_model.voxel_map.config import MapConfig, ScaleInfo
from ff3r_model.voxel_map.hash_index import unpack

WINDOWS = Range(-1, 2**30)
"""Window ids, −1 for none: far below what int32 holds, so that windows to come have ids too."""
STAMPS = Range(-(2**31) * 10**9, 2**31 * 10**9 - 1)
"""Nanoseconds; the seconds of ROS's time are an int32."""
LENGTHS = Range(-1e9, 1e9)
"""Of poses, in the map's unit."""
ROTATION_ERROR = 0.05
"""Largest entry of RᵀR − 1; float32 is off by a millionth."""
_SLACK = 1.0
"""Cells by which a mean may lie beyond the middle of its cell; half a cell is exact."""
MAX_CHANNELS = 1024
"""Of compact features: the text space's decoder is squared in memory."""

KEYFRAMES: Table = {
    "keyframes.ids": Column(torch.int64, ("rows",), None),
    "keyframes.stamps": Column(torch.int64, ("rows",), STAMPS),
    "keyframes.anchors": Column(torch.int64, ("rows",), WINDOWS, optional=True),
    "keyframes.map_from_camera": Column(torch.float32, ("rows", 4, 4), LENGTHS),
}
DECODER: Table = {"decoder": Column(torch.float32, ("text", "channels"), Range(-1e6, 1e6), optional=True)}


def voxel_table(layout: Layout) -> Table:
    """The columns of voxels of one layout, as `voxels.` and their name."""
    ranges: dict[str, Range | None] = {
        "keys": None,  # those of the cells of the means, see below
        "scales": Range(0, 1e9),
        "quaternions": Range(-1.1, 1.1),
        "harmonics": Range(-1e6, 1e6),
        "opacities": Range(-0.01, 1.01),
        "confidences": Range(-1e6, 1e6),
        "features": Range(-1e6, 1e6),
        "log_mass": Range(-1e6, 1e6),
        "last_seen": WINDOWS,
        "anchors": WINDOWS,
    }
    return {
        f"voxels.{name}": Column(dtype, ("rows", *shape), ranges.get(name, LENGTHS), optional=name == "anchors")
        for name, (shape, dtype) in layout.fields().items()
        if name != "norms"
    }


@dataclass(frozen=True)
class MapRecord:
    """The JSON beside a map's tensors."""

    config: MapConfig
    channels: int
    scale: ScaleInfo
    revision: int
    untrusted: tuple[int, ...] = ()
    """Window ids."""

    def __post_init__(self) -> None:
        check_range(self, Range(1, MAX_CHANNELS), "channels")
        check_range(self, NOT_NEGATIVE, "revision")


def check_map(tensors: Mapping[str, Tensor], record: MapRecord) -> None:
    """Raise ValueError for voxels or keyframes that no map of this record could have written."""
    layout = Layout(record.channels, record.config.bands, record.config.compact)
    check_table(voxel_table(layout), tensors)
    keys, size = tensors["voxels.keys"], record.config.voxel_size
    if len(keys.unique()) != len(keys):
        raise ValueError("voxels.keys names a cell twice")
    check_rows(_in_cells(tensors["voxels.means"], keys, size), "voxels.means", "a mean lies outside its cell")
    check_rows(are_unit(tensors["voxels.quaternions"]), "voxels.quaternions", "a length other than 1")
    check_table(KEYFRAMES, tensors)
    check_ids(tensors["keyframes.ids"], "keyframes.ids")
    if len(tensors["keyframes.ids"]) > record.config.max_keyframes:
        raise ValueError(
            f"{len(tensors['keyframes.ids'])} keyframes exceed max_keyframes = {record.config.max_keyframes}"
        )
    check_rows(are_rigid(tensors["keyframes.map_from_camera"]), "keyframes.map_from_camera", "no rigid motion")


def space_of(tensors: Mapping[str, Tensor], device: torch.device | str) -> TextSpace | None:
    """The text space of a file, where it has one. Raises ValueError for a decoder that is none."""
    sizes = check_table(DECODER, tensors)
    if not sizes:
        return None
    if sizes["channels"] > MAX_CHANNELS:
        raise ValueError(f"decoder has {sizes['channels']} channels; {MAX_CHANNELS} are the most")
    return TextSpace(tensors["decoder"].to(device))


def check_ids(ids: Tensor, where: str) -> None:
    """Raise ValueError for ids that stand twice."""
    if len(ids.unique()) != len(ids):
        raise ValueError(f"{where} has an id twice")


def are_rotations(matrices: Float[Tensor, "n 3 3"]) -> Bool[Tensor, " n"]:
    """Whether each is a rotation: RᵀR = 1, det R = 1."""
    double = matrices.double()
    error = (double.mT @ double - torch.eye(3, dtype=torch.float64)).abs().flatten(1).amax(1)
    return (error <= ROTATION_ERROR) & (torch.linalg.det(double) > 0)


def are_rigid(matrices: Float[Tensor, "n 4 4"]) -> Bool[Tensor, " n"]:
    """Whether each is a rotation and a translation."""
    last = matrices.new_tensor([0.0, 0.0, 0.0, 1.0])
    return are_rotations(matrices[:, :3, :3]) & (matrices[:, 3] == last).all(1)


def are_unit(vectors: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
    """Whether each is of length 1, by a tenth: float16 is off by a thousandth."""
    return (vectors.double().norm(dim=1) - 1).abs() <= 0.1


def _in_cells(means: Float[Tensor, "n 3"], keys: Tensor, size: float) -> Bool[Tensor, " n"]:
    """Whether each mean lies in its cell, or so near that rounding explains it."""
    cells = unpack(keys).double()
    return ((means.double() / size - cells).abs() <= _SLACK + 1e-5 * cells.abs()).all(1)
