"""What a map file holds beside voxels: pose graphs, the archive and references, as descriptions to check a file by."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import torch
from PIL import Image
from torch import Tensor

from ff3r_model.core.checked_tables import Column, Table, check_rows, check_table, check_values
from ff3r_model.core.node import Node
from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Range, check_range
from ff3r_model.slam.keyframe_archive import HALF_MAX
from ff3r_model.slam.reference.gravity import Source
from ff3r_model.slam.reference.scale import Ladder
from ff3r_model.slam.refinement.features import DIMENSIONS
from ff3r_model.voxel_map.contents import LENGTHS, STAMPS, WINDOWS, are_rigid, are_rotations, check_ids

Vector = tuple[float, float, float]
MAX_SUBMAPS = 1000
MAX_PICTURE = 4096
"""Pixels along each side of a remembered picture."""
_SCALES = Range(1e-9, 1e9)
_PIXELS = Range(-1e6, 1e6)
"""Of intrinsics."""

GRAPH: Table = {
    "nodes": Column(torch.int64, ("rows", 2), Range(0, 2**30)),
    "poses": Column(torch.float64, ("rows", 13), LENGTHS),
}
EDGES: Table = {
    "pairs": Column(torch.int64, ("rows", 3), WINDOWS),
    "edges": Column(torch.float64, ("rows", 13), LENGTHS),
    "weights": Column(torch.float64, ("rows", 2), Range(0, 1e9)),
}
ARCHIVE: Table = {
    "ids": Column(torch.int64, ("rows", 5), None),
    "jpegs": Column(torch.uint8, ("bytes",), None),
    "depths": Column(torch.float16, ("rows", "height", "width"), Range(0, HALF_MAX)),
    "units": Column(torch.float64, ("rows",), _SCALES),
    "confidences": Column(torch.float16, ("rows", "height", "width"), Range(0, HALF_MAX)),
    "intrinsics": Column(torch.float32, ("rows", 3, 3), _PIXELS),
    "full_intrinsics": Column(torch.float32, ("rows", 3, 3), None),
    "poses": Column(torch.float32, ("rows", 4, 4), LENGTHS),
    "descriptors": Column(torch.float16, ("rows", "channels"), Range(-10, 10)),
    "landmark_counts": Column(torch.int64, ("rows",), NOT_NEGATIVE, optional=True),
    "landmarks": Column(torch.float32, ("landmarks", 3), LENGTHS, optional=True),
    "landmark_descriptors": Column(torch.uint8, ("landmarks", DIMENSIONS), None, optional=True),
}


def check_graph(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ValueError for what no pose graph can have written; nothing at all is an empty one."""
    if not tensors:
        return
    check_table(GRAPH, tensors, where)
    check_table(EDGES, tensors, where)
    windows, pairs = tensors["nodes"][:, 0], tensors["pairs"]
    check_ids(windows, f"{where}nodes")
    for name in ("poses", "edges"):
        check_rows(are_rotations(tensors[name][:, :9].view(-1, 3, 3)), f"{where}{name}", "no rotation")
        check_values(tensors[name][:, 12], _SCALES, f"scales of {where}{name}")
    known = torch.isin(pairs[:, :2], windows).all(1) & (pairs[:, 0] != pairs[:, 1])
    check_rows(known, f"{where}pairs", "not two nodes of the graph")
    check_values(pairs[:, 2], SHARE, f"loops of {where}pairs")
    check_values(tensors["weights"][:, 0], POSITIVE, f"deviations of {where}weights")
    check_values(tensors["nodes"][:, 1], AT_LEAST_ONE, f"counts of {where}nodes")


def check_archive(tensors: Mapping[str, Tensor], nodes: Mapping[int, Node]) -> None:
    """Raise ValueError for what no archive can have written; `nodes` are those of all submaps, by window."""
    if not tensors:
        return
    where = "archive."
    check_table(ARCHIVE, tensors, where)
    keyframes, stamps, windows, submaps, sizes = tensors["ids"].unbind(1)
    check_ids(keyframes, f"{where}ids")
    check_values(stamps, STAMPS, f"stamps of {where}ids")
    pairs = torch.stack([windows, submaps], dim=1).tolist()
    placed = [window in nodes and nodes[window].submap == submap for window, submap in pairs]
    check_rows(torch.tensor(placed, dtype=torch.bool), f"{where}ids", "no node of its submap")
    check_rows(are_rigid(tensors["poses"]), f"{where}poses", "no rigid motion")
    focal = tensors["intrinsics"].diagonal(dim1=1, dim2=2)
    check_rows((focal > 0).all(1), f"{where}intrinsics", "a focal length that is not positive")
    full = tensors["full_intrinsics"].flatten(1)
    given = (full.abs() <= _PIXELS.high).all(1)
    check_rows(given | full.isnan().all(1), f"{where}full_intrinsics", "neither intrinsics nor unknown")
    check_values(sizes, Range(1, tensors["jpegs"].numel()), f"sizes of {where}ids")
    if int(sizes.sum()) != tensors["jpegs"].numel():
        raise ValueError(f"{where}jpegs holds {tensors['jpegs'].numel()} bytes, and its ids {int(sizes.sum())}")
    _check_pictures(tensors["jpegs"], sizes, where)
    _check_landmarks(tensors, where)


def _check_landmarks(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ValueError unless all there is of landmarks is there, and before the cameras; older files have none."""
    names = ("landmark_counts", "landmarks", "landmark_descriptors")
    missing = [name for name in names if name not in tensors]
    if len(missing) == len(names):
        return
    if missing:
        raise ValueError(f"{where}{missing[0]} is missing")
    counts, positions = tensors["landmark_counts"], tensors["landmarks"]
    check_values(counts, Range(0, len(positions)), f"{where}landmark_counts")
    if int(counts.sum()) != len(positions):
        raise ValueError(f"{where}landmarks has {len(positions)} rows, and its counts {int(counts.sum())}")
    check_rows(positions[:, 2] > 0, f"{where}landmarks", "a point behind the camera")


def _check_pictures(jpegs: Tensor, sizes: Tensor, where: str) -> None:
    """Raise ValueError unless all pictures are JPEGs of one size that can be decoded."""
    shapes = set()
    for index, jpeg in enumerate(jpegs.split(sizes.tolist())):
        data = jpeg.numpy()
        try:
            # Its size, from its header, before anything is decoded
            with Image.open(io.BytesIO(data.tobytes()), formats=("JPEG",)) as picture:
                shapes.add(picture.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{where}jpegs: picture {index} is no JPEG ({error})") from error
        if len(shapes) > 1 or max(max(shapes)) > MAX_PICTURE:
            raise ValueError(f"{where}jpegs: pictures of {sorted(shapes)}; all have one size, at most {MAX_PICTURE}")
        if cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_8) is None:
            raise ValueError(f"{where}jpegs: picture {index} cannot be decoded")


@dataclass(frozen=True)
class FloorRecord:
    """A floor, in JSON."""

    normal: Vector
    offset: float

    def __post_init__(self) -> None:
        _check_normal(self.normal)
        check_range(self, LENGTHS, "offset")


@dataclass(frozen=True)
class SeenFloorRecord:
    """A floor that a window has seen, in JSON."""

    scale: float
    confidence: float
    normal: Vector
    centre: Vector | None = None
    """None in older files."""

    def __post_init__(self) -> None:
        _check_normal(self.normal)
        if self.centre is not None and not all(value in LENGTHS for value in self.centre):
            raise ValueError(f"centre must be {LENGTHS}, not {self.centre}")
        check_range(self, _SCALES, "scale")
        check_range(self, SHARE, "confidence")


@dataclass(frozen=True)
class LadderRecord:
    """What windows have said of the scale, in JSON."""

    metres: dict[Ladder, tuple[float, ...]]
    floors: tuple[SeenFloorRecord, ...]

    def __post_init__(self) -> None:
        for source, values in self.metres.items():
            if not all(value in _SCALES for value in values):
                raise ValueError(f"metres of {source} must be {_SCALES}, not {values}")


@dataclass(frozen=True)
class GravityRecord:
    """How up is known, in JSON."""

    source: Source
    floors: tuple[Vector, ...]
    tries: int

    def __post_init__(self) -> None:
        check_range(self, NOT_NEGATIVE, "tries")
        for normal in self.floors:
            _check_normal(normal)


@dataclass(frozen=True)
class ReferenceRecord:
    """What a submap knows of the world, in JSON."""

    gravity: GravityRecord
    ladder: LadderRecord
    floor: FloorRecord | None


@dataclass(frozen=True)
class CameraRecord:
    """What a run believed of its camera, in JSON."""

    focal: float
    """Of the long side of what the network sees."""
    sigma: float
    """Standard deviation of its logarithm."""

    def __post_init__(self) -> None:
        check_range(self, Range(0.01, 100), "focal")
        check_range(self, Range(0.001, 10), "sigma")


@dataclass(frozen=True)
class AtlasRecord:
    """The JSON of all submaps, the active one of which is the file's map."""

    active: int = 0
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Records of maps, by number."""
    references: dict[str, ReferenceRecord] = field(default_factory=dict)
    words: str | None = None
    """Fingerprint of what gives the features their meaning; None in older files."""
    camera: CameraRecord | None = None
    """None where the camera was calibrated or nothing was estimated, and in older files."""

    def __post_init__(self) -> None:
        numbers = [str(self.active), *self.others]
        if not all(number.isascii() and number.isdigit() and int(number) < 2**30 for number in numbers[:MAX_SUBMAPS]):
            raise ValueError(f"others: submaps are numbered from 0, not {numbers[:8]}")
        if len(numbers) > MAX_SUBMAPS:
            raise ValueError(f"others: there are {len(numbers)} submaps, and {MAX_SUBMAPS} are the most")
        if len({int(number) for number in numbers}) < len(numbers):
            raise ValueError(f"others: submap {self.active} stands twice among {numbers[:8]}")


def _check_normal(normal: Vector) -> None:
    if not abs(sum(part * part for part in normal) ** 0.5 - 1) <= 0.1:
        raise ValueError(f"normal must be of length 1, not {normal}")
